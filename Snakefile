"""The whole study as one graph: `snakemake` reproduces everything, `snakemake <suite>` one ablation, `snakemake figures` the figures."""

from snakemake.utils import min_version

min_version("9.0")


include: "workflows/common.smk"
include: "workflows/prepare.smk"
include: "workflows/train.smk"
include: "workflows/sample.smk"
include: "workflows/evaluate.smk"
include: "workflows/latency.smk"
include: "workflows/report.smk"


rule all:
    default_target: True
    input:
        figure_files(None, own=True),
        table_files(None, own=True),
