"""The Triton kernels against plain code: on a GPU, or without one through Triton's interpreter."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import srdd.draw
import srdd.fused
from srdd.config import ModelConfig
from srdd.draw import TokenDistribution, distribution
from srdd.fused import FusedStep
from srdd.model import ScaleTransformer
from srdd.noise import generator


def products_with_gelu(bias_E, x_ND, weight_DE, use_gelu):
    return F.gelu(torch.addmm(bias_E, x_ND, weight_DE), approximate="tanh" if use_gelu else "none")


@pytest.fixture(scope="module")
def device():
    """Where the kernels run; conftest.py asks for the interpreter before torch imports Triton."""
    if torch.cuda.is_available():
        yield torch.device("cuda")
        return
    if importlib.util.find_spec("triton") is None:
        pytest.skip("no GPU, and no Triton to interpret its kernels")
    with pytest.MonkeyPatch.context() as patch:
        for module in (srdd.draw, srdd.fused):
            patch.setattr(module, "can_fuse", lambda *_: not torch.is_grad_enabled())
        # torch's own, which takes GELU by its tanh on a GPU alone
        patch.setattr(torch, "_addmm_activation", products_with_gelu)
        yield torch.device("cpu")


@pytest.mark.parametrize("width", [48, 1024, 1920])
@pytest.mark.parametrize("half", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", [1, 4])
def test_norm_after_a_sum_is_that_of_plain_code(device, width, half, parts):
    """Catches a row that reads another image's modulation, a part that is left out, and sums in
    half precision."""
    from srdd.kernels import add_norm

    x, bias = torch.randn(3, 7, width, device=device), torch.randn(width, device=device).to(half)
    h = torch.randn(parts, 21, width, device=device).to(half)
    six = (0.3 * torch.randn(3, 6, width, device=device)).to(half).unsqueeze(2).unbind(1)
    gate, gain, shift = (part.double() for part in six[:3])
    before = x.double()
    out = add_norm(x, (h, bias, six[0]), six[1], six[2], half)
    summed = before + (h.double().sum(0) + bias.double()).view(3, 7, width) * gate
    wanted = F.layer_norm(summed, (width,), eps=1e-6) * (1 + gain) + shift
    torch.testing.assert_close(x.double(), summed, rtol=1e-5, atol=1e-5)
    tolerance = 1e-4 if half == torch.float32 else 2**-6
    torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("rows", [1, 2, 17, 72, 128, 300])
@pytest.mark.parametrize("sizes", [(1024, 1024), (4096, 40), (2048, 96), (1000, 64)])
def test_a_product_in_parts_is_the_product(device, rows, sizes):
    """Catches a stretch of inputs that no part sums, and rows that are read beyond the last."""
    from srdd.kernels import product

    inputs, outputs = sizes
    # the interpreter multiplies the bits of bfloat16 as if they were whole numbers
    half = torch.bfloat16 if device.type == "cuda" else torch.float16
    x = torch.randn(rows, inputs, device=device, dtype=half)
    weight = torch.randn(outputs, inputs, device=device, dtype=half)
    ours, wanted = product(x, weight).double().sum(0), x.double() @ weight.double().T
    assert (ours - wanted).norm() / wanted.norm() < 5e-3


# the sizes of d16, compiled for a GPU that need not be there: KiB of shared memory
COMPILES = """
import sys
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from srdd.kernels import INPUTS, OUTPUTS, _product_kernel, stages_that_fit

