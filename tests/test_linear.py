"""Products by either library of a CPU: values, gradients, and who multiplies what."""

import pytest
import torch
import torch.nn.functional as F

import srdd.linear
from bench.pipeline import compiled
from bench.pipeline.compiled import SAMPLED_IMAGES, sampling_compiles, training_compiles
from bench.runtime.provenance import host_class
from bench.study.settings import TrainingConfig
from srdd import processor
from srdd.attention import TOGETHER, attend_by_scale
from srdd.linear import FEWEST, Linear, linear, linear_gelu, outer, product
from srdd.masks import scale_mask
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

ONEDNN = pytest.mark.skipif(
    not srdd.linear._works(), reason="this torch has no oneDNN for products"
)


def drawn(*shape, name="linear"):
    return torch.randn(shape, generator=generator(name, *shape))


@ONEDNN
@pytest.mark.parametrize("rows", [1, 7, 600])
@pytest.mark.parametrize(("D", "E"), [(96, 40), (40, 96), (64, 64)])
def test_products_are_exact_to_rounding(rows, D, E):
    """Catches a transposed weight, a forgotten bias, and another GELU."""
    x, weight, bias, grad = drawn(rows, D), drawn(E, D), drawn(E), drawn(rows, E)
    exact = F.linear(x.double(), weight.double(), bias.double())
    torch.testing.assert_close(product(x, weight, bias).double(), exact, rtol=1e-4, atol=1e-4)
    curved = F.gelu(exact, approximate="tanh")
    torch.testing.assert_close(
        product(x, weight, bias, gelu=True).double(), curved, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(
        outer(grad, x).double(), grad.double().T @ x.double(), rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("biased", [True, False])
def test_gradients_are_those_of_torch(biased, library):
    """Catches a gradient that is turned over or left out, by a layer large enough for oneDNN."""
    layer, x = Linear(128, 256, bias=biased), drawn(4, 40, 128).requires_grad_()
    assert x.numel() * 256 >= FEWEST
    up = drawn(4, 40, 256)
    ours = torch.autograd.grad(layer(x), [x, *layer.parameters()], up)
    exact_x, exact_layer = x.detach().double().requires_grad_(), layer.double()
    given = exact_layer.weight, exact_layer.bias
    out = F.linear(exact_x, *given)
    exact = torch.autograd.grad(out, [exact_x, *exact_layer.parameters()], up.double())
    for mine, its in zip(ours, exact, strict=True):
        torch.testing.assert_close(mine.double(), its, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("vendor_id\t: GenuineIntel\nmodel name: x\n", "Intel"),
        ("vendor_id\t: AuthenticAMD\n", "AMD"),
        ("processor: 0\nFeatures: neon\n", None),
    ],
)
def test_the_maker_decides_who_multiplies(tmp_path, monkeypatch, said, name):
    """Catches the slower library on a processor of MKL's maker, and on all others."""
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    for on_linux in (True, False):
        if on_linux:
            processor.CPUINFO.write_text(said)
        else:
            processor.CPUINFO.unlink()
            monkeypatch.setattr(processor.platform, "processor", lambda: said)
        processor.maker.cache_clear()
        assert processor.maker() == name
        assert srdd.linear._mkl_is_at_home() == (name == "Intel")
        assert f" of {name}, " in host_class() if name else " of " not in host_class()
    processor.maker.cache_clear()
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not srdd.linear._mkl_is_at_home()


def test_other_tensors_go_the_old_way(library):
    """Catches float64, half precision, a meta tensor and a small layer that oneDNN would refuse or
    round."""
    for dtype in (torch.float64, torch.bfloat16):
        x, weight = drawn(200, 128).to(dtype), drawn(64, 128).to(dtype)
        assert torch.equal(linear(x, weight), F.linear(x, weight))
    assert linear(torch.empty(200, 128, device="meta"), torch.empty(64, 128, device="meta")).is_meta
    small, weight = drawn(3, 8), drawn(5, 8)
    assert torch.equal(linear(small, weight), F.linear(small, weight))
    assert linear(drawn(0, 128), drawn(64, 128)).shape == (0, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(drawn(200, 128), drawn(64, 128)).dtype == torch.bfloat16


def test_gelu_is_one_with_and_without_gradients(library):
    """Catches a sampler that computes another network than the trainer."""
    x, weight, bias = drawn(64, 128), drawn(256, 128), drawn(256)
    with torch.no_grad():
        fused = linear_gelu(x, weight, bias)
    torch.testing.assert_close(fused, linear_gelu(x, weight, bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("history", [None, 0, 1, 2])
@pytest.mark.parametrize(
    "sides", [(1,), (1, 2, 3), (1, 2, 3, 4, 6), (4, 4, 4, 4, 4, 4), (1, 9), (1, 1, 1, 8)]
)
def test_scales_together_see_what_the_mask_says(sides, history):
    """Catches scales of few tokens, taken together, that see too much or too little."""
    schedule = ScaleSchedule(sides)
    assert schedule.seq_len > TOGETHER or len(sides) < 5
    shape = 2, 3, schedule.seq_len, 8
    q, k, v = (drawn(*shape, name=name).requires_grad_() for name in "qkv")
    up = drawn(*shape)
    found = attend_by_scale(q, k, v, schedule, history, 0.5)
    mask_LL = scale_mask(schedule, history)
    dense = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_LL, scale=0.5)
    torch.testing.assert_close(found, dense, rtol=1e-5, atol=1e-5)
    ours, plain = (torch.autograd.grad(out, (q, k, v), up) for out in (found, dense))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_auto_compiles_large_work_on_a_gpu_alone(monkeypatch):
    """Catches an `auto` that compiles a look at digits, or nothing at all, or that ends a training
    where there is no compiler."""
    monkeypatch.setattr(compiled, "kernels_work", lambda: True)
    cuda, cpu, schedule = torch.device("cuda"), torch.device("cpu"), ScaleSchedule((1, 2, 16))
    layer = torch.nn.Linear(1000, 1000)
    long = TrainingConfig(steps=10**6, batch_size=256)
    assert training_compiles(long, layer, schedule, cuda)
    assert not training_compiles(long, layer, schedule, cpu)
    with monkeypatch.context() as without:
        without.setattr(compiled, "kernels_work", lambda: False)
        assert not training_compiles(long, layer, schedule, cuda)
    assert not training_compiles(TrainingConfig(steps=100), layer, schedule, cuda)
    asked = TrainingConfig(steps=100, compile=True)
    assert training_compiles(asked, layer, schedule, cpu)
    assert sampling_compiles("auto", SAMPLED_IMAGES, cuda)
    assert not sampling_compiles("auto", SAMPLED_IMAGES, cpu)
    assert not sampling_compiles("auto", 100, cuda)
    assert not sampling_compiles(False, SAMPLED_IMAGES, cuda)
