"""What only a GPU can show: recorded samples against plain code, half precision, real memory that
runs out, pinned copies, nccl, and a training that goes on. Kernels: tests/test_kernels.py.

Skipped where there is no GPU. `python tests/gpu/run.py` runs these and then measures.
"""

import gc
import json
import os
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from test_ranks import Bench, curve, finish

from bench.pipeline.sampling import draw_batch, made_ready, sample_into
from bench.pipeline.trainer import Trainer
from bench.runtime.progress import Progress
from bench.runtime.verb import Run
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.loss import linear_cross_entropy, next_scale_cross_entropy
from srdd.memory import is_out_of_memory
from srdd.model import ScaleTransformer
from srdd.noise import GivenNoise, ImageNoise, generator
from srdd.quantizer import Quantizer
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GPU = torch.device("cuda")
VAR = SamplerConfig(cfg_scale=2.5, cfg_ramp="linear", top_k=50, top_p=0.96)
SRDD = SamplerConfig(
    name="srdd", cfg_scale=1.5, refine_steps=2, sr_steps=1, select={"name": "random"}
)


@pytest.fixture(autouse=True)
def few_leftovers():
    """Catches nothing itself: memory of one test is not there for the next."""
    yield
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # each stream that recorded has one of 32 MiB
    torch.cuda.empty_cache()


def network(history=None, precision=torch.float32, **changes):
    """A small model that is not at its start, where all logits are alike, and its tokenizer."""
    sizes = dict(
        patch_nums=(1, 2, 3, 4, 8), codebook_size=128, codebook_dim=8, num_classes=10, depth=3,
        width=96, heads=3, history=history,
    )  # fmt: skip
    model = ScaleTransformer(ModelConfig(**{**sizes, **changes}))
    tokenizer = Tokenizer(
        TokenizerConfig(
            patch_nums=(1, 2, 3, 4, 8),
            image_size=16,
            in_channels=3,
            codebook_size=128,
            codebook_dim=8,
            channels=16,
            channel_multipliers=(1, 2),
            num_res_blocks=1,
            norm_groups=4,
        )  # fmt: skip
    )
    for module in (model, tokenizer):
        module.init_weights(generator("gpu"))
        module.eval()
    source = generator("gpu", "more")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=source))
        model.head.weight.mul_(4.0)
    return model.to(GPU, precision), tokenizer.to(GPU)


def drawn(model, tokenizer, sampler, seeds, **more):
    labels_B = torch.tensor([seed % 10 for seed in seeds], device=GPU)
    return generate(model, tokenizer.at(model.schedule), labels_B, seeds, sampler, **more)[0]


def agree(a_BL, b_BL, share):
    """Images whose tokens are all equal."""
    same = (a_BL == b_BL).all(1).double().mean().item()
    assert same >= share, f"only {same:.3f} of the images are equal"


# ---------------------------------------------------------------- recorded samples


@pytest.mark.parametrize("side", [1, 2, 3, 5, 13])
def test_codes_are_upsampled_as_on_a_cpu(side):
    """Catches a table of another grid, and one that is transposed."""
    ladder = Quantizer(16, 8).at(ScaleSchedule((1, 2, 3, 5, 13, 16)))
    ladder.quantizer.init_weights(generator("gpu"))
    codes, state = torch.randn(2, side * side, 8), torch.randn(2, 8, 16, 16)
    k = ladder.schedule.patch_nums.index(side)
    with torch.no_grad():
        plain = ladder.add_scale(state, codes, k)
        ladder.quantizer.to(GPU)
        ours = ladder.add_scale(state.to(GPU), codes.to(GPU), k).cpu()
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", [VAR, SamplerConfig(), SRDD], ids=["var", "plain", "srdd"])
@pytest.mark.parametrize("changes", [
    {"history": None}, {"history": 0}, {"history": 1}, {"history": 0, "shared_adaln": True},
    {"history": None, "qk_norm": False},
], ids=str)  # fmt: skip
def test_recorded_samples_are_the_plain_ones(sampler, changes):
    """Catches a record that keeps the labels, seeds or random numbers of its first batch."""
    model, tokenizer = network(**changes, mask_prob=0.5 if sampler is SRDD else 0.0)
    batches = [range(0, 8), range(8, 16), range(16, 24), range(24, 32)]
    plain = [drawn(model, tokenizer, sampler, seeds) for seeds in batches]
    model.compile_step()
    fast = [drawn(model, tokenizer, sampler, seeds) for seeds in batches]
    assert [type(value).__name__ for value in model.replays.values()] == ["Replay"]
    agree(torch.cat(plain), torch.cat(fast), 0.85)
    # the same record twice gives the same bits
    assert torch.equal(drawn(model, tokenizer, sampler, batches[1]), fast[1])
    assert not torch.equal(fast[1], fast[2])


