"""Memory that is full while VAR (arXiv 2404.02905) trains or draws: how such errors are known."""

from __future__ import annotations

import torch

# torch on a CPU, a call of CUDA such as the end of a recording, of its driver such as the load of a
# kernel that Inductor compiled, cuBLAS, a kernel that Triton loads, cuDNN, which names host or
# device, or none of whose ways to convolve finds the memory that it works in, and NCCL
WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "STATUS_ALLOC_FAILED",
    "Triton Error [CUDA]: out of memory",
    "_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",
    "'out of memory'",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is full, in one of the words that torch (PyTorch 2, ASPLOS
    2024) has for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)
