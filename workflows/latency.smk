# Time and memory: alone on the machine, hence all threads.


rule latency_job:
    # all variants of a suite in one process
    input:
        job_of("latency"),
    output:
        row=f"{RESULTS}/latency/{{job}}/row.json",
        metrics=f"{RESULTS}/latency/{{job}}/metrics.csv",
    params:
        command=command("latency", "latency"),
        source=source_hash("bench.latency"),
        path=python_path(),
    log:
        f"{RESULTS}/latency/{{job}}/log.txt",
    benchmark:
        f"{RESULTS}/latency/{{job}}/process.tsv"
    threads: workflow.cores
    resources:
        gpu=GPUS,
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.command} --threads {threads} 2>&1 | tee {log}"
