"""Whether compiled code can work here, for VAR and all others: that of torch.compile, whose C++
compiler is given paths that a space tears apart and leaves half a library when it is killed, and
the kernels of `kernels.py`."""

from __future__ import annotations

import importlib.util
import time
import warnings
from functools import cache
from pathlib import Path

import torch

from .config import ModelConfig
from .memory import is_out_of_memory

# a row of logits lies in the registers of one block of threads
MOST_CODES = 16384


@cache
def kernels_work() -> bool:
    """Whether Triton (MAPL 2019) is there and can compile a kernel, which takes a C compiler and
    the headers of Python; where it cannot, that is said once, and plain code does the same."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from .kernels import kept_mass

        kept_mass(torch.zeros(1, 1, 2, device="cuda"), 1.0, 2, 1.0)
    except Exception as error:  # of Triton, of a compiler, of a driver
        if is_out_of_memory(error):
            raise  # it says nothing of Triton, and is no answer to keep
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        warnings.warn(f"Triton cannot compile here ({reason}); slower code is used", stacklevel=2)
        return False
    return True


def can_fuse(*tensors: torch.Tensor) -> bool:
    """Whether the kernels of `kernels.py` (AdaLN of DiT, arXiv 2212.09748; nucleus, 1904.09751) can
    take these: on a GPU with Triton, in float32 or a half precision, and no gradient is asked."""
    known = (torch.float32, torch.bfloat16, torch.float16)
    fit = all(x.is_cuda and x.dtype in known for x in tensors)
    return fit and not torch.is_grad_enabled() and kernels_work()


def kernels_know(model: ModelConfig) -> bool:
    """Whether the fast path of a GPU (`FusedStep`, recorded samples) was made for such a model
    (VAR, arXiv 2404.02905); a history vector, a window or degraded images go the plain way, to the
    same numbers."""
    plain = model.history_vector == 0 and model.window is None
    return plain and model.condition == "none"


def check_compiler(device: torch.device) -> None:
    """Refuse to compile for a CPU where torch lies below a folder whose name holds a space (PyTorch
    2, ASPLOS 2024).

    Raises ValueError, one line with the folder and what to do.
    """
    place = Path(torch.__file__).resolve().parent
    if device.type == "cpu" and any(letter.isspace() for letter in str(place)):
        raise ValueError(
            f"compile: torch's compiler cannot work from {str(place)!r}, whose name holds a space; "
            "set compile to false, or move the project's environment"
        )
    if device.type == "cpu":
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        remove_torn(Path(cache_dir()))


LINKED = 10  # seconds; a linker writes a library in less


def remove_torn(folder: Path) -> None:
    """Remove libraries that a compiler which was killed left unfinished: torch.compile (PyTorch 2,
    ASPLOS 2024) would find them there at every later run, and fail."""
    for library in folder.rglob("*.so"):
        try:
            idle = time.time() - library.stat().st_mtime > LINKED
            if idle and not _is_whole(library):
                library.unlink()
        except OSError:  # gone, or another user's
            continue


def _is_whole(library: Path) -> bool:
    """Whether a library goes on to the end of its table of sections, which ELF has last."""
    with library.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or not any(header):
        return False
    if header[:6] != b"\x7fELF\x02\x01":  # of another kind of system
        return True
    pieces = header[40:48], header[58:60], header[60:62]
    begin, size, count = (int.from_bytes(piece, "little") for piece in pieces)
    return library.stat().st_size >= begin + size * count
