# Every student, the teachers and log-mel features on every task.


rule superb:
    input:
        "results/superb/scores.json",
        "results/superb/scores.csv",


rule evaluate:
    input:
        encoder=lambda w: encoder(w.upstream),
        manifests=lambda w: manifests(TASKS[w.task].corpora),
        audio=lambda w: recordings(TASKS[w.task].corpora),
    output:
        result="results/superb/{upstream}/{task}.json",
        counts="results/superb/{upstream}/{task}.csv",
        head="results/superb/{upstream}/{task}.safetensors",
    log:
        "logs/superb/{upstream}/{task}.log",
    benchmark:
        "benchmarks/snakemake/superb/{upstream}/{task}.tsv"
    resources:
        gpu=GPU,
    params:
        job=lambda w: job(jobs.TaskJob.of(P, w.upstream, w.task)),
        code=fingerprint("skill.superb.evaluate"),
        encoder=lambda w, input: "--encoder" if input.encoder else "",
    shell:
        "python -m skill evaluate {wildcards.upstream} {wildcards.task} --params {params.job:q} "
        "{params.encoder} {input.encoder:q} --manifests {input.manifests:q} "
        "--output {output.result:q} "
        "--scratch scratch/superb/{wildcards.upstream}/{wildcards.task} --threads {threads} "
        "2>&1 | tee -i {log:q}"


rule measure_size:
    input:
        encoder=lambda w: encoder(w.upstream),
    output:
        "results/superb/{upstream}/size.json",
    log:
        "logs/superb/{upstream}/size.log",
    benchmark:
        "benchmarks/snakemake/superb/{upstream}/size.tsv"
    resources:
        gpu=GPU,
    params:
        code=fingerprint("skill.superb.profile"),
        encoder=lambda w, input: "--encoder" if input.encoder else "",
    shell:
        "python -m skill profile {wildcards.upstream} {params.encoder} {input.encoder:q} "
        "--output {output:q} --threads {threads} 2>&1 | tee -i {log:q}"


rule collect_scores:
    input:
        expand(
            "results/superb/{upstream}/{name}.json",
            upstream=UPSTREAMS,
            name=[*TASKS, "size"],
        ),
    output:
        scores="results/superb/scores.json",
        table="results/superb/scores.csv",
    log:
        "logs/superb/scores.log",
    benchmark:
        "benchmarks/snakemake/superb/scores.tsv"
    params:
        job=job(jobs.ScoresJob.of(P, UPSTREAMS)),
        code=fingerprint("skill.superb.scores"),
    shell:
        "python -m skill scores --params {params.job:q} --results {input:q} "
        "--output {output.scores:q} --threads {threads} "
        "2>&1 | tee -i {log:q}"
