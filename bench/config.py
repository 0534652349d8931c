"""Studies: strict loading of a YAML file, expansion of base + delta into jobs, hashes. Imports no torch.

A study names bases (whole settings of a variant) and suites (one table or figure each). A suite's variant is a base and a
delta of dotted keys. Jobs are content-addressed: the name of a job's folder holds the hash of all that its result depends on.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from srdd.config import ModelConfig, Positive, SamplerConfig, Share, Strict, TokenizerConfig
from srdd.lookup import names_in, unknown

ROOT = Path(__file__).resolve().parent.parent
RESERVED = ("all", "figures", "tables", "report")
SLUG = r"[a-z0-9][a-z0-9_]*"


class ConfigError(ValueError):
    """What is wrong with a study, in one line: file, key, value, remedy."""


# ---------------------------------------------------------------- schema


class DatasetConfig(Strict):
    """Which pictures, and how they are split. Held-out pictures are never trained on."""

    name: str = Field(description="name of a load_<name> in bench/datasets.py")
    path: str | None = Field(None, description="where the files lie; null: the loader's own places")
    image_size: Positive
    channels: Literal[1, 3]
    num_classes: int = Field(ge=0, description="0: no classes")
    val_share: float = Field(0.05, gt=0, lt=0.5, description="of the training pictures, for early stopping")
    test_share: float = Field(0.2, gt=0, lt=0.9, description="held out, where the set has no test part of its own")
    train_images: Positive | None = Field(None, description="train on this many only; null: all")


class FeaturesConfig(Strict):
    """The feature extractor of all scores. Its name is part of every metric's name."""

    kind: Literal["trained", "inception"] = Field(
        "trained", description="trained: a classifier of this study's training split; inception: Inception-v3 weights"
    )
    name: str = Field(pattern=rf"^{SLUG}$", description="suffix of the metrics, such as digits64")
    dim: Positive = 64
    channels: Positive = 32
    steps: Positive = 500
    batch_size: Positive = 128
    lr: float = Field(2e-3, gt=0)
    seed: int = 0
    weights: str | None = Field(None, description="inception only: path of the weights; null: torch-fidelity downloads them")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$", description="inception only: checked before the file is read")
    reference: str | None = Field(
        None, description="inception only: an .npz with mu and sigma to score FID against, instead of the test split"
    )