arch, most, rows = map(int, sys.argv[1:])
types = dict(x_ptr="*bf16", weight_ptr="*bf16", out_ptr="*fp32", rows="i32", outputs="i32")
signature = {**types, "inputs": "i32"} | dict.fromkeys(_product_kernel.arg_names[6:], "constexpr")
sizes = dict(SHARE=1024, ROWS=rows, OUTPUTS=OUTPUTS, INPUTS=INPUTS)
# as they are where weights lie: addresses and widths are multiples of 16
aligned = {(place,): [["tt.divisibility", 16]] for place in (0, 1, 2, 4, 5)}
source = ASTSource(_product_kernel, signature, sizes, aligned)
options = dict(num_warps=4, num_stages=stages_that_fit(rows, 1024 * most))
print(compile(source, target=GPUTarget("cuda", arch, 32), options=options).metadata.shared / 1024)
"""


@pytest.mark.parametrize("arch, most", [(80, 163), (86, 99), (90, 227), (120, 99)])
@pytest.mark.parametrize("rows", [64, 128])
def test_a_product_in_parts_fits_into_shared_memory(arch, most, rows):
    """Catches a kernel that GPUs with less shared memory than those of data centres refuse."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("no Triton")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILES, str(arch), str(most), str(rows)],
        cwd=Path(__file__).parent.parent, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= most


@pytest.mark.parametrize("temperature, top_k, top_p", [
    (1.0, None, 1.0), (0.7, None, 0.9), (1.3, 900, 0.96), (1.0, 1, 1.0), (1.0, 10, 1.0),
    (1.0, 5, 1e-9),
])  # fmt: skip
@pytest.mark.parametrize("V", [37, 4096])
def test_masses_and_draws_are_those_of_plain_code(device, V, temperature, top_k, top_p):
    """Catches another code at the edge of top-k or the nucleus, ties that are torn apart, and a
    draw that lands one code further."""
    length = 41 if device.type == "cuda" else 3  # row by row the interpreter is slow
    logits_BlV = 3 * torch.randn(5, length, V, generator=generator("logits", V))
    logits_BlV[0] = logits_BlV[0].round()
    uniform_Bl = torch.rand(5, length, dtype=torch.float64, generator=generator("uniform"))
    uniform_Bl[0, :2] = torch.tensor([0.0, 1 - 2.0**-53])
    plain = distribution(logits_BlV, temperature, top_k, top_p)
    with torch.no_grad():
        ours = distribution(logits_BlV.to(device), temperature, top_k, top_p)
        tokens_Bl, chance_Bl = ours.draw(uniform_Bl.to(device))
    mass_BlV = ours.mass_BlV.cpu()
    differ = ((mass_BlV > 0) != (plain.mass_BlV > 0)).any(-1).double().mean()
    assert differ <= 0.01  # a mass at the very edge may round to its other side
    same = (mass_BlV > 0) == (plain.mass_BlV > 0)
    torch.testing.assert_close(mass_BlV[same], plain.mass_BlV[same], rtol=1e-5, atol=1e-7)
    # drawn from the same masses
    again_Bl, wanted_Bl = TokenDistribution(mass_BlV).draw(uniform_Bl)
    assert (tokens_Bl.cpu() == again_Bl).double().mean() >= 0.99
    equal = tokens_Bl.cpu() == again_Bl
    torch.testing.assert_close(chance_Bl.cpu()[equal], wanted_Bl[equal], rtol=1e-5, atol=1e-9)
    assert (mass_BlV.gather(-1, tokens_Bl.cpu()[..., None]) > 0).all()


@pytest.mark.parametrize("batch", [1, 2])
def test_logits_may_lie_in_any_order(device, batch):
    """Catches a kernel that reads the logits of one image, which lie transposed, as those of other
    codes."""
    logits_BlV = torch.randn(batch, 64, 9, generator=generator("strides")).to(device)
    logits_BlV = logits_BlV.transpose(1, 2)
    for logits in (logits_BlV, logits_BlV.repeat(1, 1, 2)[..., ::2]):
        with torch.no_grad():
            mass = distribution(logits, 1.0, 10, 0.9).mass_BlV
            again = distribution(logits.contiguous(), 1.0, 10, 0.9).mass_BlV
        assert torch.equal(mass, again)


