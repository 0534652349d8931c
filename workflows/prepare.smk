# Data and everything that is trained once per study: the feature network, the tokenizer, the tokens of each schedule.


rule prepare_job:
    # find the pictures, check each, split them
    input:
        job_of("prepare"),
    output:
        row=f"{RESULTS}/prepare/{{job}}/row.json",
        metrics=f"{RESULTS}/prepare/{{job}}/metrics.csv",
    params:
        command=command("prepare", "prepare"),
        source=source_hash("bench.prepare"),
        path=python_path(),
    log:
        f"{RESULTS}/prepare/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/prepare/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=0,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"


rule features_job:
    # the feature network of the scores
    input:
        job_of("features"),
    output:
        row=f"{RESULTS}/features/{{job}}/row.json",
        metrics=f"{RESULTS}/features/{{job}}/metrics.csv",
    params:
        command=command("train_features", "features"),
        source=source_hash("bench.train_features"),
        path=python_path(),
    log:
        f"{RESULTS}/features/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/features/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"


rule tokenizer_job:
    # the multi-scale VQ-VAE
    input:
        job_of("tokenizer"),
    output:
        row=f"{RESULTS}/tokenizer/{{job}}/row.json",
        metrics=f"{RESULTS}/tokenizer/{{job}}/metrics.csv",
    params:
        command=command("train_tokenizer", "tokenizer"),
        source=source_hash("bench.train_tokenizer"),
        path=python_path(),
    log:
        f"{RESULTS}/tokenizer/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/tokenizer/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"


rule encode_job:
    # tokens of all splits under one schedule
    input:
        job_of("encode"),
    output:
        row=f"{RESULTS}/encode/{{job}}/row.json",
        metrics=f"{RESULTS}/encode/{{job}}/metrics.csv",
    params:
        command=command("encode", "encode"),
        source=source_hash("bench.encode"),
        path=python_path(),
    log:
        f"{RESULTS}/encode/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/encode/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"
