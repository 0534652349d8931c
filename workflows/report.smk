# From rows to tables, figures and the report.
for scope in ALL_SCOPES:
    place = SCOPES.place(scope)

    rule:
        name:
            f"collect_{scope or 'study'}"
        input:
            plan=SCOPES.plan_path(scope).as_posix(),
            rows=files_of(scope, "row.json"),
            metrics=files_of(scope, "metrics.csv"),
        output:
            metrics=place / "metrics.csv",
            runs=place / "runs.csv",
            variants=place / "variants.csv",
            images=place / "images.npz",
        log:
            place / "logs" / "collect.txt",
        conda:
            "../environment.yml"
        params:
            source=source_of_program("collect"),
            base=BASE,
            python=PYTHON,
            out=place,
        shell:
            "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} -m bench collect "
            "{input.plan:q} {params.out:q} 2>&1 | tee {log:q}"


report: (Path.cwd() / RESULTS / "configs" / "about.rst").as_posix()


# captions are made where results are, which is not where rules are read when snakemake is called
# with --directory
WORK = Path.cwd()
DRAWN = [
    (scope, SCOPES.place(scope), SCOPES.place(scope), scope or "study") for scope in ALL_SCOPES
]
DRAWN += [("published", SCOPES.published, RESULTS / "from_published", "published")]
CATEGORY = {"figures": "Figures", "tables": "Tables"}

for scope, origin, target, label in DRAWN:
    for what, endings in ENDINGS.items():
        names = (
            SCOPES.published_outputs(what) if scope == "published" else PLAN.outputs_of(what, scope)
        )
        if not names:
            continue

        rule:
            name:
                f"{what}_{label}"
            input:
                metrics=origin / "metrics.csv",
                runs=origin / "runs.csv",
                variants=origin / "variants.csv",
                images=origin / "images.npz",
            output:
                [
                    (
                        report(
                            (target / what / f"{name}.{ending}").as_posix(),
                            caption=(WORK / target / what / f"{name}.rst").as_posix(),
                            category=CATEGORY[what],
                            labels={"item": name, "format": ending},
                        )
                        if ending in ("png", "csv")
                        else (target / what / f"{name}.{ending}").as_posix()
                    )
                    for name in names
                    for ending in endings
                ],
            log:
                target / "logs" / f"{what}.txt",
            conda:
                "../environment.yml"
            params:
                source=source_of_scope(what, scope),
                base=BASE,
                python=PYTHON,
                what=what,
                origin=origin,
                target=target / what,
            shell:
                "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} -m bench {params.what} "
                "{params.origin:q} {params.target:q} 2>&1 | tee {log:q}"


for suite in PLAN.study.suites:

    rule:
        name:
            suite
        input:
            outputs("figures", suite),
            outputs("tables", suite),
            between(suite),


rule figures:
    input:
        outputs("figures", None),


rule tables:
    input:
        outputs("tables", None),


for scope, label in ((None, "report"), ("full", "report_full")):

    rule:
        # one HTML file with every figure, table and caption; a second snakemake reads what the
        # first one made
        name:
            label
        input:
            outputs("figures", scope, own=True),
            outputs("tables", scope, own=True),
        output:
            SCOPES.place(scope) / "report.html",
        log:
            SCOPES.place(scope) / "logs" / "report.txt",
        conda:
            "../environment.yml"
        params:
            base=BASE,
            python=PYTHON,
            snakefile=Path(workflow.main_snakefile),
            study=Path(STUDY_FILE),
        shell:
            "PYTHONUTF8=1 PYTHONPATH={params.base:q} {params.python:q} -m snakemake --snakefile "
            "{params.snakefile:q} --configfile={params.study:q} "
            "--config results=own --nolock --cores 1 --report {output:q} -- {input:q} > {log:q} "
            "2>&1 || (tail -5 {log:q}; exit 1)"
