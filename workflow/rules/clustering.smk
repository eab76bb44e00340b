# Clusters of layers, for each student that learns clusters.


rule clustering:
    input:
        expand(
            "results/clustering/{student}.{kind}",
            student=CLUSTERED,
            kind=["json", "csv"],
        ),


rule group_layers:
    input:
        lambda w: f"results/similarity/{outputs.matrix(P.students[w.student], P)}.csv",
    output:
        groups="results/clustering/{student}.json",
        table="results/clustering/{student}.csv",
        criterion="results/clustering/{student}-criterion.csv",
    log:
        "logs/clustering/{student}.log",
    benchmark:
        "benchmarks/snakemake/clustering/{student}.tsv"
    priority: 1  # the longest way to the end: before the heads of what is there already
    params:
        job=lambda w: job(P.students[w.student].clustering),
        code=fingerprint("skill.similarity.steps"),
    shell:
        "python -m skill cluster --params {params.job:q} --similarity {input:q} "
        "--output {output.groups:q} --threads {threads} 2>&1 | tee -i {log:q}"
