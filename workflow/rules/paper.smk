# The tables and figures: a small table each, and the picture drawn from it.


rule paper:
    input:
        PAPER,


rule tabulate_results:
    input:
        scores="results/superb/scores.csv",
        comparisons="results/paper/comparisons.csv",
        made=[
            *expand(
                "results/{stage}/{student}.json",
                stage=["stage1", "stage2"],
                student=STUDENTS,
            ),
            *expand(
                "results/superb/{upstream}/{task}.json", upstream=UPSTREAMS, task=TASKS
            ),
        ],
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
        code=fingerprint("skill.paper.tables"),
    shell:
        "python -m skill table results --params {params.job:q} --inputs {input:q} "
        "--output {output.table:q} --threads {threads} 2>&1 | tee -i {log:q}"


# Only at the paper's scale: other results have no place beside published ones.
rule tabulate_published:
    input:
        FIGURES["published"],
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
        code=fingerprint("skill.paper.tables"),
    shell:
        "python -m skill table table1 --params {params.job:q} --inputs {input:q} "
        "--output {output.table:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule compare_upstreams:
    input:
        expand(
            "results/superb/{upstream}/{task}.{kind}",
            upstream=UPSTREAMS,
            task=TASKS,
            kind=["csv", "json"],
        ),
    output:
        "results/paper/comparisons.csv",
    log:
        "logs/paper/comparisons.log",
    benchmark:
        "benchmarks/snakemake/paper/comparisons.tsv"
    params:
        job=PAPER_JOB,
        code=fingerprint("skill.paper.tables"),
    shell:
        "python -m skill table comparisons --params {params.job:q} --inputs {input:q} "
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
        code=fingerprint("skill.paper.tables"),
    shell:
        "python -m skill table {wildcards.figure:q} --params {params.job:q} --inputs {input:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule measure_regression:
    input:
        student="results/stage2/{student}.safetensors",
        teachers=lambda w: teachers(P.students[w.student].teachers),
        summary="results/stage1/{student}.json",
        manifests=manifests(UNLABELLED),
        audio=recordings(UNLABELLED),
    output:
        "results/paper/regression/{student}.csv",
    log:
        "logs/paper/regression/{student}.log",
    benchmark:
        "benchmarks/snakemake/paper/regression/{student}.tsv"
    resources:
        gpu=GPU,
    params:
        job=job(jobs.ActivationsJob.of(P)),
        code=fingerprint("skill.similarity.regression"),
    shell:
        "python -m skill regression --params {params.job:q} --student {input.student:q} "
        "--teachers {input.teachers:q} --summary {input.summary:q} "
        "--manifests {input.manifests:q} --output {output:q} --threads {threads} "
        "2>&1 | tee -i {log:q}"


# The file's name (with its wildcards), its category in the report, what it shows and of whom.
DRAWN = {
    "similarity-{matrix}": (
        "1 Layers of the teachers",
        "similarity of layers",
        "{matrix}",
    ),
    "dendrogram-{student}": ("1 Layers of the teachers", "clusters", "{student}"),
    "probes": ("1 Layers of the teachers", "what each layer knows", "all upstreams"),
    "curves": ("2 Pruning and distillation", "training curves", "all students"),
    "layers": (
        "2 Pruning and distillation",
        "what is left of each layer",
        "all students",
    ),
    "regression": (
        "2 Pruning and distillation",
        "how well each layer was learned",
        "all students",
    ),
    "size": ("3 Results", "size, operations and speed against score", "all upstreams"),
    "sparsity": ("3 Results", "score against sparsity", "students of sweeps"),
    "methods": ("3 Results", "gain over the baseline", "all methods"),
    "published": ("3 Results", "SUPERB score of published models", "published"),
    "ablation": ("4 Ablations", "gain over the reference", "all ablations"),
}

for figure, (category, shown, of) in DRAWN.items():
    kind = figure.partition("-")[0]

    rule:
        name:
            f"draw_{kind}"
        input:
            f"results/paper/{figure}.csv",
        output:
            pdf=f"results/paper/{figure}.pdf",
            png=report(
                f"results/paper/{figure}.png",
                category=category,
                caption=f"../report/{kind}.rst",
                labels={"figure": shown, "of": of},
            ),
        log:
            f"logs/paper/draw-{figure}.log",
        benchmark:
            f"benchmarks/snakemake/paper/draw-{figure}.tsv"
        params:
            figure=lambda w, output: Path(output.png).stem,
            code=fingerprint("skill.paper.figures"),
        shell:
            "python -m skill figure {params.figure:q} --table {input:q} "
            "--output {output.pdf:q} --threads {threads} 2>&1 | tee -i {log:q}"
