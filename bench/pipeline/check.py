"""Functions of one's own that a study names, tried once before the first job.

`python -m bench check STUDY.yaml SUITE...`: `bench.study.before` starts it, since planning imports
no torch, and only for a study that names such functions. Says one line and ends with status 1 for a
mask that leaks, a sampler that returns no tokens, and whatever else breaks a contract of
srdd/contracts.py.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import nn

from srdd import diffusion
from srdd.balance import scale_weights
from srdd.config import ModelConfig, SamplerConfig, TokenizerConfig
from srdd.corruption import corrupted, mask_within_scales
from srdd.cost import blank_latent, tiny_network
from srdd.degradation import degraded, shifted
from srdd.files import fill, load_tensors, save_tensors
from srdd.guidance import guidance_weights
from srdd.heads import affine, named_head
from srdd.lookup import find, function_name, is_own, unknown
from srdd.loss import mask_shares
from srdd.masks import named_mask
from srdd.noise import first_weights, generator
from srdd.quantizer import Ladder
from srdd.sampling import Known, generate
from srdd.tokenizer import Tokenizer
from srdd.zero_shot import known_prefix

from ..study import rooms
from ..study.before import own_changes
from ..study.errors import ConfigError, line_of
from ..study.plan import load_study
from ..study.resolve import variants_and_teachers
from ..study.schema import Study, Suite, Variant

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)

IMAGES = 2
SEEDS = tuple(range(IMAGES))
HITS, MOST_IMAGES = 50, 4096  # of a corruption
MASKED_IMAGES = 64  # enough for most numbers of hidden tokens at each scale


def tried(who: str, call: Callable[[], T]) -> T:
    """What a function gives. Raises ConfigError that begins with its name, whatever it raises
    itself."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        words = " ".join(str(error).split())
        if isinstance(error, ValidationError):  # settings that were changed: many words
            first = error.errors()[0]
            words = f"{error.title}.{'.'.join(map(str, first['loc']))}: {first['msg']}"
        if isinstance(error, ValueError):
            raise ConfigError(words if words.startswith(who) else f"{who}: {words}") from None
        raise ConfigError(f"{who}: {type(error).__name__}: {words} ({line_of(error)})") from None


