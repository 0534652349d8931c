"""What every test of the library shares: one thread, tiny configs, random networks,
a quick hypothesis profile."""

import gc
import os
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

# torch-fidelity installs a top-level package `tests`: helpers are imported by their own names
sys.path.insert(0, str(Path(__file__).parent))

import srdd.linear  # noqa: E402
from srdd.config import ModelConfig, TokenizerConfig  # noqa: E402
from srdd.model import ScaleTransformer  # noqa: E402
from srdd.noise import generator  # noqa: E402
from srdd.quantizer import Quantizer  # noqa: E402
from srdd.tokenizer import Tokenizer  # noqa: E402

torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton reads it when it is imported, which torch's compiler does; see test_kernels.py
    os.environ.setdefault("TRITON_INTERPRET", "1")
settings.register_profile(
    "quick",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("quick")


# files that take longest begin first: all processes then end at about the same time
LONGEST = (
    "test_workflow",
    "test_targets",
    "test_slurm",
    "test_memory",
    "test_site_browser",
    "test_closure",
    "test_house",
    "test_run",
    "test_ranks",
)


def pytest_collection_modifyitems(items):
    """The longest files first, all else as it was."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """What a test draws without a seed of its own follows from no test before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def pytest_collection_finish():
    """What was imported and collected stays: to look through it for garbage again and again takes a
    tenth of the time of the tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _model_config(**changes):
    tiny = dict(
        patch_nums=(1, 2, 3),
        codebook_size=7,
        codebook_dim=4,
        num_classes=3,
        depth=2,
        width=16,
        heads=2,
    )
    return ModelConfig(**{**tiny, **changes})


def _tokenizer_config(**changes):
    tiny = dict(
        patch_nums=(1, 2, 4), image_size=8, in_channels=1, codebook_size=7, codebook_dim=4,
        channels=4, channel_multipliers=(1, 2), num_res_blocks=1, norm_groups=2,
    )  # fmt: skip
    return TokenizerConfig(**{**tiny, **changes})


def _randomise(module, name, std=0.3):
    rng = generator("weights", name)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, std, generator=rng)
    return module.eval()


@pytest.fixture(scope="session")
def model_config():
    """Factory of a tiny ModelConfig; keywords replace its settings."""
    return _model_config


@pytest.fixture(scope="session")
def tokenizer_config():
    """Factory of a tiny TokenizerConfig; keywords replace its settings."""
    return _tokenizer_config


@pytest.fixture(scope="session")
def make_model():
    """Factory of a tiny transformer whose weights are all large and random:
    an initialised one has nearly closed gates."""

    def make(mask_LL=None, **changes):
        return _randomise(ScaleTransformer(_model_config(**changes), mask_LL), "model")

    return make


@pytest.fixture(scope="session")
def make_ladder():
    """Factory of a ladder with random codes and phi."""

    def make(schedule, codebook_size=7, codebook_dim=4, num_phi=4, phi_ratio=0.5):
        return _randomise(
            Quantizer(codebook_size, codebook_dim, num_phi, phi_ratio), "quantizer"
        ).at(schedule)

    return make


@pytest.fixture(scope="session")
def make_tokenizer():
    """Factory of a tiny tokenizer with the weights that training starts from."""

    def make(**changes):
        tokenizer = Tokenizer(_tokenizer_config(**changes))
        tokenizer.init_weights(generator("tokenizer"))
        return tokenizer

    return make


@pytest.fixture(params=["oneDNN", "MKL"])
def library(request, monkeypatch):
    """Products of float32 on a CPU by either library, whatever processor this is."""
    if request.param == "oneDNN" and not srdd.linear._works():
        pytest.skip("this torch has no oneDNN for products")
    monkeypatch.setattr(srdd.linear, "_ONEDNN", request.param == "oneDNN")
