# Scores: of the variants, and of the two lines that they are read against.


rule evaluate_job:
    # scores of a variant's pictures
    input:
        job_of("evaluate"),
    output:
        row=f"{RESULTS}/evaluate/{{job}}/row.json",
        metrics=f"{RESULTS}/evaluate/{{job}}/metrics.csv",
    params:
        command=command("evaluate", "evaluate"),
        source=source_hash("bench.evaluate"),
        path=python_path(),
    log:
        f"{RESULTS}/evaluate/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/evaluate/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"


rule baselines_job:
    # floor and reconstruction
    input:
        job_of("baselines"),
    output:
        row=f"{RESULTS}/baselines/{{job}}/row.json",
        metrics=f"{RESULTS}/baselines/{{job}}/metrics.csv",
    params:
        command=command("baselines", "baselines"),
        source=source_hash("bench.baselines"),
        path=python_path(),
    log:
        f"{RESULTS}/baselines/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/baselines/{{job}}/process.tsv"
    threads: 1
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"