def test_logits_that_are_no_numbers_give_no_probability(device):
    """Catches a kernel that hides NaN, which only the probability would show."""
    logits_BlV = torch.randn(1, 3, 64, device=device)
    logits_BlV[0, 0, 5], logits_BlV[0, 1] = math.nan, -math.inf
    with torch.no_grad():
        tokens_Bl, chance_Bl = distribution(logits_BlV, 1.0, 10, 0.9).draw(
            torch.rand(1, 3, dtype=torch.float64, device=device)
        )
    assert chance_Bl.isnan().tolist() == [[True, True, False]]
    assert ((tokens_Bl >= 0) & (tokens_Bl < 64)).all()


def network(device, noise=0.2, **changes):
    """A small network none of whose weights is 0."""
    sizes = dict(
        patch_nums=(1, 2, 3), codebook_size=16, codebook_dim=4, num_classes=3, depth=2, width=48,
        heads=3,
    )  # fmt: skip
    model = ScaleTransformer(ModelConfig(**{**sizes, **changes}))
    model.init_weights(generator("kernels"))
    source = generator("kernels", "more")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(noise * torch.randn(weight.shape, generator=source))
    return model.to(device).eval()


def scale_by_scale(model, step):
    """What a step makes of each scale of two images, from the same inputs."""
    model.step = step
    denoise, like = model.denoiser(), model.position
    labels_B = torch.tensor([0, 2], device=like.device)
    with torch.no_grad():
        return [
            denoise(torch.randn(2, n, 4, generator=generator("in", k)).to(like), k, labels_B)
            for k, n in enumerate(model.schedule.lengths)
        ]


STEPS = pytest.mark.parametrize("changes", [
    {"history": None}, {"history": 0}, {"history": 1}, {"history": 0, "shared_adaln": True},
    {"history": None, "qk_norm": False},
], ids=str)  # fmt: skip


@STEPS
def test_a_step_by_kernels_is_the_plain_one(device, changes):
    """Catches keys written to another scale's place in the cache, a gate or a bias of the wrong
    half of a block, and the norm of queries where there is none."""
    model = network(device, **changes)
    plain, ours = scale_by_scale(model, model.step), scale_by_scale(model, FusedStep(model))
    for of_plain, of_ours in zip(plain, ours):
        torch.testing.assert_close(of_ours, of_plain, rtol=1e-4, atol=1e-4)


@pytest.fixture
def fewer_kernels(device, monkeypatch):
    """Those that tests/gpu holds against the library's."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "gpu"))
    from candidates import fewer_kernels

    return fewer_kernels


@STEPS
@pytest.mark.parametrize("half", [torch.float32, torch.float16])
def test_a_step_by_fewer_kernels_is_the_plain_one(device, fewer_kernels, changes, half):
    """Catches scales of more tokens than a block of threads takes whose keys are kept twice or not,
    and a GELU before its bias."""
    model = network(device, patch_nums=(1, 2, 5, 9), **changes).to(half)
    plain = scale_by_scale(model, model.step)
    with fewer_kernels():
        ours = scale_by_scale(model, FusedStep(model))
    for of_plain, of_ours in zip(plain, ours):
        away = (of_ours.float() - of_plain.float()).abs().max() / of_plain.abs().max()
        assert away < (1e-5 if half == torch.float32 else 5e-3)


def test_fewer_kernels_sum_products_in_parts(device, fewer_kernels):
    """Catches a part that attention leaves out, where rows are few and the network is wide."""
    sizes = {"depth": 1, "width": 1024, "heads": 4, "patch_nums": (1, 2)}
    model = network(device, noise=0.02, **sizes).to(torch.float16)
    plain = scale_by_scale(model, model.step)
    with fewer_kernels():
        ours = scale_by_scale(model, FusedStep(model))
    for of_plain, of_ours in zip(plain, ours):
        away = (of_ours.float() - of_plain.float()).abs().max() / of_plain.abs().max()
        assert away < 5e-3
