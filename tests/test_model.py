"""The transformer: who sees whom, cache against teacher forcing,
scale by scale against the dense mask, golden steps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from srdd.loss import linear_cross_entropy, next_scale_cross_entropy
from srdd.masks import scale_mask
from srdd.noise import generator
from srdd.schedule import ScaleSchedule

HISTORIES = [None, 0, 1, 2]
GOLDEN = Path(__file__).resolve().parent / "golden" / "train_five_steps.txt"


def inputs_for(model, batch=2):
    shape = (batch, model.schedule.seq_len, model.config.codebook_dim)
    return torch.randn(shape, generator=generator("inputs")), torch.arange(batch) % (
        model.config.num_classes + 1
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("history", HISTORIES)
@torch.no_grad()
def test_leak(make_model, history, depth):
    """Catches attention that looks too far back, ahead, or not far enough: an input at j moves the
    logits of k iff k - j is in reach."""
    model = make_model(patch_nums=(1, 2, 3, 4, 5), history=history, depth=depth)
    inputs, labels = inputs_for(model)
    before = model(inputs, labels)
    reach = model.schedule.num_scales if history is None else history * depth
    # scale 0 reads the start embedding, not its input
    for j in range(1, model.schedule.num_scales):
        moved = inputs.clone()
        moved[:, model.schedule.slices[j]] += 1.0
        after = model(moved, labels)
        for k, piece in enumerate(model.schedule.slices):
            changed = not torch.equal(before[:, piece], after[:, piece])
            assert changed == (0 <= k - j <= reach), (j, k)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("patch_nums", [(1, 2, 3), (2, 3, 5), (1, 2, 3, 4, 5), (3,)])
@pytest.mark.parametrize("history", HISTORIES)
@torch.no_grad()
def test_cache_parity(make_model, history, patch_nums, batch):
    """Catches a cache that keeps too little, shifts wrongly, or forgets to replace: one-scale
    logits equal teacher-forced ones."""
    model = make_model(patch_nums=patch_nums, history=history)
    inputs, labels = inputs_for(model, batch)
    whole, denoise = model(inputs, labels), model.denoiser()
    for k, piece in enumerate(model.schedule.slices):
        # another content first: it must be replaced
        denoise(torch.zeros_like(inputs[:, piece]), k, labels)
        torch.testing.assert_close(
            denoise(inputs[:, piece], k, labels), whole[:, piece], rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("history", HISTORIES)
def test_by_scale_equals_dense_mask(make_model, history):
    """Catches any pair that scale-by-scale attention drops or adds, forwards or in a gradient."""
    schedule = ScaleSchedule((1, 2, 3, 5))
    ours = make_model(patch_nums=schedule.patch_nums, history=history)
    dense = make_model(scale_mask(schedule, history), patch_nums=schedule.patch_nums)
    inputs, labels = inputs_for(ours)
    results = []
    for model in (ours, dense):
        model.zero_grad()
        given = inputs.clone().requires_grad_()
        out = model(given, labels)
        (out * torch.randn(out.shape, generator=generator("up"))).sum().backward()
        results.append([out, given.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_cache_memory_follows_history(make_model):
    """Catches a memory saving that is only claimed: SDD holds no cache, history 1 less than VAR."""
    sizes = {}
    for history in HISTORIES:
        model = make_model(patch_nums=(1, 2, 3, 4, 5), history=history)
        inputs, labels = inputs_for(model)
        denoise = model.denoiser()
        for k, piece in enumerate(model.schedule.slices):
            denoise(inputs[:, piece], k, labels)
        sizes[history] = sum(
            buffer.numel() for buffer in denoise.cache.buffers if buffer is not None
        )
    assert sizes[0] == 0 < sizes[1] < sizes[2] < sizes[None]


@pytest.mark.parametrize(
    "changes", [{"shared_adaln": True}, {"qk_norm": False}, {"num_classes": 0}]
)
@torch.no_grad()
def test_other_architectures(make_model, changes):
    """Catches a setting that only the default path supports."""
    model = make_model(**changes)
    inputs, labels = inputs_for(model)
    whole, denoise = model(inputs, labels), model.denoiser()
    for k, piece in enumerate(model.schedule.slices):
        torch.testing.assert_close(
            denoise(inputs[:, piece], k, labels), whole[:, piece], rtol=1e-4, atol=1e-4
        )


def test_named_mask_takes_the_dense_path(make_model, monkeypatch):
    """Catches a user's mask that is ignored in training or in sampling."""
    from srdd import masks

    def mask_first_and_own(schedule):
        scale = masks.scale_of_token(schedule)
        return (scale[None, :] == 0) | (scale[:, None] == scale[None, :])

    monkeypatch.setattr(masks, "mask_first_and_own", mask_first_and_own, raising=False)
    model = make_model(patch_nums=(1, 2, 3), mask="first_and_own")
    inputs, labels = inputs_for(model)
    with torch.no_grad():
        whole, denoise = model(inputs, labels), model.denoiser()
        for k, piece in enumerate(model.schedule.slices):
            torch.testing.assert_close(
                denoise(inputs[:, piece], k, labels), whole[:, piece], rtol=1e-4, atol=1e-4
            )
        moved = inputs.clone()
        moved[:, model.schedule.slices[1]] += 1
        assert torch.equal(
            model(moved, labels)[:, model.schedule.slices[2]], whole[:, model.schedule.slices[2]]
        )


