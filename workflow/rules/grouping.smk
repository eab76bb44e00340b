# Clusters of layers, for each student that learns clusters.


rule grouping:
    input:
        expand(
            "results/grouping/{student}.{kind}", student=GROUPED, kind=["json", "csv"]
        ),


rule group_layers:
    input:
        lambda w: f"results/similarity/{outline.matrix(P.students[w.student], P)}.csv",
    output:
        groups="results/grouping/{student}.json",
        table="results/grouping/{student}.csv",
        criterion="results/grouping/{student}-criterion.csv",
    log:
        "logs/grouping/{student}.log",
    benchmark:
        "benchmarks/snakemake/grouping/{student}.tsv"
    priority: 1  # the longest way to the end: before the heads of what is there already
    params:
        job=lambda w: job(P.students[w.student].grouping),
        code=fingerprint("skill.analysis.grouping"),
    shell:
        "python -m skill grouping --params {params.job:q} --similarity {input:q} "
        "--output {output.groups:q} --table {output.table:q} "
        "--criterion {output.criterion:q} --threads {threads} 2>&1 | tee -i {log:q}"