def test_a_record_follows_its_weights():
    """Catches a record of weights that were trained on, or exchanged, in between."""
    model, tokenizer = network()
    model.compile_step()
    before = [drawn(model, tokenizer, VAR, range(8)) for _ in range(3)][-1]
    with torch.no_grad():
        model.head.weight.mul_(-1.0)
    after = drawn(model, tokenizer, VAR, range(8))
    model.head.weight = torch.nn.Parameter(model.head.weight.clone())
    model.free_compiled()
    assert not torch.equal(before, after)
    assert torch.equal(after, drawn(model, tokenizer, VAR, range(8)))


@pytest.mark.parametrize("sampler", [
    SamplerConfig(name="srdd", refine_steps=2, select={"name": "threshold"}),
    SamplerConfig(name="srdd", refine_steps=3, select={"name": "dynamic"}),
], ids=["threshold", "dynamic"])  # fmt: skip
def test_rules_that_look_are_never_recorded(sampler):
    """Catches a record of a rule whose passes depend on what it drew."""
    model, tokenizer = network(0, mask_prob=0.5)
    plain = drawn(model, tokenizer, sampler, range(16))
    model.compile_step()
    fast = [drawn(model, tokenizer, sampler, range(16)) for _ in range(3)]
    assert model.replays == {}
    agree(plain, fast[-1], 0.85)


@pytest.mark.parametrize("history", [None, 0])
def test_inductor_gives_the_plain_samples(history):
    """Catches a step that torch.compile changes, and its CUDA graphs one another's memory."""
    model, tokenizer = network(history, depth=1, width=32, heads=1)
    plain = drawn(model, tokenizer, VAR, range(8))
    model.compile_step(mode="reduce-overhead")
    for _ in range(2):
        agree(plain, drawn(model, tokenizer, VAR, range(8)), 0.85)


@pytest.mark.parametrize("history", [None, 0])
def test_images_hardly_depend_on_their_batch(history):
    """Catches numbers that depend on a place in a batch: what is left is rounding."""
    model, tokenizer = network(history)
    model.compile_step()
    whole = drawn(model, tokenizer, VAR, range(32))
    alone = torch.cat([drawn(model, tokenizer, VAR, [seed]) for seed in range(32)])
    parts = torch.cat([drawn(model, tokenizer, VAR, range(i, i + 16)) for i in (0, 16)])
    agree(whole, alone, 0.85)
    agree(whole, parts, 0.85)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("history", [None, 0])
@pytest.mark.parametrize("compiled", [False, True])
def test_half_precision_is_near_float32(history, compiled):
    """Catches a residual stream or a softmax in bfloat16: the distribution must hardly change."""
    model, _ = network(history)
    half = made_ready(network(history)[0], Namespace(precision="bfloat16", compile=compiled))
    labels_B = torch.arange(8, device=GPU)
    for k, length in enumerate(model.schedule.lengths):
        inputs_BlC = torch.randn(8, length, 8, device=GPU)
        if k == 0:
            exact, rough = model.denoiser(), half.denoiser()
        with torch.no_grad():
            a, b = (d(inputs_BlC, k, labels_B).double() for d in (exact, rough))
        divergence = F.kl_div(
            b.log_softmax(-1), a.log_softmax(-1), log_target=True, reduction="none"
        )
        assert divergence.sum(-1).mean() < 5e-3


def test_a_training_step_on_a_gpu_is_that_of_a_cpu():
    """Catches a loss that is cut into chunks otherwise, and attention of other keys."""
    grads = []
    for device in ("cpu", "cuda"):
        model, _ = network(None)
        model = model.to(device)
        inputs = torch.randn(4, model.schedule.seq_len, 8, generator=generator("inputs")).to(device)
        tokens = torch.randint(128, (4, model.schedule.seq_len), generator=generator("t")).to(
            device
        )
        labels = torch.arange(4, device=device)
        loss = linear_cross_entropy(model.hidden(inputs, labels), model.head, tokens)
        dense = next_scale_cross_entropy(model(inputs, labels), tokens)
        torch.testing.assert_close(loss, dense, rtol=1e-5, atol=1e-6)
        loss.backward()
        grads.append([p.grad.cpu() for p in model.parameters()])
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_tokens_of_an_image_are_those_of_a_cpu():
    """Catches an encoder in another precision or layout."""
    _, tokenizer = network()
    images = torch.rand(64, 3, 16, 16, generator=generator("images"))
    with torch.no_grad():
        ours = tokenizer.encode(images.to(GPU)).cpu()
        plain = tokenizer.cpu().encode(images)
    assert (ours == plain).double().mean() > 0.99


# ---------------------------------------------------------------- memory


def test_numbers_are_the_same_on_every_device():
    """Catches a copy that is not waited for: numbers on a GPU are those of the CPU."""
    there, here = ImageNoise(range(50), GPU), ImageNoise(range(50))
    for length in (1, 4, 9, 100):
        for use in ("", "sr", "refine"):
            assert torch.equal(there.uniform(length, use).cpu(), here.uniform(length, use))
    given = GivenNoise(ImageNoise(range(50), GPU).all_of(there.asked))
    again = ImageNoise(range(50))
    for length, use in there.asked:
        assert torch.equal(given.uniform(length, use).cpu(), again.uniform(length, use))


