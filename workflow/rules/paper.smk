# The tables and figures: a small table each, and the picture drawn from it.


rule paper:
    input:
        PAPER,


rule tabulate_results:
    input:
        "results/superb/scores.csv",
    output:
        table="results/paper/results.csv",
        text=report(
            "results/paper/results.md",
            category="1 Results",
            caption="../report/results.rst",
        ),
    log:
        "logs/paper/results.log",
    benchmark:
        "benchmarks/snakemake/paper/results.tsv"
    params:
        job=PAPER_JOB,
        code=fingerprint("skill.paper"),
    shell:
        "python -m skill paper results --params {params.job:q} --inputs {input:q} "
        "--output {output.table:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule compare_students:
    input:
        expand("results/superb/{student}/{task}.csv", student=STUDENTS, task=TASKS),
    output:
        "results/paper/comparisons.csv",
    log:
        "logs/paper/comparisons.log",
    benchmark:
        "benchmarks/snakemake/paper/comparisons.tsv"
    params:
        job=PAPER_JOB,
        code=fingerprint("skill.paper"),
    shell:
        "python -m skill paper comparisons --params {params.job:q} --inputs {input:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule tabulate_figure:
    input:
        lambda w: FIGURES[w.figure],
    output:
        "results/paper/{figure}.csv",
    log:
        "logs/paper/{figure}.log",
    benchmark:
        "benchmarks/snakemake/paper/{figure}.tsv"
    wildcard_constraints:
        figure=one_of(FIGURES),
    params:
        job=PAPER_JOB,
        code=fingerprint("skill.paper"),
    shell:
        "python -m skill paper {wildcards.figure:q} --params {params.job:q} --inputs {input:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


# For `dvc plots`, which draws every file of a folder.
rule tabulate_curve:
    input:
        "results/stage1/{student}.csv",
        "results/stage2/{student}.csv",
    output:
        "results/paper/curves/{student}.csv",
    log:
        "logs/paper/curves/{student}.log",
    benchmark:
        "benchmarks/snakemake/paper/curves/{student}.tsv"
    params:
        job=PAPER_JOB,
        code=fingerprint("skill.paper"),
    shell:
        "python -m skill paper curve --params {params.job:q} --inputs {input:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_similarity:
    input:
        "results/paper/similarity-{matrix}.csv",
    output:
        pdf="results/paper/similarity-{matrix}.pdf",
        png=report(
            "results/paper/similarity-{matrix}.png",
            category="2 Layers of the teachers",
            caption="../report/similarity.rst",
            labels={"figure": "similarity", "of": "{matrix}"},
        ),
    log:
        "logs/paper/draw-similarity-{matrix}.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-similarity-{matrix}.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure similarity-{wildcards.matrix:q} --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_dendrogram:
    input:
        "results/paper/dendrogram-{student}.csv",
    output:
        pdf="results/paper/dendrogram-{student}.pdf",
        png=report(
            "results/paper/dendrogram-{student}.png",
            category="2 Layers of the teachers",
            caption="../report/dendrogram.rst",
            labels={"figure": "dendrogram", "of": "{student}"},
        ),
    log:
        "logs/paper/draw-dendrogram-{student}.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-dendrogram-{student}.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure dendrogram-{wildcards.student:q} --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_curves:
    input:
        "results/paper/curves.csv",
    output:
        pdf="results/paper/curves.pdf",
        png=report(
            "results/paper/curves.png",
            category="3 Training",
            caption="../report/curves.rst",
            labels={"figure": "curves", "of": "all students"},
        ),
    log:
        "logs/paper/draw-curves.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-curves.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure curves --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_layers:
    input:
        "results/paper/layers.csv",
    output:
        pdf="results/paper/layers.pdf",
        png=report(
            "results/paper/layers.png",
            category="3 Training",
            caption="../report/layers.rst",
            labels={"figure": "what is left of each layer", "of": "all students"},
        ),
    log:
        "logs/paper/draw-layers.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-layers.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure layers --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_size:
    input:
        "results/paper/size.csv",
    output:
        pdf="results/paper/size.pdf",
        png=report(
            "results/paper/size.png",
            category="1 Results",
            caption="../report/size.rst",
            labels={"figure": "size against score", "of": "all upstreams"},
        ),
    log:
        "logs/paper/draw-size.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-size.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure size --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"
