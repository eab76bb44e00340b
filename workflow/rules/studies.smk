# How far the clusters depend on what the paper leaves open: the calibration audio, the linkage and
# the kernel. Not part of the default target: ask for `snakemake studies`.


rule studies:
    input:
        expand(
            "results/studies/{student}-{study}.{kind}",
            student=TREES,
            study=["stability", "criterion", "calibration"],
            kind=["csv", "pdf", "png"],
        ),


rule resample_utterances:
    input:
        lambda w: expand(
            "results/activations/{teacher}.safetensors",
            teacher=P.students[w.student].teachers,
        ),
    output:
        stability="results/studies/{student}-stability.csv",
        criterion="results/studies/{student}-criterion.csv",
    log:
        "logs/studies/{student}-stability.log",
    benchmark:
        "benchmarks/snakemake/studies/{student}-stability.tsv"
    threads: 2
    params:
        job=lambda w: job(jobs.StudyJob.of(P, w.student)),
        code=fingerprint("skill.similarity.sensitivity"),
    shell:
        "python -m skill stability --params {params.job:q} --activations {input:q} "
        "--output {output.stability:q} --threads {threads} "
        "2>&1 | tee -i {log:q}"


rule vary_calibration:
    input:
        lambda w: expand(
            "results/activations/{teacher}.safetensors",
            teacher=P.students[w.student].teachers,
        ),
    output:
        "results/studies/{student}-calibration.csv",
    log:
        "logs/studies/{student}-calibration.log",
    benchmark:
        "benchmarks/snakemake/studies/{student}-calibration.tsv"
    threads: 2
    params:
        job=lambda w: job(jobs.StudyJob.of(P, w.student)),
        code=fingerprint("skill.similarity.sensitivity"),
    shell:
        "python -m skill sensitivity --params {params.job:q} --activations {input:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule draw_study:
    input:
        "results/studies/{student}-{study}.csv",
    output:
        pdf="results/studies/{student}-{study}.pdf",
        png="results/studies/{student}-{study}.png",
    log:
        "logs/studies/draw-{student}-{study}.log",
    benchmark:
        "benchmarks/snakemake/studies/draw-{student}-{study}.tsv"
    wildcard_constraints:
        study="stability|criterion|calibration",
    params:
        code=fingerprint("skill.paper.figures"),
    shell:
        "python -m skill figure {wildcards.study}-{wildcards.student:q} --table {input:q} "
        "--output {output.pdf:q} --threads {threads} 2>&1 | tee -i {log:q}"
