# Every job of a study is one run of a verb: a config in, rows out. Weights, pictures and checkpoints to resume from lie beside the
# declared outputs, where a killed job keeps them. GPU: asked for only where there is one.
VERBS = {
    # stage: (verb, whether it uses a GPU)
    "prepare": ("prepare", False),  # find the pictures, check each, split them
    "features": ("train_features", True),  # the feature network of the scores
    "tokenizer": ("train_tokenizer", True),  # the multi-scale VQ-VAE
    "encode": ("encode", True),  # tokens of all splits under one schedule
    "train": ("train", True),  # a scale transformer, one variant and training seed
    "import_model": ("import_official", False),  # a scale transformer whose weights exist, such as an official VAR
    "distill": ("distill", True),  # one of fewer scales, from a teacher
    "sample": ("sample", True),  # pictures, image i with seed i
    "evaluate": ("evaluate", True),  # scores of a variant's pictures
    "baselines": ("baselines", True),  # floor and reconstruction
    "sweep": ("sweep", True),  # pictures and scores of many samplers of one model
    "equivalence": ("equivalence", True),  # diffusion ELBO against cross-entropy
    "snr": ("snr", True),  # signal-to-noise ratio along the scales
    "zero_shot": ("zero_shot", True),  # in-painting, out-painting, super-resolution
    "error_propagation": ("error_propagation", True),  # corrupted tokens and what follows
    "latency": ("latency", True),  # time and memory, all variants of a suite in one process
}

for stage, (verb, on_gpu) in VERBS.items():

    rule:
        name:
            f"{stage}_job"
        input:
            job_of(stage),
        output:
            row=f"{RESULTS}/{stage}/{{job}}/row.json",
            metrics=f"{RESULTS}/{stage}/{{job}}/metrics.csv",
        params:
            command=command(verb, stage),
            source=source_hash(f"bench.{verb}"),
            base=BASE,
            python=PYTHON,
        log:
            f"{RESULTS}/{stage}/{{job}}/log.txt",
        benchmark:
            f"{RESULTS}/{stage}/{{job}}/process.tsv"
        threads: all_threads if stage == "latency" else PROCESSES if stage in SHARED else 1
        # resources, not parameters: another device or number of processes makes no result stale
        resources:
            gpu=gpus(on_gpu, PROCESSES if stage in SHARED else 1),
            processes=PROCESSES if stage in SHARED else 1,
            device=DEVICE if on_gpu else "cpu",
        conda:
            "../environment.yml"
        # every word that holds a path is quoted (:q); UTF-8 whatever the locale says
        shell:
            "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} "
            "$([ {resources.processes} = 1 ] || echo -m torch.distributed.run --standalone --nproc-per-node {resources.processes}) "
            "{params.command:q} --device {resources.device} --record --threads $(({threads} / {resources.processes})) "
            "2>&1 | tee {log:q}"
