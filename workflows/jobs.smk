# Every job of a study is one run of a verb: a config in, rows out. Weights, images and
# checkpoints to resume from lie beside the declared outputs, where a killed job keeps them. GPU:
# asked for only where there is one.
for stage, verb in VERBS.items():

    rule:
        name:
            f"{stage}_job"
        input:
            job_of(stage),
        output:
            row=f"{RESULTS}/{stage}/{{job}}/row.json",
            metrics=f"{RESULTS}/{stage}/{{job}}/metrics.csv",
        log:
            f"{RESULTS}/{stage}/{{job}}/log.txt",
        benchmark:
            f"{RESULTS}/{stage}/{{job}}/process.tsv"
        conda:
            "../environment.yml"
        threads: all_threads if verb.alone else PROCESSES if verb.shared else 1
        # resources, not parameters: another device or number of processes makes no result stale
        resources:
            gpu=gpus(verb.gpu, PROCESSES if verb.shared else 1),
            processes=PROCESSES if verb.shared else 1,
            device=DEVICE if verb.gpu else "cpu",
        params:
            command=command(verb.name, stage),
            source=source_of_job(stage),
            base=BASE,
            python=PYTHON,
        # every word that holds a path is quoted (:q); UTF-8 whatever the locale says
        shell:
            "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} "
            "$([ {resources.processes} = 1 ] || echo -m torch.distributed.run --standalone "
            "--nproc-per-node {resources.processes}) "
            "{params.command:q} --device {resources.device} --record --threads $(({threads} / "
            "{resources.processes})) "
            "2>&1 | tee {log:q}"
