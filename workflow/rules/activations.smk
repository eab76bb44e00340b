# Hidden states of each teacher on the calibration set.


rule activations:
    input:
        expand("results/activations/{teacher}.safetensors", teacher=P.teachers),


rule record_states:
    input:
        teacher="results/teachers/{teacher}.safetensors",
        manifests=manifests(UNLABELLED),
        audio=recordings(UNLABELLED),
    output:
        "results/activations/{teacher}.safetensors",
    log:
        "logs/activations/{teacher}.log",
    benchmark:
        "benchmarks/snakemake/activations/{teacher}.tsv"
    priority: 1  # the longest way to the end: before the heads of what is there already
    threads: TRAINING_THREADS
    resources:
        gpu=GPU,
    params:
        job=job(jobs.ActivationsJob.of(P)),
        code=fingerprint("skill.similarity.activations"),
    shell:
        "python -m skill activations --params {params.job:q} --teacher {input.teacher:q} "
        "--manifests {input.manifests:q} --output {output:q} --threads {threads} "
        "2>&1 | tee -i {log:q}"
