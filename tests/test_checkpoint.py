"""Weights on disk, tokenizer and its loss."""

import os
from pathlib import Path

import pytest
import torch

from srdd import checkpoint, tokenizer
from srdd.loss import by_scale, next_scale_cross_entropy, token_losses, tokenizer_loss
from srdd.noise import generator
from srdd.schedule import ScaleSchedule


def test_round_trip_is_exact_and_repeatable(make_model, make_tokenizer, tmp_path):
    """Catches a lost bit, a lost setting, or two equal models in different files."""
    for save, load, module in (
        (checkpoint.save_model, checkpoint.load_model, make_model(history=1)),
        (checkpoint.save_tokenizer, checkpoint.load_tokenizer, make_tokenizer()),
    ):
        paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
        for path in paths:
            save(path, module, step=3)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        again = load(paths[0], expect=module.config)
        assert again.config == module.config and not again.training
        assert all(
            torch.equal(a, b)
            for a, b in zip(module.state_dict().values(), again.state_dict().values())
        )


def _shares_and_counts(config):
    """A codec with one layer in two places, and a norm that counts its batches."""
    codec, C = tokenizer.codec_conv(config), config.codebook_dim
    norm = torch.nn.Sequential(codec.pre_quant, torch.nn.BatchNorm2d(C))
    return codec._replace(pre_quant=norm, post_quant=codec.pre_quant)


def test_layers_of_ones_own_come_back(make_tokenizer, monkeypatch, tmp_path):
    """Catches a tokenizer that is trained and then cannot be written, since two layers share their
    weights, or not be read, since one of its numbers is a whole one."""
    monkeypatch.setattr(tokenizer, "codec_mine", _shares_and_counts, raising=False)
    module, path = make_tokenizer(codec="mine"), tmp_path / "t.safetensors"
    module.train().to_latent(torch.zeros(2, 1, 8, 8))
    checkpoint.save_tokenizer(path, module)
    again = checkpoint.load_tokenizer(path, expect=module.config)
    assert again.pre_quant[1].num_batches_tracked == 1
    assert again.post_quant.weight is again.pre_quant[0].weight
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_damaged_foreign_and_missing_files(make_model, model_config, make_tokenizer, tmp_path):
    """Catches a damaged file that is read, a model of another config that is used, an error that
    hides file, key or value."""
    path = tmp_path / "m.safetensors"
    checkpoint.save_model(path, make_model(history=1))
    with pytest.raises(ValueError, match=r"m\.safetensors.*history is 1 in the file, 0 asked for"):
        checkpoint.load_model(path, expect=model_config(history=0))
    with pytest.raises(ValueError, match="holds 'model', not a tokenizer"):
        checkpoint.load_tokenizer(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"m\.safetensors: damaged or truncated"):
        checkpoint.load_model(path)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        checkpoint.load_model(tmp_path / "none.safetensors")
    tensors, _ = {"head.bias": torch.zeros(3)}, None
    checkpoint.save_tensors(
        path, tensors, kind="model", config=model_config().model_dump(mode="json")
    )
    with pytest.raises(ValueError, match="weights do not fit: .*head.bias has shape"):
        checkpoint.load_model(path)


def test_failed_write_leaves_the_old_file(make_model, tmp_path, monkeypatch):
    """Catches a checkpoint that a full disk destroys."""
    path = tmp_path / "m.safetensors"
    checkpoint.save_model(path, make_model())
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        checkpoint.save_model(path, make_model(history=0))
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_weights_have_the_rights_of_other_files(tmp_path, monkeypatch):
    """Catches weights that their owner alone may read in a folder that many share, and what they
    meet there: a checkpoint that is said to be missing, and advice to delete its job."""
    from bench.runtime.command import describe

    path = tmp_path / "m.safetensors"
    before = os.umask(0o002)
    try:
        checkpoint.save_tensors(path, {"weights": torch.zeros(3)})
        (tmp_path / "other").touch()
    finally:
        os.umask(before)
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode

    def closed(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", closed)
    with pytest.raises(PermissionError) as error:
        checkpoint.load_tensors(path)
    assert "cannot be read or written" in describe(error.value)


def test_tokenizer_loss_reaches_every_weight(make_tokenizer):
    """Catches a straight-through gradient that stops, or a part that never learns."""
    tokenizer = make_tokenizer()
    images = torch.rand(3, 1, 8, 8, generator=generator("images")) * 2 - 1
    losses = tokenizer_loss(tokenizer, images, tokenizer.config.schedule, entropy=0.1)
    losses.total.backward()
    silent = [
        name
        for name, p in tokenizer.named_parameters()
        if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert [name for name in silent if not name.startswith("quantizer.phi")] == []
    assert len(losses.tokens) == 3 and losses.residuals[0].shape == (3, 1, 4)


def test_tokenizer_loss_is_finite_on_top_of_a_code(make_tokenizer):
    """Catches the gradient of a distance that is no number where latent and code coincide."""
    tokenizer = make_tokenizer()
    with torch.no_grad():
        tokenizer.pre_quant.weight.zero_()
        tokenizer.quantizer.codebook_VC.zero_()
    losses = tokenizer_loss(
        tokenizer, torch.zeros(2, 1, 8, 8), tokenizer.config.schedule, entropy=1.0
    )
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in tokenizer.parameters() if p.grad is not None)


def test_tokenizer_shapes_and_reduced_schedules(make_tokenizer):
    """Catches a tokenizer that serves only the schedule it was built with,
    or one that does not end at its latent."""
    tokenizer = make_tokenizer().eval()
    images = torch.rand(2, 1, 8, 8, generator=generator("images")) * 2 - 1
    for patch_nums in ((1, 2, 4), (1, 4), (4,), (2, 3, 4)):
        schedule = ScaleSchedule(patch_nums)
        tokens = tokenizer.encode(images, schedule)
        assert tokens.shape == (2, schedule.seq_len)
        assert tokenizer.decode(tokens, schedule).shape == images.shape
    with pytest.raises(ValueError, match=r"\[1, 2\].*latent size 4"):
        tokenizer.encode(images, ScaleSchedule((1, 2)))


def test_losses_by_scale_add_up():
    """Catches a per-scale loss that does not weigh up to the whole."""
    schedule = ScaleSchedule((1, 2, 3))
    logits = torch.randn(4, 14, 9, generator=generator("logits"))
    tokens = torch.randint(9, (4, 14), generator=generator("tokens"))
    parts = by_scale(token_losses(logits, tokens), schedule)
    lengths = torch.tensor(schedule.lengths, dtype=torch.float64)
    assert ((parts * lengths).sum() / 14).item() == pytest.approx(
        next_scale_cross_entropy(logits, tokens).item(), rel=1e-6
    )
