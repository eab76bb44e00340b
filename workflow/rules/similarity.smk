# Which layers of the teachers carry the same information: centred kernel alignment.


rule similarity:
    input:
        expand("results/similarity/{matrix}.csv", matrix=MATRICES),


rule compare_layers:
    input:
        lambda w: expand(
            "results/activations/{teacher}.safetensors", teacher=MATRICES[w.matrix][0]
        ),
    output:
        "results/similarity/{matrix}.csv",
    log:
        "logs/similarity/{matrix}.log",
    benchmark:
        "benchmarks/snakemake/similarity/{matrix}.tsv"
    priority: 1  # the longest way to the end: before the heads of what is there already
    threads: TRAINING_THREADS
    params:
        job=lambda w: job(MATRICES[w.matrix][1]),
        code=fingerprint("skill.similarity.steps"),
    shell:
        "python -m skill similarity --params {params.job:q} --activations {input:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"
