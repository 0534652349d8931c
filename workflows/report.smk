# From rows to tables, figures and the report. Scope: the whole study, or one suite under results/<study>/suites/.
PUBLISHED = RESULTS / "published"


def place(suite):
    """Where the results of a scope go."""
    return RESULTS if suite is None else RESULTS / "suites" / suite


def source_of(suite, own):
    """Where figures and tables of a scope come from: this machine's runs, or the published CSVs alone."""
    choice = config.get("results", "auto")
    here = place(suite)
    published = suite is None and not own and (PUBLISHED / "metrics.csv").is_file()
    if choice == "published" and suite is None:
        if not (PUBLISHED / "metrics.csv").is_file():
            stop(f"--config results=published: {PUBLISHED} holds no metrics.csv")
        return PUBLISHED
    if choice == "auto" and published and not (here / "metrics.csv").is_file():
        return PUBLISHED
    return here


def names_of(what, suite, endings, own):
    folder = place(suite) if source_of(suite, own) != PUBLISHED else RESULTS / "from_published"
    return [(folder / what / f"{name}.{ending}").as_posix() for name in PLAN.outputs_of(what, suite) for ending in endings]


def figure_files(suite, own=False):
    return names_of("figures", suite, ("png", "svg"), own)


def table_files(suite, own=False):
    return names_of("tables", suite, ("csv", "md"), own)


def write_plan(suite):
    """plan.json of a scope: what collect gathers, and what its figures call each variant. Written when it changes."""
    path = place(suite) / "plan.json"
    study = json.loads(PLAN.study.model_dump_json())
    suites = [suite] if suite else list(PLAN.study.suites)
    about = {
        "study": STUDY,
        "scope": suite,
        "suites": {
            name: {
                **{key: study["suites"][name][key] for key in ("claim", "expect", "measure", "figures", "tables")},
                "train_seeds": study["suites"][name]["train_seeds"] or study["train_seeds"],
                "variants": PLAN.identities[name],
            }
            for name in suites
        },
        **{key: study[key] for key in ("evaluation", "features", "dataset", "train_seeds", "latency")},
        "folders": {run_id: folder(run_id) for run_id in PLAN.jobs_of(suite)},
    }
    text = json.dumps(about, indent=1) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path.as_posix()


for suite in (None, *PLAN.study.suites):

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
            source=source_hash("bench.collect"),
            path=python_path(),
            python=sys.executable,
            out=place(suite),
        log:
            place(suite) / "logs" / "collect.txt",
        conda:
            "../environment.yml"
        shell:
            "{params.path} {params.python} -m bench.collect {input.plan} {params.out} 2>&1 | tee {log}"


SCOPES = [(None, place(None), place(None), "study")]
SCOPES += [(suite, place(suite), place(suite), suite) for suite in PLAN.study.suites]
SCOPES += [(None, PUBLISHED, RESULTS / "from_published", "published")]
CATEGORY = {"figures": "Figures", "tables": "Tables"}

for suite, origin, target, label in SCOPES:
    if origin == PUBLISHED and not (PUBLISHED / "metrics.csv").is_file():
        continue
    for what, endings in (("figures", ("png", "svg")), ("tables", ("csv", "md"))):
        if not PLAN.outputs_of(what, suite):
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
                        caption=(BASE / target / what / f"{name}.rst").as_posix(),
                        category=CATEGORY[what],
                        labels={"item": name, "format": ending},
                    )
                    if ending in ("png", "csv")
                    else (target / what / f"{name}.{ending}").as_posix()
                    for name in PLAN.outputs_of(what, suite)
                    for ending in endings
                ],
            params:
                source=source_hash(f"bench.{what}"),
                path=python_path(),
                python=sys.executable,
                module=f"bench.{what}",
                origin=origin,
                target=target / what,
            log:
                target / "logs" / f"{what}.txt",
            conda:
                "../environment.yml"
            shell:
                "{params.path} {params.python} -m {params.module} {params.origin} {params.target} 2>&1 | tee {log}"


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


rule report:
    # one HTML file with every figure, table and caption; a second snakemake reads what the first one made
    input:
        figure_files(None, own=True),
        table_files(None, own=True),
    output:
        RESULTS / "report.html",
    params:
        path=python_path(),
        python=sys.executable,
        snakefile=workflow.main_snakefile,
        study=STUDY_FILE,
        targets=lambda wildcards, input: [str(path) for path in input],
    log:
        RESULTS / "logs" / "report.txt",
    conda:
        "../environment.yml"
    shell:
        "{params.path} {params.python} -m snakemake --snakefile {params.snakefile} --configfile {params.study} --config results=own "
        "--nolock --cores 1 --report {output} {params.targets} > {log} 2>&1 || (tail -5 {log}; exit 1)"
