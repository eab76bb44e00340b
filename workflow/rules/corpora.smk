# Speech: audio and a manifest per corpus.


rule corpora:
    input:
        manifests(P.corpora),
        recordings(P.corpora),


rule convert_corpus:
    output:
        audio="results/corpora/{corpus}.flac",
        manifest="results/corpora/{corpus}.csv",
    log:
        "logs/corpora/{corpus}.log",
    benchmark:
        "benchmarks/snakemake/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=one_of(STORED),
    params:
        job=lambda w: job(P.corpora[w.corpus]),
        recordings=lambda w: source_state(w.corpus, P.corpora[w.corpus]),
        checksums=sha256(checkout_path("data/checksums.csv")),
        code=fingerprint("skill.data.corpora.prepare"),
    shell:
        "python -m skill corpus {wildcards.corpus} --params {params.job:q} "
        "--output {output.manifest:q} --threads {threads} "
        "2>&1 | tee -i {log:q}"


# Fetched into SKILL_CORPORA where it is free and not there; only the manifest is a result.
rule list_corpus:
    output:
        manifest="results/corpora/{corpus}.csv",
    log:
        "logs/corpora/{corpus}.log",
    benchmark:
        "benchmarks/snakemake/corpora/{corpus}.tsv"
    wildcard_constraints:
        corpus=one_of(LISTED),
    threads: 8
    params:
        job=lambda w: job(P.corpora[w.corpus]),
        archives=lambda w: archives(P.corpora[w.corpus].kind),
        recordings=lambda w: source_state(w.corpus, P.corpora[w.corpus]),
        code=fingerprint("skill.data.corpora.prepare"),
    shell:
        "python -m skill corpus {wildcards.corpus} --params {params.job:q} "
        "--output {output.manifest:q} --threads {threads} 2>&1 | tee -i {log:q}"
