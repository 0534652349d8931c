# Pictures from trained models.


rule sample_job:
    # pictures, image i with seed i
    input:
        job_of("sample"),
    output:
        row=f"{RESULTS}/sample/{{job}}/row.json",
        metrics=f"{RESULTS}/sample/{{job}}/metrics.csv",
    params:
        command=command("sample", "sample"),
        source=source_hash("bench.sample"),
        path=python_path(),
    log:
        f"{RESULTS}/sample/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/sample/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"