class TokenizerTraining(Strict):
    """How the multi-scale VQ-VAE is trained."""

    steps: Positive = 600
    batch_size: Positive = 128
    lr: float = Field(3e-3, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup: int = Field(50, ge=0)
    clip: float = Field(1.0, gt=0)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    commitment: float = Field(0.25, ge=0, description="weight of the commitment loss")
    entropy: float = Field(0.0, ge=0, description="weight of the usage entropy per scale; 0: off")
    scale_drop: Share = Field(0.5, description="share of steps that use a random subset of the scales")
    restart_every: Positive = 25
    restart_share: Share = Field(0.1, description="a code used less than this share of the mean use is restarted")
    log_every: Positive = 50
    save_every: Positive = 100
    seed: int = 0


class TokenizerSpec(Strict):
    """A tokenizer: its sizes and its training, or the weights of one that exists."""

    config: TokenizerConfig
    training: TokenizerTraining = TokenizerTraining()
    weights: str | None = Field(None, description="path of a tokenizer.safetensors; null: train one")
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class TrainingConfig(Strict):
    """How a scale transformer is trained (VAR, arXiv 2404.02905, section 4)."""

    steps: Positive = 400
    batch_size: Positive = 64
    lr: float = Field(1e-3, gt=0)
    final_lr: Share = Field(0.1, description="share of lr that is left at the last step; decay is linear")
    warmup: int = Field(20, ge=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    weight_decay: float = Field(0.05, ge=0)
    clip: float = Field(2.0, gt=0)
    ema_decay: float = Field(0.99, ge=0, lt=1)
    eval_every: Positive = Field(50, description="steps between held-out losses; early stopping looks there")
    patience: Positive | None = Field(None, description="stop after so many looks without a better one; null: never")
    snapshot_every: Positive = Field(100, description="steps between the weights that the convergence figure scores")
    save_every: Positive = Field(50, description="steps between checkpoints to resume from")
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False


class Variant(Strict):
    """The whole settings of one method: what a base holds."""

    tokenizer: TokenizerSpec
    model: ModelConfig
    training: TrainingConfig = TrainingConfig()
    sampler: SamplerConfig = SamplerConfig()


class EvaluationConfig(Strict):
    """How samples are scored; the same for every variant."""

    num_images: int = Field(1280, ge=100, description="generated pictures per score; fewer than 100 are refused")
    first_seed: int = Field(0, ge=0)
    batch_size: Positive = 256
    metrics: tuple[str, ...] = Field(("fidelity", "class_agreement"), strict=False, min_length=1)


class LatencyConfig(Strict):
    """How time and memory are measured: interleaved rounds in one process."""

    batch_sizes: tuple[Positive, ...] = Field((1, 2, 4, 8, 16, 32, 64), strict=False, min_length=1)
    rounds: int = Field(5, ge=2)
    warmup: Positive = 1


class SuiteEntry(Strict):
    """One variant of a suite: a base and what it changes."""

    base: str
    delta: dict[str, Any] = {}


class Suite(Strict):
    """One table or figure: a claim, variants, what is measured."""

    claim: str = Field(description="what is compared, in one sentence")
    expect: str | None = Field(None, description="what the paper claims of it; null: the question is ours")
    measure: tuple[Literal["scores", "convergence", "latency"], ...] = Field(("scores",), strict=False, min_length=1)
    variants: dict[str, SuiteEntry] = Field(min_length=1)
    train_seeds: tuple[int, ...] | None = Field(None, strict=False, min_length=1)
    latency: LatencyConfig | None = Field(None, description="instead of the study's")
    figures: tuple[str, ...] = Field((), strict=False)
    tables: tuple[str, ...] = Field((), strict=False)


class Study(Strict):
    """A study file."""

    study: str = Field(pattern=rf"^{SLUG}$")
    dataset: DatasetConfig
    features: FeaturesConfig
    bases: dict[str, dict[str, Any]] = Field(min_length=1)
    train_seeds: tuple[int, ...] = Field((0, 1, 2), strict=False, min_length=1)
    evaluation: EvaluationConfig = EvaluationConfig()
    latency: LatencyConfig = LatencyConfig()
    suites: dict[Annotated[str, Field(pattern=rf"^{SLUG}$")], Suite] = Field(min_length=1)

    @model_validator(mode="after")
    def _seeds_differ(self) -> Study:
        for seeds in (self.train_seeds, *(s.train_seeds for s in self.suites.values() if s.train_seeds)):
            if len(set(seeds)) != len(seeds):
                raise ValueError(f"train_seeds {list(seeds)}: each seed once")
        return self


# ---------------------------------------------------------------- loading


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice, and reads 1e-3 as the number that it is."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = False) -> dict:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=deep)
        if key in seen:
            raise ConfigError(f"line {key_node.start_mark.line + 1}: {key!r} stands twice; give each a name of its own")
        seen.add(key)
    loader.flatten_mapping(node)  # YAML's own `<<` merging
    return yaml.SafeLoader.construct_mapping(loader, node, deep)


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _explain(error: ValidationError, schema: type[BaseModel], prefix: str = "") -> str:
    """The first validation error as `key: what is wrong`, with the nearest legal key for an unknown one."""
    first = error.errors(include_url=False)[0]
    where = [str(part) for part in first["loc"] if part != "[key]"]
    key = prefix + ".".join(where)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        return f"{key}: " + unknown("key", where[-1], _legal_keys(schema, where[:-1])) + more
    if first["type"] == "missing":
        return f"{key}: is missing{more}"
    value = first.get("input")
    shown = "" if isinstance(value, dict) else f", got {value!r}"
    return f"{key or prefix.rstrip('.')}: {first['msg'].removeprefix('Value error, ')}{shown}{more}".removeprefix(": ")


def _legal_keys(schema: Any, where: list[str]) -> list[str]:
    for part in where:
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            schema = schema.model_fields[part].annotation
        else:  # dict[str, X]
            schema = schema.__args__[-1]
    return list(schema.model_fields)


def _validate(schema: type[BaseModel], data: Any, prefix: str = "") -> Any:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_explain(error, schema, prefix)) from None


def read_yaml(path: Path) -> dict:
    """A YAML file as a mapping, strictly. Raises ConfigError."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except FileNotFoundError:
        raise ConfigError("no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError("holds no settings: a study is a mapping of keys")
    return data


def load_study(path: str | Path) -> Plan:
    """Read, check and expand a study. Raises ConfigError, one line that names file, key, value and what is legal."""
    path = Path(path)
    try:
        return expand(_validate(Study, read_yaml(path)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _set(settings: dict, dotted: str, value: Any, prefix: str) -> None:
    *parents, last = dotted.split(".")
    node = settings
    for i, part in enumerate(parents):
        if not isinstance(node.setdefault(part, {}), dict):
            raise ConfigError(f"{prefix}{dotted}: {'.'.join(parents[: i + 1])} holds a value, not further keys")
        node = node[part]
    node[last] = value


def resolve_variant(study: Study, suite: str, name: str) -> Variant:
    """Base plus delta, with what follows from dataset and tokenizer filled in, checked as a whole. Raises ConfigError."""
    entry = study.suites[suite].variants[name]
    at = f"suites.{suite}.variants.{name}"
    if entry.base not in study.bases:
        raise ConfigError(f"{at}.base: " + unknown("base", entry.base, study.bases))
    settings = copy.deepcopy(study.bases[entry.base])
    for dotted, value in entry.delta.items():
        _set(settings, dotted, value, f"{at}.delta.")
    at += " (delta and base)."
    data, config = study.dataset, settings.setdefault("tokenizer", {})
    timed_only = study.suites[suite].measure == ("latency",)  # no picture is read: other sizes may be timed
    if not isinstance(config, dict) or not isinstance(config.setdefault("config", {}), dict):
        raise ConfigError(f"{at}tokenizer: must hold keys")
    follows = {"image_size": data.image_size, "in_channels": data.channels}
    if timed_only:
        follows |= {key: value for key, value in config["config"].items() if key in follows}
    _fill(config["config"], follows, f"{at}tokenizer.config.", "dataset")
    tokenizer = _validate(TokenizerSpec, config, f"{at}tokenizer.").config
    model = settings.setdefault("model", {})
    if not isinstance(model, dict):
        raise ConfigError(f"{at}model: must hold keys")
    follows = {"codebook_size": tokenizer.codebook_size, "codebook_dim": tokenizer.codebook_dim}
    _fill(model, follows, f"{at}model.", "tokenizer")
    model.setdefault("num_classes", data.num_classes)
    if model["num_classes"] not in (0, data.num_classes) and not timed_only:
        raise ConfigError(
            f"{at}model.num_classes: {model['num_classes']} does not fit the dataset's {data.num_classes} "
            f"(legal: {data.num_classes}, or 0 for an unconditional model)"
        )
    model.setdefault("patch_nums", list(tokenizer.patch_nums))
    variant = _validate(Variant, settings, at)
    if variant.model.schedule.latent_size != tokenizer.schedule.latent_size:
        raise ConfigError(
            f"{at}model.patch_nums: {list(variant.model.patch_nums)} must end at the tokenizer's latent size "
            f"{tokenizer.schedule.latent_size}"
        )
    sampler, m = variant.sampler, variant.model
    if sampler.cfg_scale != 1.0 and not (m.conditional and m.class_dropout > 0):
        raise ConfigError(
            f"{at}sampler.cfg_scale: {sampler.cfg_scale} guides a model that has "
            f"{'no class dropout' if m.conditional else 'no classes'}; set cfg_scale 1 or model.class_dropout > 0"
        )
    if sampler.top_k is not None and sampler.top_k > m.codebook_size:
        raise ConfigError(f"{at}sampler.top_k: {sampler.top_k} is more than the {m.codebook_size} codes")
    for key, file, prefix, value in (
        ("sampler.name", "srdd/sampling.py", "sample", sampler.name),
        ("sampler.cfg_ramp", "srdd/guidance.py", "ramp", sampler.cfg_ramp),
        ("model.mask", "srdd/masks.py", "mask", m.mask),
    ):
        _known(f"{at}{key}", file, prefix, value)
    return variant


def _fill(node: dict, follows: dict[str, Any], at: str, source: str) -> None:
    for key, value in follows.items():
        if node.setdefault(key, value) != value:
            raise ConfigError(f"{at}{key}: {node[key]!r} does not fit the {source}'s {value!r}; leave it out")


def _known(at: str, file: str, prefix: str, value: str | None) -> None:
    if value is not None and value not in (names := names_in(ROOT / file, prefix)):
        raise ConfigError(f"{at}: " + unknown(prefix, value, names))


# ---------------------------------------------------------------- jobs


def canonical(data: Any) -> str:
    """JSON with sorted keys: the text that is hashed."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def config_hash(data: Any) -> str:
    """The first 10 hex digits of the sha256 of the canonical JSON."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()[:10]


@dataclass(frozen=True)
class Job:
    """One run of one verb: what it is told (config), the jobs whose folders it reads (inputs, by role), and the names that its
    numbers carry (identity, which follows from the config)."""

    stage: str
    config: dict[str, Any] = field(hash=False)
    inputs: dict[str, str] = field(hash=False)
    slug: str = ""
    identity: dict[str, str] = field(default_factory=dict, hash=False)

    @property
    def run_id(self) -> str:
        name = f"{self.slug}-" if self.slug else ""
        return f"{self.stage}/{name}{config_hash(self.config)}"


@dataclass
class Plan:
    """A study, its jobs by run_id, and which of them each suite needs."""

    study: Study
    jobs: dict[str, Job] = field(default_factory=dict)
    suites: dict[str, set[str]] = field(default_factory=dict)
    identities: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def add(self, suite: str, job: Job) -> str:
        self.jobs[job.run_id] = job
        self.suites.setdefault(suite, set()).add(job.run_id)
        for run_id in job.inputs.values():
            self.suites[suite].add(run_id)
        return job.run_id

    def jobs_of(self, scope: str | None) -> list[str]:
        """run_ids of one suite, or of all."""
        return sorted(self.suites[scope] if scope else self.jobs)

    def outputs_of(self, what: Literal["figures", "tables"], scope: str | None) -> list[str]:
        """Names of the figures or tables of one suite, or of all, in the order of the study: <suite>_<name>."""
        suites = [scope] if scope else list(self.study.suites)
        return [f"{suite}_{name}" for suite in suites for name in getattr(self.study.suites[suite], what)]


def _dump(model: BaseModel) -> dict:
    return json.loads(model.model_dump_json())


def model_slug(config: ModelConfig) -> str:
    """A readable part of a model's name: its mask and schedule."""
    mask = config.mask or f"h{'None' if config.history is None else config.history}"
    return f"{mask}-{config.schedule.name}"


def expand(study: Study) -> Plan:
    """Every job of a study, each once however many suites share it. Raises ConfigError for what does not fit together."""
    plan = Plan(study)
    _check_names(study)
    for suite_name, suite in study.suites.items():
        variants = {name: resolve_variant(study, suite_name, name) for name in suite.variants}
        plan.identities[suite_name] = {}
        for name, variant in variants.items():
            identity = _identity(study, variant)
            for other, known in plan.identities[suite_name].items():
                keys = ["model", *(["timed"] if "latency" in suite.measure else [])]  # time knows sizes, not training
                if known["sampler"] == identity["sampler"] and any(known[key] == identity[key] for key in keys):
                    raise ConfigError(
                        f"suites.{suite_name}.variants.{name}: has the same settings as {other!r}; change or remove it"
                    )
            plan.identities[suite_name][name] = identity
            for measure in suite.measure:
                if measure != "latency":
                    _add_scores(plan, suite_name, variant, suite.train_seeds or study.train_seeds, measure)
        if "latency" in suite.measure:
            _add_latency(plan, suite_name, variants)
    return plan


def _check_names(study: Study) -> None:
    _known("dataset.name", "bench/datasets.py", "load", study.dataset.name)
    for name in study.evaluation.metrics:
        _known("evaluation.metrics", "bench/metrics.py", "metric", name)
    for suite_name, suite in study.suites.items():
        if suite_name in RESERVED or suite_name.endswith("_job") or suite_name.startswith(("collect_", "figures_", "tables_")):
            raise ConfigError(f"suites.{suite_name}: names a rule of the workflow already; choose another name")
        for name in suite.figures:
            _known(f"suites.{suite_name}.figures", "bench/figures.py", "figure", name)
        for name in suite.tables:
            _known(f"suites.{suite_name}.tables", "bench/tables.py", "table", name)
    features, data = study.features, study.dataset
    if features.kind == "trained" and data.num_classes < 2:
        raise ConfigError(
            f"features.kind: 'trained' needs a dataset with classes, this has {data.num_classes}; use kind: inception"
        )
    if features.kind == "trained" and (features.weights or features.reference):
        raise ConfigError("features.weights and features.reference: only for kind: inception; remove them")


def _tokenizer_job(study: Study, variant: Variant) -> tuple[Job, Job]:
    data = Job("prepare", {"dataset": _dump(study.dataset)}, {}, study.dataset.name)
    config = {**data.config, "tokenizer": _dump(variant.tokenizer)}
    return data, Job("tokenizer", config, {"data": data.run_id}, f"v{variant.tokenizer.config.codebook_size}")


def _features_job(study: Study, data: Job) -> Job:
    return Job("features", {**data.config, "features": _dump(study.features)}, {"data": data.run_id}, study.features.name)


def _train_config(tokenizer: Job, variant: Variant) -> dict:
    return {**tokenizer.config, "model": _dump(variant.model), "training": _dump(variant.training)}


def _identity(study: Study, variant: Variant) -> dict[str, Any]:
    """The names under which a variant's numbers stand in metrics.csv."""
    tokenizer = _tokenizer_job(study, variant)[1]
    model = config_hash(_train_config(tokenizer, variant))
    sampler = variant.sampler
    sizes = config_hash({"tokenizer": _dump(variant.tokenizer.config), "model": _dump(variant.model)})
    return {
        "timed": f"{model_slug(variant.model)}-{sizes}",  # the name in latency rows: time knows sizes, not training
        "tokenizer": tokenizer.run_id.split("/")[1],
        "model": f"{model_slug(variant.model)}-{model}",
        "sampler": f"{sampler.name}-w{sampler.cfg_scale:g}-{config_hash(_dump(sampler))}",
        "history": variant.model.history,
        "mask": variant.model.mask,
        "depth": variant.model.depth,
        "patch_nums": list(variant.model.patch_nums),
        "settings": {"sampler": _dump(sampler), "model": _dump(variant.model), "training": _dump(variant.training)},
    }


def _add_scores(plan: Plan, suite: str, variant: Variant, seeds: tuple[int, ...], measure: str) -> None:
    study, identity = plan.study, _identity(plan.study, variant)
    data, tokenizer = _tokenizer_job(study, variant)
    features = _features_job(study, data)
    patch_nums = list(variant.model.patch_nums)
    grid = variant.model.schedule.name
    encoded = Job(
        "encode", {**tokenizer.config, "patch_nums": patch_nums}, {"data": data.run_id, "tokenizer": tokenizer.run_id}, grid
    )
    evaluation = _dump(study.evaluation)
    names = {key: identity[key] for key in ("tokenizer", "model", "sampler")}
    shared = {"data": data.run_id, "tokenizer": tokenizer.run_id, "features": features.run_id}
    baseline = Job(
        "baselines",
        {**encoded.config, "features": _dump(study.features), "evaluation": evaluation},
        {**shared, "tokens": encoded.run_id},
        grid,
    )
    for job in (data, tokenizer, features, encoded, baseline):
        plan.add(suite, job)
    for seed in seeds:
        train = Job(
            "train",
            {**_train_config(tokenizer, variant), "train_seed": seed},
            {"data": data.run_id, "tokenizer": tokenizer.run_id, "tokens": encoded.run_id},
            f"{model_slug(variant.model)}-s{seed}",
            {key: names[key] for key in ("tokenizer", "model")},
        )
        sample = Job(
            "sample",
            {
                **train.config,
                "sampler": _dump(variant.sampler),
                "evaluation": evaluation,
                "snapshots": measure == "convergence",
            },
            {"data": data.run_id, "tokenizer": tokenizer.run_id, "train": train.run_id},
            f"{model_slug(variant.model)}-s{seed}",
            names,
        )
        evaluate = Job(
            "evaluate",
            {**sample.config, "features": _dump(study.features)},
            {"data": data.run_id, "features": features.run_id, "sample": sample.run_id},
            f"{model_slug(variant.model)}-s{seed}",
            names,
        )
        for job in (train, sample, evaluate):
            plan.add(suite, job)


def _add_latency(plan: Plan, suite: str, variants: dict[str, Variant]) -> None:
    """One job for all variants of the suite, so that its rounds interleave them. Weights do not change time: none are trained."""
    entries = {}
    for name, variant in variants.items():
        identity = _identity(plan.study, variant)
        entries[name] = {
            "identity": {"model": identity["timed"], "sampler": identity["sampler"]},
            "tokenizer": _dump(variant.tokenizer.config),
            "model": _dump(variant.model),
            "sampler": _dump(variant.sampler),
        }
    plan.add(
        suite,
        Job(
            "latency", {"latency": _dump(plan.study.suites[suite].latency or plan.study.latency), "variants": entries}, {}, suite
        ),
    )


def main() -> None:
    """Check a study and say what it would run: `python -m bench.config STUDY.yaml [--name]`."""
    import sys

    try:
        plan = load_study(sys.argv[1])
    except ConfigError as error:
        sys.exit(f"error: {error}")
    print(plan.study.study if "--name" in sys.argv else "\n".join(plan.jobs_of(None)))


if __name__ == "__main__":
    main()
