# The teacher is pruned and distilled at once.


rule stage1:
    input:
        expand(
            "results/stage1/{student}.{kind}",
            student=STUDENTS,
            kind=["safetensors", "csv", "json"],
        ),


rule prune_student:
    input:
        teachers=lambda w: teachers(P.students[w.student].teachers),
        clustering=lambda w: clusters(w.student),
        manifests=manifests(UNLABELLED),
        audio=recordings(UNLABELLED),
    output:
        student="results/stage1/{student}.safetensors",
        curve="results/stage1/{student}.csv",
        summary="results/stage1/{student}.json",
    log:
        "logs/stage1/{student}.log",
    benchmark:
        "benchmarks/snakemake/stage1/{student}.tsv"
    priority: 1  # the longest way to the end: before the heads of what is there already
    threads: TRAINING_THREADS
    resources:
        gpu=GPU,
    params:
        job=lambda w: job(jobs.Stage1Job.of(P, w.student)),
        code=fingerprint("skill.distillation.stages"),
        clustering=lambda w, input: "--clustering" if input.clustering else "",
    shell:
        "python -m skill stage1 {wildcards.student} --params {params.job:q} "
        "--teachers {input.teachers:q} --manifests {input.manifests:q} "
        "{params.clustering} {input.clustering:q} --output {output.student:q} "
        "--scratch scratch/stage1/{wildcards.student} "
        "--threads {threads} --gpus {resources.gpu} 2>&1 | tee -i {log:q}"
