# The tables and figures: a small table each, and the picture drawn from it.


rule paper:
    input:
        PAPER,


rule tabulate_results:
    input:
        "results/superb/scores.csv",
    output:
        table="results/paper/results.csv",
        text="results/paper/results.md",
        page=report(
            "results/paper/results.html",
            category="3 Results",
            caption="../report/results.rst",
            labels={"figure": "table of results", "of": "all upstreams, all tasks"},
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


# Only at the paper's scale: other results have no place beside published ones.
rule tabulate_published:
    input:
        "results/superb/scores.csv",
        PUBLISHED,
    output:
        table="results/paper/table1.csv",
        text="results/paper/table1.md",
        page=report(
            "results/paper/table1.html",
            category="3 Results",
            caption="../report/table1.rst",
            labels={"figure": "Table 1", "of": "beside published students"},
        ),
    log:
        "logs/paper/table1.log",
    benchmark:
        "benchmarks/snakemake/paper/table1.tsv"
    params:
        job=PAPER_JOB,
        code=fingerprint("skill.paper"),
    shell:
        "python -m skill paper table1 --params {params.job:q} --inputs {input:q} "
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


rule measure_imitation:
    input:
        student="results/stage2/{student}.safetensors",
        teachers=lambda w: teachers(P.students[w.student].teachers),
        summary="results/stage1/{student}.json",
        manifests=manifests(UNLABELLED),
        audio=recordings(UNLABELLED),
    output:
        "results/paper/imitation/{student}.csv",
    log:
        "logs/paper/imitation/{student}.log",
    benchmark:
        "benchmarks/snakemake/paper/imitation/{student}.tsv"
    resources:
        gpu=GPU,
    params:
        job=job(
            sections.ActivationsJob(
                seed=P.seed, unlabelled=P.unlabelled, activations=P.activations
            )
        ),
        code=fingerprint("skill.analysis.imitation"),
    shell:
        "python -m skill imitation --params {params.job:q} --student {input.student:q} "
        "--teachers {input.teachers:q} --summary {input.summary:q} "
        "--manifests {input.manifests:q} --output {output:q} --threads {threads} "
        "2>&1 | tee -i {log:q}"


rule draw_similarity:
    input:
        "results/paper/similarity-{matrix}.csv",
    output:
        pdf="results/paper/similarity-{matrix}.pdf",
        png=report(
            "results/paper/similarity-{matrix}.png",
            category="1 Layers of the teachers",
            caption="../report/similarity.rst",
            labels={"figure": "similarity of layers", "of": "{matrix}"},
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
            category="1 Layers of the teachers",
            caption="../report/dendrogram.rst",
            labels={"figure": "clusters", "of": "{student}"},
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
            category="2 Pruning and distillation",
            caption="../report/curves.rst",
            labels={"figure": "training curves", "of": "all students"},
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
            category="2 Pruning and distillation",
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


rule draw_imitation:
    input:
        "results/paper/imitation.csv",
    output:
        pdf="results/paper/imitation.pdf",
        png=report(
            "results/paper/imitation.png",
            category="2 Pruning and distillation",
            caption="../report/imitation.rst",
            labels={"figure": "how well each layer was learned", "of": "all students"},
        ),
    log:
        "logs/paper/draw-imitation.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-imitation.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure imitation --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_size:
    input:
        "results/paper/size.csv",
    output:
        pdf="results/paper/size.pdf",
        png=report(
            "results/paper/size.png",
            category="3 Results",
            caption="../report/size.rst",
            labels={
                "figure": "size, operations and speed against score",
                "of": "all upstreams",
            },
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


rule draw_sparsity:
    input:
        "results/paper/sparsity.csv",
    output:
        pdf="results/paper/sparsity.pdf",
        png=report(
            "results/paper/sparsity.png",
            category="3 Results",
            caption="../report/sparsity.rst",
            labels={"figure": "score against sparsity", "of": "students of sweeps"},
        ),
    log:
        "logs/paper/draw-sparsity.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-sparsity.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure sparsity --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_published:
    input:
        "results/paper/published.csv",
    output:
        pdf="results/paper/published.pdf",
        png=report(
            "results/paper/published.png",
            category="3 Results",
            caption="../report/published.rst",
            labels={"figure": "SUPERB score of published models", "of": "published"},
        ),
    log:
        "logs/paper/draw-published.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-published.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure published --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_methods:
    input:
        "results/paper/methods.csv",
    output:
        pdf="results/paper/methods.pdf",
        png=report(
            "results/paper/methods.png",
            category="3 Results",
            caption="../report/methods.rst",
            labels={"figure": "gain over the baseline", "of": "all methods"},
        ),
    log:
        "logs/paper/draw-methods.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-methods.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure methods --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_ablation:
    input:
        "results/paper/ablation.csv",
    output:
        pdf="results/paper/ablation.pdf",
        png=report(
            "results/paper/ablation.png",
            category="4 Ablations",
            caption="../report/ablation.rst",
            labels={"figure": "gain over the reference", "of": "all ablations"},
        ),
    log:
        "logs/paper/draw-ablation.log",
    benchmark:
        "benchmarks/snakemake/paper/draw-ablation.tsv"
    params:
        code=fingerprint("skill.figures"),
    shell:
        "python -m skill figure ablation --table {input:q} "
        "--pdf {output.pdf:q} --png {output.png:q} --threads {threads} 2>&1 | tee -i {log:q}"