def test_a_batch_that_does_not_fit_is_halved():
    """Catches an error of a full GPU that is not known as one, and memory that is kept."""
    model, tokenizer = network()
    model.compile_step()
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.4e9 / total)
    try:
        labels_N = torch.arange(6000) % 10
        images = np.zeros((6000, 3, 16, 16), np.uint8)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2**30, device=GPU)
        _, fitted = sample_into(
            images, model, tokenizer, VAR, labels_N, 0, 6000, Progress("x", 6000)
        )
        assert 32 <= fitted < 6000 and images.any(axis=(1, 2, 3)).all()
        some = np.zeros((8, 3, 16, 16), np.uint8)
        draw_batch(some, model, tokenizer, VAR, labels_N[:8].to(GPU), range(8))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    close = np.abs(some.astype(int) - images[:8]).max(axis=(1, 2, 3)) <= 2
    assert close.mean() >= 0.7


def test_errors_of_a_full_gpu_are_known():
    """Catches a wording of torch's that the programs do not know."""
    for call in (lambda: torch.empty(2**50, device=GPU, dtype=torch.uint8),):
        with pytest.raises(RuntimeError) as caught:
            call()
        assert is_out_of_memory(caught.value)


# ---------------------------------------------------------------- jobs


class OnGpu(Bench):
    """The smoke study, every job on the GPU."""

    def words(self, run_id, out=None, config=None):
        return ["cuda" if word == "cpu" else word for word in super().words(run_id, out, config)]

    def trainer(self, mark, out, **training):
        run_id = self.find("train", mark)
        folders = {
            role: self.root / needed for role, needed in self.plan.jobs[run_id].inputs.items()
        }
        config = self.config(run_id, out.name, **training)
        options = Namespace(config=config, out=out, device="cuda", **folders)
        return Trainer(Run("train", options, tuple(folders)))


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return OnGpu(tmp_path_factory.mktemp("gpu"))


def test_every_job_names_the_gpu(bench):
    """Catches a job that runs on the CPU beside an idle GPU."""
    for stage in ("tokenizer", "train", "sample"):
        row = json.loads((bench.root / bench.find(stage) / "row.json").read_text())
        assert row["status"] == "ok" and row["device"] == torch.cuda.get_device_name(GPU)


def test_a_training_goes_on_where_it_stopped(bench, tmp_path):
    """Catches state that lies on the GPU and is not kept: averages, moments, the best weights."""
    whole, parts = bench.trainer("h0", tmp_path / "whole"), bench.trainer("h0", tmp_path / "parts")
    losses = []
    for _ in range(6):
        losses.append(whole.step().item())
        whole.state.step += 1
    (tmp_path / "parts").mkdir(exist_ok=True)
    for _ in range(3):
        parts.step()
        parts.state.step += 1
    parts.save()
    later = bench.trainer("h0", tmp_path / "parts")
    later.restore()
    assert later.state.step == 3
    for wanted in losses[3:]:
        assert later.step().item() == pytest.approx(wanted, rel=1e-5)
        later.state.step += 1
    for a, b in zip(whole.model.parameters(), later.model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_a_training_that_does_not_fit_says_what_would(bench, tmp_path):
    """Catches a full GPU that ends as an error of the program."""
    trainer = bench.trainer("hNone", tmp_path / "large")
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    reserved = torch.cuda.memory_reserved()
    call = trainer.model.hidden

    def hungry(inputs_BLC, *more):
        hold = torch.empty(len(inputs_BLC), 2**22, device=GPU)  # 16 MiB an image
        return call(inputs_BLC, *more) + 0 * hold[0, 0]

    trainer.hidden = hungry
    torch.cuda.set_per_process_memory_fraction((reserved + 150e6) / total)
    try:
        with pytest.raises(MemoryError, match=r"out of memory with 16 images at once .* fit: set"):
            trainer.step()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_gradients_of_one_process_by_nccl_are_its_own():
    """Catches a group of both backends that cannot be made, and sums that it spoils."""
    layer, images = torch.nn.Linear(8, 4).to(GPU), torch.randn(16, 8, device=GPU)
    layer(images).square().sum().backward()
    alone = [weight.grad.clone() for weight in layer.parameters()]
    layer.zero_grad()
    store = dist.HashStore()
    dist.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    try:
        shared = torch.nn.parallel.DistributedDataParallel(layer, device_ids=[GPU.index or 0])
        shared(images).square().sum().backward()
        for weight, grad in zip(layer.parameters(), alone):
            torch.testing.assert_close(weight.grad, grad)
        for device in (torch.device("cpu"), GPU):
            number = torch.full((3,), 2.5, device=device)
            dist.all_reduce(number)
            assert number.tolist() == [2.5] * 3
    finally:
        dist.destroy_process_group()


def test_one_process_by_torchrun_trains_as_one_without(bench, tmp_path):
    """Catches a device that torchrun cannot give."""
    run_id = bench.find("train", "h0")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1",
        "-m", "bench", "train", *bench.words(run_id, tmp_path / "nccl"),
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    code, text = finish(process)
    assert code == 0, text
    assert curve(tmp_path / "nccl") == pytest.approx(curve(bench.root / run_id), rel=1e-4)
