"""What a compiler that was killed leaves behind."""

import os
import time
from pathlib import Path

import pytest
import torch

from srdd.compiling import LINKED, check_compiler

WHOLE = next(Path(torch.__file__).parent.glob("_C.*.so")).read_bytes()
LEFT = {
    "empty.so": b"",
    "header.so": WHOLE[:40],
    "cut.so": WHOLE[: len(WHOLE) // 2],
    "zeros.so": bytes(200),
}
STAY = {"whole.so": WHOLE, "other.so": b"another system".ljust(80), "text.cpp": b""}


@pytest.mark.skipif(" " in torch.__file__, reason="nothing is compiled below such a folder")
def test_half_a_library_is_removed(tmp_path, monkeypatch):
    """Catches a killed training whose compiler left half a library: torch found it in its cache at
    every later run, and failed. One that may be written just now stays."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    folder, before = tmp_path / "ab", time.time() - 2 * LINKED
    folder.mkdir()
    for name, content in {**LEFT, **STAY}.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (before, before))
    (folder / "written.so").write_bytes(b"")
    check_compiler(torch.device("cpu"))
    assert {path.name for path in folder.iterdir()} == {*STAY, "written.so"}
