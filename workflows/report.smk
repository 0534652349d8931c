# From rows to tables, figures and the report. Scope: the default run, all suites (full/), or one suite (suites/<suite>/).
for suite in (None, "full", *PLAN.study.suites):

    rule:
        name:
            f"collect_{suite or 'study'}"
        input:
            plan=write_plan(suite),
            rows=[f"{folder(run_id)}/row.json" for run_id in PLAN.jobs_of(suite)],
            metrics=[f"{folder(run_id)}/metrics.csv" for run_id in PLAN.jobs_of(suite)],
        output:
            metrics=place(suite) / "metrics.csv",
            runs=place(suite) / "runs.csv",
            images=place(suite) / "images.npz",
        params:
            source=source_of_program("collect"),
            base=BASE,
            python=PYTHON,
            out=place(suite),
        log:
            place(suite) / "logs" / "collect.txt",
        conda:
            "../environment.yml"
        shell:
            "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} -m bench collect {input.plan:q} {params.out:q} 2>&1 | tee {log:q}"


# captions are made where results are, which is not where rules are read when snakemake is called with --directory
WORK = Path.cwd()
SCOPES = [(scope, place(scope), place(scope), scope or "study") for scope in (None, "full", *PLAN.study.suites)]
SCOPES += [("published", PUBLISHED, RESULTS / "from_published", "published")]
CATEGORY = {"figures": "Figures", "tables": "Tables"}

for suite, origin, target, label in SCOPES:
    for what, endings in (("figures", ("png", "svg")), ("tables", ("csv", "md"))):
        names = published_outputs(what) if origin == PUBLISHED else PLAN.outputs_of(what, suite)
        if not names:
            continue

        rule:
            name:
                f"{what}_{label}"
            input:
                metrics=origin / "metrics.csv",
                runs=origin / "runs.csv",
                images=origin / "images.npz",
            output:
                [
                    report(
                        (target / what / f"{name}.{ending}").as_posix(),
                        caption=(WORK / target / what / f"{name}.rst").as_posix(),
                        category=CATEGORY[what],
                        labels={"item": name, "format": ending},
                    )
                    if ending in ("png", "csv")
                    else (target / what / f"{name}.{ending}").as_posix()
                    for name in names
                    for ending in endings
                ],
            params:
                source=source_of_scope(what, suite),
                base=BASE,
                python=PYTHON,
                what=what,
                origin=origin,
                target=target / what,
            log:
                target / "logs" / f"{what}.txt",
            conda:
                "../environment.yml"
            shell:
                "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} -m bench {params.what} {params.origin:q} {params.target:q} 2>&1 | tee {log:q}"


for suite in PLAN.study.suites:

    rule:
        name:
            suite
        input:
            figure_files(suite),
            table_files(suite),
            place(suite) / "metrics.csv",


rule figures:
    input:
        figure_files(None),


rule tables:
    input:
        table_files(None),


for scope, label in ((None, "report"), ("full", "report_full")):

    rule:
        # one HTML file with every figure, table and caption; a second snakemake reads what the first one made
        name:
            label
        input:
            figure_files(scope, own=True),
            table_files(scope, own=True),
        output:
            place(scope) / "report.html",
        params:
            base=BASE,
            python=PYTHON,
            snakefile=Path(workflow.main_snakefile),
            study=Path(STUDY_FILE),
        log:
            place(scope) / "logs" / "report.txt",
        conda:
            "../environment.yml"
        shell:
            "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} -m snakemake --snakefile {params.snakefile:q} --configfile={params.study:q} "
            "--config results=own --nolock --cores 1 --report {output:q} -- {input:q} > {log:q} 2>&1 || (tail -5 {log:q}; exit 1)"
