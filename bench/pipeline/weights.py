"""Weights that exist: a path or a file of the Hugging Face hub, checked by their sum, read as one of our modules.

A file of the hub is downloaded once into $SRDD_CACHE (~/.cache/srdd) under its sum, from $HF_ENDPOINT (https://huggingface.co). The
ending of a file says its kind: .pth is official, .safetensors of this project.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

from pydantic import BaseModel
from torch import nn

from srdd.lookup import find

from ..runtime.progress import Progress
from ..runtime.rows import written_whole
from ..runtime.verb import Run, check_file
from ..study.contents import cache_folder
from ..study.errors import ConfigError
from ..study.names import sum_needed
from ..study.settings import HUB, WeightsConfig

CHUNK = 1 << 20


def hub_address(file: str) -> str:
    """The address behind hf://OWNER/REPO/FILE. Raises ConfigError for an endpoint that is none."""
    owner, repo, path = file.removeprefix(HUB).split("/", 2)
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not endpoint.startswith(("https://", "http://", "file://")):
        raise ConfigError(f"HF_ENDPOINT: {endpoint!r} is no address; it begins with https://")
    return f"{endpoint.rstrip('/')}/{owner}/{repo}/resolve/main/{quote(path)}"


def download(address: str, sha256: str, target: Path, key: str) -> None:
    """Stream a file to a temporary name, renamed when its sum is right. Raises ConfigError naming both sums, or what the network says."""
    with written_whole(target) as temporary:
        summed = hashlib.sha256()
        try:
            with urllib.request.urlopen(address, timeout=60) as stream, open(temporary, "wb") as out:  # noqa: S310
                total = int(stream.headers.get("Content-Length") or 0)
                progress = Progress(f"download {target.name}", -(-total // CHUNK), unit="MiB")
                while chunk := stream.read(CHUNK):
                    out.write(chunk)
                    summed.update(chunk)
                    progress.advance()
                progress.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            if getattr(error, "filename", None) == str(temporary):  # our disk, not their server
                raise
            raise ConfigError(
                f"{key}: {address} cannot be downloaded ({error}); put a copy somewhere and give its path"
            ) from None
        if summed.hexdigest() != sha256:
            raise ConfigError(f"{key}: {address} has sha256 {summed.hexdigest()}, {sha256} expected; nothing was kept")


def fetch(weights: WeightsConfig, key: str) -> Path:
    """The file behind weights, here and with the right sum. Raises ConfigError; never changes or removes a file that was given."""
    if weights.sha256 is None and (problem := sum_needed(weights.file)):
        raise ConfigError(f"{key}: {problem}")
    if not weights.file.startswith(HUB):
        return check_file(weights.file, weights.sha256, key)
    target = cache_folder() / f"{weights.sha256[:16]}-{weights.file.rsplit('/', 1)[1]}"
    if not target.is_file():
        download(hub_address(weights.file), weights.sha256, target, key)
        return target
    try:
        return check_file(str(target), weights.sha256, key)
    except ConfigError as error:
        raise ConfigError(f"{error}; this copy in the cache is damaged: remove it, and it is downloaded again") from None


def read_weights(run: Run, key: str, weights: WeightsConfig, readers: ModuleType, wanted: BaseModel) -> nn.Module:
    """A module from a file, which lies where the run's job says now, by the function `read_<ending>(path, wanted)` of the module that
    knows its kind. Raises ConfigError, one line that names the file and what does not fit."""
    weights = weights.model_copy(update={"file": run.files.get(key, weights.file)})
    path = fetch(weights, key)
    try:
        return find(readers, "read", weights.file.rsplit(".", 1)[1])(path, wanted)
    except ValueError as error:
        text = " ".join(str(error).split())
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from None
