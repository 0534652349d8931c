"""The whole study as one graph: `snakemake` reproduces the core suites, `snakemake full` every
suite, `snakemake <suite>` one ablation, `snakemake figures` the figures."""

from snakemake.utils import min_version

min_version("9.0")


include: "workflows/common.smk"
include: "workflows/jobs.smk"
include: "workflows/report.smk"


rule all:
    default_target: True
    input:
        outputs("figures", None, own=True),
        outputs("tables", None, own=True),
        between(None),


rule full:
    # every suite of the study, core or not
    input:
        outputs("figures", "full"),
        outputs("tables", "full"),
        between("full"),


if workflow.is_main_process:
    check_targets()
