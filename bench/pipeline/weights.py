"""Weights that exist: a path or a file of the Hugging Face hub, checked by their sum, then read.

A file of the hub is downloaded once by huggingface_hub, which has the cache ($HF_HOME), mirrors
($HF_ENDPOINT), tokens ($HF_TOKEN), and resumes. The ending of a file says its kind: .pth is
official, .safetensors of this project.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel
from torch import nn

from srdd.lookup import find

from ..runtime.verb import Run, check_file
from ..study.errors import ConfigError
from ..study.names import sum_needed
from ..study.settings import HUB, WeightsConfig

REMEDY = "put a copy somewhere and give its path"


def _endpoint() -> str | None:
    """The mirror that the user asks for. Raises ConfigError for one that is no address."""
    endpoint = os.environ.get("HF_ENDPOINT") or None
    if endpoint and not endpoint.startswith(("https://", "http://")):
        raise ConfigError(f"HF_ENDPOINT: {endpoint!r} is no address; it begins with https://")
    return endpoint and endpoint.rstrip("/")


def _reason(error: Exception) -> str:
    """Why the hub gave no file, in a few words: its own messages are paragraphs."""
    from huggingface_hub import errors

    cause = error.__cause__
    if isinstance(error, errors.GatedRepoError):
        return "its page asks for your consent; give it there and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one that needs HF_TOKEN"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "the repository has no such file"
    if isinstance(cause, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set and the cache does not hold it"
    text = " ".join(str(cause or error).split()) or type(cause or error).__name__
    return text if len(text) <= 200 else f"{text[:196]} ..."


def _sum_is_right(path: Path, sha256: str, key: str) -> bool:
    try:
        check_file(str(path), sha256, key)
    except ConfigError:
        return False
    return True


def from_hub(file: str, sha256: str, key: str) -> Path:
    """A copy of hf://OWNER/REPO/FILE in the hub's cache, its sum not yet checked. The network is
    asked only where the cache holds no copy with this sum. Raises ConfigError."""
    # takes 0.5 s to import, which nobody else should wait for
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    owner, repo, name = file.removeprefix(HUB).split("/", 2)
    endpoint = _endpoint()
    cached = try_to_load_from_cache(f"{owner}/{repo}", name)
    if isinstance(cached, str) and _sum_is_right(Path(cached), sha256, key):
        return Path(cached)
    print(f"asking {endpoint or 'the hub'} for {file} ...", file=sys.stderr, flush=True)
    try:
        return Path(hf_hub_download(f"{owner}/{repo}", name, endpoint=endpoint))
    except Exception as error:  # of the hub, of its HTTP client, of its transfer protocol
        if getattr(error, "errno", None) is not None:  # our disk, not their server
            raise
        reason = _reason(error)
        raise ConfigError(f"{key}: {file} cannot be downloaded ({reason}); {REMEDY}") from None


def fetch(weights: WeightsConfig, key: str) -> Path:
    """The file behind weights, with the right sum. Raises ConfigError; changes and removes none."""
    if weights.sha256 is None and (problem := sum_needed(weights.file)):
        raise ConfigError(f"{key}: {problem}")
    if not weights.file.startswith(HUB):
        return check_file(weights.file, weights.sha256, key)
    assert weights.sha256 is not None  # every file of the hub needs one
    # behind the link of a snapshot: what is removed to be downloaded again
    copy = from_hub(weights.file, weights.sha256, key).resolve()
    try:
        return check_file(str(copy), weights.sha256, key)
    except ConfigError as error:
        raise ConfigError(
            f"{error}; {weights.file} is another file than the sum's, or this copy is damaged: "
            "then remove it, and it is downloaded again"
        ) from None


def read_weights(
    run: Run, key: str, weights: WeightsConfig, readers: ModuleType, wanted: BaseModel
) -> nn.Module:
    """A module from a file, by `read_<ending>(path, wanted)` of the module that knows its kind.

    The file lies where the run's job says now. Raises ConfigError, one line that names the file
    and what does not fit."""
    weights = weights.model_copy(update={"file": run.files.get(key, weights.file)})
    path = fetch(weights, key)
    try:
        return find(readers, "read", weights.file.rsplit(".", 1)[1])(path, wanted)
    except ValueError as error:
        text = " ".join(str(error).split())
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from None
