"""How many images go through a network at once."""

import pytest
import torch

from bench.pipeline.at_once import at_once
from bench.pipeline.features import Classifier, classify
from bench.study.settings import FeaturesConfig


@pytest.mark.parametrize(
    "most, side, count", [(256, 8, 256), (256, 64, 256), (256, 128, 64), (512, 256, 16), (8, 64, 8)]
)
def test_large_images_are_fewer(most, side, count):
    """Catches a batch of small images that takes another size, and one of large ones that fills
    memory."""
    assert at_once(most, side) == count and at_once(most, 2**12) == 1


def test_a_classifier_sees_few_large_images_at_once():
    """Catches a batch that is not split, and parts that are lost or stand in another order."""
    config = FeaturesConfig(kind="trained", name="x", dim=8, channels=8)
    model = Classifier(config, 1, 256, 2).eval()
    model.init_weights(0)
    seen = []
    model.trunk.register_forward_hook(lambda module, given, out: seen.append(len(given[0])))
    images = torch.randint(256, (18, 1, 256, 256), dtype=torch.uint8)
    classes = classify(model, images, torch.device("cpu"))
    assert seen == [16, 2]
    assert torch.equal(classes, torch.cat([model(image[None]).argmax(1) for image in images]))
