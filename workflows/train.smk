# Scale transformers: one job a variant and training seed.


rule train_job:
    # a scale transformer; weights and checkpoints to resume from stay outside of output
    input:
        job_of("train"),
    output:
        row=f"{RESULTS}/train/{{job}}/row.json",
        metrics=f"{RESULTS}/train/{{job}}/metrics.csv",
    params:
        command=command("train", "train"),
        source=source_hash("bench.train"),
        path=python_path(),
    log:
        f"{RESULTS}/train/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/train/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"
