"""Tensors and modules as safetensors files with the config inside, written whole or not at all.

Apart from checkpoint.py, which imports the model: features and tokens are files too, and whoever
reads them alone must not be made again when the model's code changes.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

METADATA = "srdd"
Config = TypeVar("Config", bound=BaseModel)
Module = TypeVar("Module", bound=nn.Module)


def save_tensors(path: str | Path, tensors: dict[str, torch.Tensor], **metadata: Any) -> None:
    """Write named tensors and JSON metadata (safetensors format) to a temporary name, then rename:
    never half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    # one entry: safetensors writes several in an order that differs from run to run
    text = {METADATA: json.dumps(metadata, sort_keys=True)}
    try:
        temporary.touch()
        rights = temporary.stat().st_mode  # of a new file: safetensors lets its owner alone read it
        save_file(_apart(tensors), temporary, text)
        os.chmod(temporary, rights)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:  # how a full disk shows
        raise OSError(f"{path}: cannot be written ({error})") from None
    finally:
        temporary.unlink(missing_ok=True)


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each tensor in memory of its own, which safetensors asks for: a weight that two layers of a
    user's own share is written twice. Raises ValueError for what is no tensor."""
    apart, places = {}, set()
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}, no tensor; files hold no more")
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in places else tensor
        places.add(place)
    return apart


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read named tensors and their metadata (safetensors format). Raises FileNotFoundError,
    PermissionError, or ValueError for a damaged file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    path.open("rb").close()  # safetensors says of a file that it may not read that there is none
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, metadata
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: damaged or truncated checkpoint ({error}); remove it and make it again"
        ) from None


def load_metadata(path: str | Path) -> dict[str, Any]:
    """The JSON metadata of a file that `load_tensors` can read (safetensors format)."""
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = json.loads((file.metadata() or {}).get(METADATA, "{}"))
        return metadata


def load_foreign(path: str | Path) -> dict[str, torch.Tensor]:
    """Named tensors of a file of torch.save, such as the official VAR weights: tensors alone,
    objects are refused; mapped where the format allows. Raises FileNotFoundError, or ValueError in
    one line for anything else than a flat dict of tensors."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file shows as almost anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: {_not_tensors(path)} ({reason[:200]})") from None
    if not isinstance(state, dict):
        raise ValueError(f"{path}: holds a {type(state).__name__}, not named tensors")
    for name, value in state.items():
        if not (isinstance(name, str) and isinstance(value, torch.Tensor)):
            raise ValueError(
                f"{path}: {name!r} is a {type(value).__name__}, no tensor; a flat dict of "
                "tensors is read"
            )
    return state


def _not_tensors(path: Path) -> str:
    try:
        with safe_open(path, framework="pt"):
            return "holds safetensors, and its name says .pth"
    except SafetensorError:
        return (
            "not readable as tensors alone: it is damaged, or holds objects, which are never loaded"
        )


def check_config(path: str | Path, saved: dict[str, Any], wanted: BaseModel) -> None:
    """Compare the config inside a checkpoint with the one asked for. Raises ValueError naming file,
    key and both values.

    A setting that a file does not know, written before there was one, is at its default there.
    """
    expected = json.loads(wanted.model_dump_json())
    fields = type(wanted).model_fields.items()
    usual = {key: field.default for key, field in fields if not field.is_required()}
    at_default = wanted.model_copy(update=usual).model_dump_json(include=set(usual))
    saved = {**json.loads(at_default), **saved}
    for key in sorted(expected.keys() | saved.keys()):
        if expected.get(key) != saved.get(key):
            raise ValueError(
                f"{path}: checkpoint of another config: {key} is {saved.get(key)!r} in the file, "
                f"{expected.get(key)!r} asked for"
            )


def save_module(
    path: str | Path, module: nn.Module, config: BaseModel, kind: str, extra: dict[str, Any]
) -> None:
    """Write a module with its config and a kind that its reader checks (safetensors)."""
    settings = json.loads(config.model_dump_json())
    save_tensors(path, module.state_dict(), kind=kind, config=settings, **extra)


def load_module(
    path: str | Path, kind: str, schema: type[Config], expect: Config | None
) -> tuple[Config, dict[str, torch.Tensor]]:
    """Config and tensors of a file of this kind. Raises ValueError for another kind, or another
    config than `expect`."""
    tensors, metadata = load_tensors(path)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("config", {}), dict):
        raise ValueError(f"{path}: holds no settings of a {kind}; make it again")
    if metadata.get("kind") != kind:
        raise ValueError(
            f"{path}: holds {metadata.get('kind', 'something without a kind')!r}, not a {kind}"
        )
    saved = metadata.get("config", {})
    if expect is not None:
        check_config(path, saved, expect)
    try:
        return schema.model_validate_json(json.dumps(saved)), tensors
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, ("config", *first["loc"])))
        raise ValueError(f"{path}: {where}: {first['msg']}") from None


def refuse_misfits(what: str, problems: list[str]) -> None:
    """Raises ValueError with the first three reasons why weights do not fit, and how many more
    there are; silent without any."""
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{what} do not fit: {'; '.join(problems[:3])}{more}")


def fill(module: Module, tensors: dict[str, torch.Tensor], path: str | Path) -> Module:
    """Put tensors into a module. Raises ValueError naming missing, unknown and misshapen ones."""
    wanted = module.state_dict()
    problems = [f"missing {name}" for name in wanted.keys() - tensors.keys()]
    problems += [f"unknown {name}" for name in tensors.keys() - wanted.keys()]
    problems += [
        f"{name} has shape {list(tensors[name].shape)}, not {list(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if wanted[name].shape != tensors[name].shape
    ]
    refuse_misfits(f"{path}: weights", sorted(problems))
    # a layer of one's own may count, as BatchNorm does its batches
    kinds = [
        f"{name} holds {tensors[name].dtype}"
        for name in wanted
        if tensors[name].is_floating_point() != wanted[name].is_floating_point()
    ]
    refuse_misfits(f"{path}: weights", sorted(kinds))
    if unsound := sorted(name for name in wanted if not tensors[name].isfinite().all()):
        raise ValueError(
            f"{path}: {unsound[0]} holds NaN or inf, as do {len(unsound)} of {len(wanted)} "
            "tensors; "
            "remove it and make it again"
        )
    module.load_state_dict(tensors)
    return module
