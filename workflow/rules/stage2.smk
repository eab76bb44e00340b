# The pruned student is distilled further.


rule stage2:
    input:
        expand(
            "results/stage2/{student}.{kind}",
            student=STUDENTS,
            kind=["safetensors", "csv", "json"],
        ),


rule distil_student:
    input:
        student="results/stage1/{student}.safetensors",
        teachers=lambda w: teachers(P.students[w.student].teachers),
        clustering=lambda w: clusters(w.student),
        manifests=manifests(UNLABELLED),
        audio=recordings(UNLABELLED),
    output:
        student="results/stage2/{student}.safetensors",
        curve="results/stage2/{student}.csv",
        summary="results/stage2/{student}.json",
    log:
        "logs/stage2/{student}.log",
    benchmark:
        "benchmarks/snakemake/stage2/{student}.tsv"
    priority: 1  # the longest way to the end: before the heads of what is there already
    threads: TRAINING_THREADS
    resources:
        gpu=GPU,
    params:
        job=lambda w: job(jobs.Stage2Job.of(P, w.student)),
        code=fingerprint("skill.distillation.stages"),
        clustering=lambda w, input: "--clustering" if input.clustering else "",
    shell:
        "python -m skill stage2 {wildcards.student} --params {params.job:q} "
        "--student {input.student:q} "
        "--teachers {input.teachers:q} --manifests {input.manifests:q} "
        "{params.clustering} {input.clustering:q} --output {output.student:q} "
        "--scratch scratch/stage2/{wildcards.student} "
        "--threads {threads} --gpus {resources.gpu} 2>&1 | tee -i {log:q}"