def twice(who: str, call: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What a function gives, the same at a second call. Raises ConfigError."""
    first = tried(who, call)
    if not torch.equal(first, tried(who, call)):
        raise ConfigError(
            f"{who}: gives something else each time; draw every random number from what it is given"
        )
    return first


def check_sampler(variant: Variant, with_known: bool) -> None:
    """Draw two images from a tiny network with the variant's schedule, codes and classes; with
    known tokens where a measure has some."""
    sampler, schedule = variant.sampler, variant.model.schedule
    who = whose(sampler)
    network, ladder = tiny_network(variant.model)
    labels_B = torch.arange(IMAGES) % max(1, variant.model.num_classes)

    def draw(
        known: Known | None = None, seeds: Sequence[int] = SEEDS
    ) -> tuple[torch.Tensor, torch.Tensor]:
        latent = blank_latent(variant.model, len(seeds))
        given = network, ladder, labels_B[list(seeds)], seeds, sampler, known
        return generate(*given, degraded_BChw=latent)

    tokens_BL = twice(who, lambda: draw()[0])
    check_state(who, ladder, draw())
    turned = tuple(reversed(range(IMAGES)))
    if not torch.equal(tried(who, lambda: draw(seeds=turned)[0]), tokens_BL[list(turned)]):
        raise ConfigError(
            f"{who}: an image depends on its place in the batch; draw every random number of an "
            "image from noise, which has a row for each"
        )
    for i in SEEDS:
        alone_1L = tried(who, partial(lambda one: draw(seeds=(one,))[0], i))
        if not torch.equal(alone_1L, tokens_BL[i : i + 1]):
            raise ConfigError(
                f"{who}: an image depends on the others of its batch; take means, ranks and "
                "thresholds over the tokens of each image alone (dim=-1)"
            )
    if with_known:
        # codes that are not what it draws, so that one that is lost shows
        other_BL = (tokens_BL + 1) % variant.model.codebook_size
        check_state(who, ladder, tried(who, lambda: draw(known_prefix(schedule, 1, other_BL))))


def whose(sampler: SamplerConfig) -> str:
    """The function of one's own that a sampler's fault is laid to: itself, its rule, what the rule
    ranks by, or its ramp."""
    if is_own("sample", sampler.name):
        return function_name("sample", sampler.name)
    for prefix, name in rule_functions(sampler):
        if is_own(prefix, name):
            return function_name(prefix, name)
    return function_name("ramp", sampler.cfg_ramp)


def rule_functions(sampler: SamplerConfig) -> list[tuple[str, str]]:
    """Prefix and name of a sampler's rule and of what it calls by name; none where nothing is
    refined."""
    named = sampler.functions().items() if sampler.refine_steps else ()
    return [function for key, function in named if key.startswith("select")]


def check_state(who: str, ladder: Ladder, sample: tuple[torch.Tensor, torch.Tensor]) -> None:
    """The state that a sampler returns is that of its tokens: images are made of the one, known
    tokens and figures are read from the other. Raises ConfigError."""
    tokens_BL, f_hat_BChw = sample
    if not torch.allclose(f_hat_BChw.float(), ladder.decode(tokens_BL), rtol=1e-3, atol=1e-3):
        raise ConfigError(
            f"{who}: gives a state that is not that of its tokens; add every scale's final tokens "
            "to it with ladder.add_scale, or return ladder.decode(tokens_BL)"
        )


def check_corruption(name: str, eps: float, variant: Variant) -> None:
    """Corrupt a few tokens of the variant's schedule."""
    who, V = function_name("corrupt", name), variant.model.codebook_size
    L = variant.model.schedule.seq_len
    # enough tokens that a small eps hits some
    images = min(MOST_IMAGES, max(IMAGES, math.ceil(HITS / (max(eps, 1e-6) * L))))
    tokens_BL = torch.randint(V, (images, L), generator=generator("check"))
    twice(who, lambda: corrupted(name, tokens_BL, eps, V, generator("check", "noise")))


def check_weight(name: str, variant: Variant) -> None:
    """Weigh the masked tokens of a batch of the variant's schedule."""
    who, model = function_name("weigh", name), variant.model
    V, schedule, masks = model.codebook_size, model.schedule, generator("check", "masks")
    tokens_BL = torch.randint(V, (MASKED_IMAGES, schedule.seq_len), generator=generator("check"))
    own_BL = mask_within_scales(tokens_BL, schedule, model.mask_prob, V, masks)
    share_BL = twice(who, lambda: mask_shares(name, own_BL, schedule, V, model.mask_prob)[0])
    if not share_BL.any():
        raise ConfigError(f"{who}: gives 0 for every token; nothing would be learned")


def check_variant(
    variant: Variant, suite: Suite, elbos: tuple[tuple[str, float], ...] = ()
) -> None:
    """Every function of one's own that a variant names, with the settings that it will have."""
    model, sampler, training = variant.model, variant.sampler, variant.training
    check_networks(variant)
    mask = model.mask
    if mask is not None and is_own("mask", mask):
        tried(function_name("mask", mask), partial(named_mask, mask, model.schedule))
    if is_own("ramp", sampler.cfg_ramp):
        asked = sampler.cfg_scale, sampler.cfg_ramp, model.schedule.num_scales
        tried(function_name("ramp", sampler.cfg_ramp), lambda: guidance_weights(*asked))
    guided = sampler.cfg_scale != 1 and is_own("ramp", sampler.cfg_ramp)
    refined = any(is_own(*function) for function in rule_functions(sampler))
    if is_own("sample", sampler.name) or refined or guided:
        check_sampler(variant, bool(set(rooms.which("KNOWN_TOKENS")) & set(suite.measure)))
    if training is not None and is_own("corrupt", training.corruption):
        check_corruption(training.corruption, training.eps, variant)
    if training is not None and is_own("weigh", training.mask_weight):
        check_weight(training.mask_weight, variant)
    if training is not None and is_own("balance", training.loss_weight):
        who = function_name("balance", training.loss_weight)
        twice(who, partial(scale_weights, training.loss_weight, model.schedule))
    for name, eps in elbos:
        if is_own("corrupt", name):  # asked for its ELBO, which takes a terms_<name> as well
            tried(function_name("corrupt", name), partial(find, diffusion, "terms", name))
            check_corruption(name, eps, variant)


def drawn_images(channels: int, size: int) -> torch.Tensor:
    """A few images of noise in [-1, 1]."""
    shape = IMAGES, channels, size, size
    return torch.rand(shape, generator=generator("check", "images")) * 2 - 1


def check_changes(study: Study, suite: str) -> None:
    """Every shift and degradation of one's own of a suite, on images of the dataset's shape: all at
    once, and the last one alone."""
    data = study.dataset
    images_BCHW = drawn_images(data.channels, data.image_size)
    for prefix, name, strength in sorted(own_changes(study, suite)):
        who, more = function_name(prefix, name), (strength,) if prefix == "degrade" else ()
        change = partial(degraded if prefix == "degrade" else shifted, name)
        whole_BCHW = tried(who, partial(change, images_BCHW, SEEDS, *more))
        alone_1CHW = tried(who, partial(change, images_BCHW[-1:], SEEDS[-1:], *more))
        if not torch.allclose(whole_BCHW[-1:], alone_1CHW, rtol=0, atol=1e-3):
            raise ConfigError(
                f"{who}: an image depends on its place in the batch; let it follow from its own "
                "pixels and seed"
            )


SHARES = "gives the same weights at each call; make new ones, since two networks may be at work"
NOT_AFFINE = (
    "computes something else than x W^T + b of its own weight and bias, by which losses and "
    "guidance take it; let its output be that, also while it trains"
)
FORGETS = (
    "computes something else once it is saved and read again: a value that is drawn and no part of "
    "the state; make it a parameter or a buffer that is saved (persistent=True)"
)


def twins(make: Callable[[], M]) -> tuple[M, M]:
    """A network as it is made, and as it is read back into one that began with other draws. Raises
    ValueError for two that share weights."""
    with first_weights(0):
        one = make()
    with first_weights(1):
        other = make()
    if set(map(id, one.parameters())) & set(map(id, other.parameters())):
        raise ValueError(SHARES)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_tensors(path, one.state_dict())
        fill(other, load_tensors(path)[0], path.name)
    return one.eval(), other.eval()


def run_head(config: ModelConfig) -> None:
    """A head, saved and read. Raises ValueError for one that is no head, forgets, or is not affine
    while it trains or afterwards."""
    one, other = twins(lambda: named_head(config))
    x_BD = torch.randn(2, config.width, generator=generator("check", "head"))
    with torch.no_grad():
        if not torch.equal(one(x_BD), other(x_BD)):
            raise ValueError(FORGETS)
        affine_BV = F.linear(x_BD, *affine(one))
        for logits_BV in (one(x_BD), one.train()(x_BD)):
            if logits_BV.shape != affine_BV.shape or not torch.allclose(
                logits_BV, affine_BV, rtol=1e-3, atol=1e-4
            ):
                raise ValueError(NOT_AFFINE)


def run_codec(config: TokenizerConfig) -> None:
    """Take two images to latents and back, with drawn weights. Raises ValueError for other shapes,
    for numbers that are not finite, and for a codec that forgets, or mixes the images of a
    batch."""

    def drawn() -> Tokenizer:
        tokenizer = Tokenizer(config)
        tokenizer.init_weights(generator("check", "codec"))
        return tokenizer

    def there_and_back(
        tokenizer: Tokenizer, only: slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        latent_BChw = tokenizer.to_latent(images_BCHW[only])
        return latent_BChw, tokenizer.to_image(latent_BChw)

    images_BCHW = drawn_images(config.in_channels, config.image_size)
    with torch.no_grad():
        one, other = twins(drawn)
        first, again = there_and_back(one), there_and_back(other)
        alone = there_and_back(one, slice(-1, None))
    if not all(x.isfinite().all() for x in first):
        raise ValueError("gives NaN or inf")
    if not all(map(torch.equal, first, again)):
        raise ValueError(FORGETS)
    for whole, part in zip(first, alone):
        if not torch.allclose(whole[-1:], part, rtol=1e-3, atol=1e-3):
            raise ValueError(
                "gives an image another result beside other images; let each follow from itself "
                "once the training is over (as BatchNorm does by its running statistics)"
            )


def check_networks(variant: Variant) -> None:
    """A head and a codec of one's own, in the sizes of the variant."""
    model, sizes = variant.model, variant.tokenizer.config
    if is_own("head", model.head):
        tried(function_name("head", model.head), partial(run_head, model))
    if is_own("codec", sizes.codec):
        tried(function_name("codec", sizes.codec), partial(run_codec, sizes))


def elbos_of(study: Study, suite: str) -> tuple[tuple[str, float], ...]:
    """Corruptions whose ELBO a suite asks for, each with a noise."""
    asked: list[tuple[str, float]] = []
    for room in study.suites[suite].measure:
        if hook := rooms.says(room, "elbos"):
            asked += hook(study.told(suite, room))
    return tuple(asked)


def main() -> None:
    """Check the functions that the named suites of a study use."""
    parser = argparse.ArgumentParser(prog="python -m bench check", description=main.__doc__)
    parser.add_argument("study", help="its YAML file")
    parser.add_argument("suites", nargs="*", metavar="suite")
    given = parser.parse_args()
    done: set[tuple] = set()
    try:
        study = load_study(given.study).study
        for name in given.suites:
            if name not in study.suites:
                raise ConfigError(f"{given.study}: {unknown('suite', name, study.suites)}")
        for name in given.suites:
            suite, elbos = study.suites[name], elbos_of(study, name)
            check_changes(study, name)
            for variant in variants_and_teachers(study, name):
                # many variants differ in what no such function sees
                key = (
                    variant.model,
                    variant.tokenizer.config,
                    variant.sampler,
                    variant.training,
                    suite.measure,
                    elbos,
                )
                if key not in done:
                    check_variant(variant, suite, elbos)
                done.add(key)
    except ConfigError as error:
        sys.exit(f"error: {error}")