def test_drop_path_comes_from_its_generator(make_model):
    """Catches stochastic depth that a resumed training would draw anew."""
    model = make_model(drop_path=0.5, depth=3)
    inputs, labels = inputs_for(model, 8)
    runs = [
        model(inputs, labels, model.draw_paths(8, generator("drop", seed))) for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert not torch.equal(model(inputs, labels), runs[0])


@pytest.mark.parametrize(
    "changes", [*({"history": history} for history in HISTORIES), {"mask_LL": True}], ids=str
)
def test_training_is_one_graph(make_model, changes):
    """Catches a line that torch.compile cannot follow, with or without recomputed blocks: it would
    break the graph in silence and the promised speed with it;
    and a recomputation that gives other gradients."""
    mask_LL = scale_mask(ScaleSchedule((1, 2, 3)), 1) if changes.get("mask_LL") else None
    history = changes.get("history")
    model = make_model(mask_LL, history=history, depth=3, drop_path=0.5, mask_prob=0.5).train()
    inputs, labels = inputs_for(model, 4)
    own = torch.randint(8, (4, model.schedule.seq_len), generator=generator("own"))
    paths = model.draw_paths(4, generator("paths"))
    compiled = torch.compile(model.hidden, fullgraph=True, backend="eager")
    found = []
    for hidden, checkpointing in (
        (model.hidden, False),
        (model.hidden, True),
        (compiled, False),
        (compiled, True),
    ):
        model.zero_grad()
        out = hidden(inputs, labels, paths, own, checkpointing)
        (out * torch.randn(out.shape, generator=generator("up"))).sum().backward()
        found.append(
            [
                out,
                *(
                    parameter.grad
                    for name, parameter in model.named_parameters()
                    if "head." not in name
                ),
            ]
        )
    torch._dynamo.reset()
    for other in found[1:]:
        for a, b in zip(found[0], other):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=3e-5)


def test_paths_are_dropped_at_their_rates(make_model):
    """Catches stochastic depth at the rate of another block,
    or kept branches that are not scaled up."""
    model = make_model(drop_path=0.4, depth=3)
    paths = model.draw_paths(4000, generator("rates"))
    assert paths.shape == (3, 2, 4000) and paths[0].eq(1).all()
    for i, rate in ((1, 0.2), (2, 0.4)):
        for branch in paths[i]:
            assert branch.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
            assert (branch == 0).float().mean().item() == pytest.approx(rate, abs=0.04)  # 5 sigma
    assert make_model(drop_path=0.0).draw_paths(4, generator("rates")) is None


def test_scales_follow_one_another(make_model):
    """Catches a sampler that skips a scale and reads a stale cache."""
    model = make_model()
    inputs, labels = inputs_for(model)
    with pytest.raises(ValueError, match="scale 2"):
        model.denoiser()(inputs[:, model.schedule.slices[2]], 2, labels)


def test_masks_are_no_weights(make_model):
    """Catches a mask buffer that lands in checkpoints."""
    assert not [
        key
        for key in make_model(scale_mask(ScaleSchedule((1, 2, 3)), 0)).state_dict()
        if "mask" in key or "scale_L" in key
    ]


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_fused_head_loss_equals_the_plain_one(half, some, library):
    """Catches a chunk boundary, a scale factor or a gradient of the fused head and cross-entropy
    that is off; of all tokens and of some, in float32 and under bfloat16 autocast (its products
    have 8 bits: 2 % of the largest gradient)."""
    source = generator("fused")
    hidden = torch.randn(3, 700, 16, generator=source, requires_grad=True)
    head, tokens = torch.nn.Linear(16, 50), torch.randint(50, (3, 700), generator=source)
    counted = torch.rand(3, 700, generator=source) < 0.3 if some else None
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        fused, logits = linear_cross_entropy(hidden, head, tokens, counted), head(hidden)
    plain = (
        next_scale_cross_entropy(logits[counted][None], tokens[counted][None])
        if some
        else next_scale_cross_entropy(logits, tokens)
    )
    grads = [
        [loss.detach(), *torch.autograd.grad(2 * loss, (hidden, head.weight, head.bias))]
        for loss in (fused, plain)
    ]
    for a, b in zip(*grads):
        torch.testing.assert_close(
            a, b, rtol=0 if half else 1e-4, atol=0.02 * b.abs().max().item() if half else 1e-6
        )


def five_steps(make_model):
    model = make_model(history=1)
    model.init_weights(generator("golden"))
    inputs, labels = inputs_for(model, 4)
    tokens = torch.randint(7, (4, model.schedule.seq_len), generator=generator("golden tokens"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(5):
        loss = linear_cross_entropy(model.hidden(inputs, labels % 3), model.head, tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_golden_training_steps(make_model):
    """Catches a refactoring that changes the arithmetic. To accept a change on purpose, delete the
    file and run once: the test fails, having written the new losses."""
    losses = five_steps(make_model)
    if not GOLDEN.is_file():
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text("".join(f"{loss:.6g}\n" for loss in losses))
        pytest.fail(f"{GOLDEN} was missing and is written now: commit it")
    np.testing.assert_allclose(
        losses, [float(line) for line in GOLDEN.read_text().split()], rtol=1e-4
    )
