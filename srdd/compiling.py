"""Whether compiled code can work here, for VAR and all others: that of torch.compile, whose C++
compiler is given paths that a space tears apart, and the kernels of `kernels.py`."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

import torch

# a row of logits lies in the registers of one block of threads
MOST_CODES = 16384


@cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def can_fuse(*tensors: torch.Tensor) -> bool:
    """Whether the kernels of `kernels.py` (AdaLN of DiT, arXiv 2212.09748; nucleus, 1904.09751) can
    take these: on a GPU with Triton, in float32 or a half precision, and no gradient is asked."""
    known = (torch.float32, torch.bfloat16, torch.float16)
    fit = all(x.is_cuda and x.dtype in known for x in tensors)
    return fit and _has_triton() and not torch.is_grad_enabled()


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
