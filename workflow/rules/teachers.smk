# Encoders to learn from: fetched and converted, or pretrained here.


rule teachers:
    input:
        teachers(P.teachers),


rule fetch_teacher:
    output:
        "results/teachers/{teacher}.safetensors",
    log:
        "logs/teachers/{teacher}.log",
    benchmark:
        "benchmarks/snakemake/teachers/{teacher}.tsv"
    wildcard_constraints:
        teacher=one_of(FETCHED),
    params:
        job=lambda w: job(P.teachers[w.teacher]),
        weights=lambda w: weights(w.teacher),
        code=fingerprint("skill.teachers.fetch"),
    shell:
        "python -m skill teacher {wildcards.teacher} --params {params.job:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule pretrain_teacher:
    input:
        manifests=manifests(UNLABELLED),
        audio=recordings(UNLABELLED),
    output:
        "results/teachers/{teacher}.safetensors",
    log:
        "logs/teachers/{teacher}.log",
    benchmark:
        "benchmarks/snakemake/teachers/{teacher}.tsv"
    wildcard_constraints:
        teacher=one_of(RETRAINED),
    threads: TRAINING_THREADS
    params:
        job=lambda w: job(jobs.PretrainingJob.of(P, w.teacher)),
        code=fingerprint("skill.teachers.pretraining"),
    shell:
        "python -m skill pretrain {wildcards.teacher} --params {params.job:q} "
        "--manifests {input.manifests:q} --output {output:q} "
        "--scratch scratch/teachers/{wildcards.teacher} "
        "--threads {threads} 2>&1 | tee -i {log:q}"
