"""Linear layers, with products by the library that is faster on a CPU.

torch multiplies matrices by MKL, which keeps its widest vector instructions to processors of its
own maker, Intel, and is the faster one there. oneDNN, which torch calls for convolutions, uses them
on all. The maker decides and no measurement, so that a job that goes on rounds as it began.

N rows, D width of what is read, E width of what is made
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from .processor import maker

# multiplications: below that, calling oneDNN costs more than it saves
FEWEST = 2**20


def _works() -> bool:
    """Whether this torch offers oneDNN's product, which is no part of its public interface."""
    x_11 = torch.ones(1, 1)
    try:
        return bool(torch.ops.mkldnn._linear_pointwise(x_11, x_11, None, "none", [], "") == 1)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _mkl_is_at_home() -> bool:
    """Whether torch's own library multiplies on a processor of its maker."""
    return torch.backends.mkl.is_available() and maker() == "Intel"


_ONEDNN = _works() and not _mkl_is_at_home()


def by_onednn(*tensors: torch.Tensor) -> bool:
    """Whether oneDNN takes these: float32, as they are, on a CPU where it is the faster library."""
    fit = all(x.device.type == "cpu" and x.dtype == torch.float32 for x in tensors)
    as_they_are = not torch.is_autocast_enabled("cpu")
    return _ONEDNN and fit and as_they_are


def in_full(tensor: torch.Tensor) -> AbstractContextManager[Any]:
    """Products as exact as their tensors, whatever autocast asks of the network of VAR (arXiv
    2404.02905) around them."""
    kind = tensor.device.type
    lowered = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return torch.autocast(kind, enabled=False) if lowered else nullcontext()


def _pays(x_ND: torch.Tensor, weight_ED: torch.Tensor) -> bool:
    return x_ND.numel() * len(weight_ED) >= FEWEST and by_onednn(x_ND, weight_ED)


def _product(
    x_ND: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor | None, gelu: bool
) -> torch.Tensor:
    name, algorithm = ("gelu", "tanh") if gelu else ("none", "")
    y_NE: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
        x_ND, weight_ED, bias_E, name, [], algorithm
    )
    return y_NE


# as one operation that torch.compile does not look into, where it would choose another library
_compiled_product = torch.library.custom_op("srdd::product", _product, mutates_args=())
_compiled_product.register_fake(
    lambda x_ND, weight_ED, bias_E, gelu: x_ND.new_empty(len(x_ND), len(weight_ED))
)


def product(
    x_ND: torch.Tensor,
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor | None = None,
    gelu: bool = False,
) -> torch.Tensor:
    """x W^T + b by oneDNN, which `by_onednn` says can take them; the GELU of it (arXiv 1606.08415,
    by tanh) if asked. No gradient is known of it."""
    multiply = _compiled_product if torch.compiler.is_compiling() else _product
    y_NE: torch.Tensor = multiply(x_ND, weight_ED, bias_E, gelu)
    return y_NE


def outer(grad_NE: torch.Tensor, x_ND: torch.Tensor) -> torch.Tensor:
    """Sum over rows of the outer products, (E, D), by oneDNN: what a weight's gradient is."""
    # faster where the shorter side is that of the rows
    if grad_NE.shape[1] <= x_ND.shape[1]:
        return product(grad_NE.T, x_ND.T)
    return product(x_ND.T, grad_NE.T).T


class _Linear(torch.autograd.Function):
    """`product` with its gradients, of which all three are products or sums too."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor | None
    ) -> torch.Tensor:
        """x W^T + b, (N, E) (VAR, arXiv 2404.02905, section 3.3)."""
        ctx.save_for_backward(x_ND, weight_ED)
        return product(x_ND, weight_ED, bias_E)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NE: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """The gradients of x_ND, weight_ED and bias_E (VAR, arXiv 2404.02905, section 3.3); None
        where none is asked for."""
        x_ND, weight_ED = ctx.saved_tensors
        x_asked, weight_asked, bias_asked = ctx.needs_input_grad
        return (
            product(grad_NE, weight_ED.T) if x_asked else None,
            outer(grad_NE, x_ND) if weight_asked else None,
            grad_NE.sum(0) if bias_asked else None,
        )


def linear(
    x: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor | None = None
) -> torch.Tensor:
    """x W^T + b over the last dimension (VAR, arXiv 2404.02905, section 3.3: every layer but
    attention). Same numbers up to rounding, whichever library multiplies."""
    if not _pays(x, weight_ED):
        return F.linear(x, weight_ED, bias_E)
    given = x.flatten(0, -2), weight_ED, bias_E
    y_NE: torch.Tensor = _Linear.apply(*given)  # type: ignore[no-untyped-call]
    y: torch.Tensor = y_NE.unflatten(0, x.shape[:-1])
    return y


def linear_gelu(x: torch.Tensor, weight_ED: torch.Tensor, bias_E: torch.Tensor) -> torch.Tensor:
    """GELU of x W^T + b (arXiv 1606.08415, by tanh), in one go where no gradient is asked."""
    if torch.is_grad_enabled() or not _pays(x, weight_ED):
        return F.gelu(linear(x, weight_ED, bias_E), approximate="tanh")
    y_NE = product(x.flatten(0, -2), weight_ED, bias_E, gelu=True)
    y: torch.Tensor = y_NE.unflatten(0, x.shape[:-1])
    return y


class Linear(nn.Linear):
    """torch's linear layer, weights and all, whose product `linear` computes (VAR, section 3.3)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., D) to (..., E)."""
        return linear(x, self.weight, self.bias)
