"""What a study sets of a tokenizer and its training: the schema. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from srdd.config import BelowOne, Positive, Share, Side, Strict, TokenizerConfig

from .errors import ConfigError
from .settings import (
    Seed,
    Sha256,
    WeightsConfig,
    WeightsFile,
    check_warmup,
    warmup_of,
)

LEAST_OF_LPIPS = 16  # pixels of a side: VGG-16 halves it four times


class DiscriminatorConfig(Strict):
    """The patch discriminator of the adversarial loss (PatchGAN, arXiv 1611.07004, section 3.2.2)
    and its training."""

    channels: int = Field(
        32,
        ge=8,
        le=2**16,
        multiple_of=8,
        description="of its first layer; a multiple of its 8 groups",
    )
    layers: int = Field(
        2, ge=1, le=10, description="that halve the side; 2 judge patches of 34 pixels, 3 of 70"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate at its peak")
    weight_decay: float = Field(5e-4, ge=0, description="of AdamW")

    @property
    def least_side(self) -> int:
        """The smallest side of an image of which a patch can be judged."""
        return 3 << self.layers


class TokenizerTraining(Strict):
    """How the multi-scale VQ-VAE is trained."""

    steps: Positive = Field(600, description="of training")
    batch_size: Positive = Field(128, description="images a step, of all processes together")
    lr: float = Field(3e-3, gt=0, description="learning rate at its peak")
    weight_decay: float = Field(0.0, ge=0, description="of AdamW")
    warmup: int = warmup_of(50)
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: BelowOne = Field(0.99, description="of the average of the weights, which is kept")
    commitment: float = Field(0.25, ge=0, description="weight of the commitment loss")
    entropy: float = Field(0.0, ge=0, description="weight of the usage entropy per scale; 0: off")
    perceptual: float = Field(
        0.0,
        ge=0,
        description="weight of the perceptual loss, beside a mean square error in [-1, 1]; 0: off",
    )
    perceptual_network: Literal["efficientnet_lite0", "lpips"] = Field(
        "efficientnet_lite0",
        description="whose activations it compares: those of EfficientNet-Lite0, or LPIPS, whose "
        "weights are then given",
    )
    perceptual_weights: WeightsConfig | None = Field(
        None,
        description="lpips only: a .pth of VGG-16 with LPIPS's linear layers, its path and sum",
    )
    perceptual_size: Side | None = Field(
        None,
        description="side that the network sees images at, for lpips 16 or more; null: their own",
    )
    adversarial: float = Field(
        0.0,
        ge=0,
        description="weight of the adversarial loss, times the ratio of gradients that makes it "
        "as strong as the reconstruction (VQGAN, arXiv 2012.09841, equation 7); 0: off",
    )
    adversarial_start: BelowOne = Field(
        0.2, description="share of the steps before the adversarial loss begins"
    )
    discriminator: DiscriminatorConfig = Field(
        DiscriminatorConfig(), description="what the adversarial loss is judged by"
    )
    scale_drop: Share = Field(
        0.5, description="share of steps that use a random subset of the scales"
    )
    restart_every: Positive = Field(25, description="steps between restarts of dead codes")
    restart_share: Share = Field(
        0.1, description="a code used less than this share of the mean use is restarted"
    )
    log_every: Positive = Field(50, description="steps between losses that are written")
    save_every: Positive = Field(100, description="steps between checkpoints to resume from")
    code_order: Literal["trained", "tree", "shuffled"] = Field(
        "trained",
        description="of the codes at the end, of trained weights and of given ones: as they are, "
        "as the leaves of a balanced tree of splits at the median, so that bits of an index mean "
        "something, or by chance",
    )
    seed: Seed = Field(0, description="of a tokenizer that all training seeds share")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> TokenizerTraining:
        check_warmup(self)
        return self

    @model_validator(mode="after")
    def _lpips_has_weights(self) -> TokenizerTraining:
        of_lpips = self.perceptual_network == "lpips"
        if self.perceptual_weights is not None and not of_lpips:
            raise ValueError(
                "perceptual_weights: only for perceptual_network: lpips; EfficientNet-Lite0 comes "
                "with its package; remove it"
            )
        if of_lpips and self.perceptual and self.perceptual_weights is None:
            raise ValueError(
                "perceptual_network: lpips needs perceptual_weights with file and sha256, or take "
                "efficientnet_lite0"
            )
        return self


def images_of_process(training: TokenizerTraining, processes: int) -> int:
    """Images of a batch that each process takes. Raises ConfigError where they are not a whole
    number."""
    images, rest = divmod(training.batch_size, processes)
    if rest:
        raise ConfigError(
            f"tokenizer.training.batch_size {training.batch_size}: cannot be shared among "
            f"{processes} processes; give a multiple of {processes}"
        )
    return images


class TokenizerSpec(Strict):
    """A tokenizer: its sizes and its training, or the weights of one that exists."""

    config: TokenizerConfig = Field(description="its sizes")
    training: TokenizerTraining = Field(TokenizerTraining(), description="how it is trained")
    weights: WeightsFile | None = Field(
        None, description="a file as in `WeightsConfig`; null: train one"
    )
    sha256: Sha256 | None = Field(None, description="of weights; checked before they are read")

    @model_validator(mode="after")
    def _patches_fit(self) -> TokenizerSpec:
        size, judge = self.config.image_size, self.training.discriminator
        for key in ("adversarial", "perceptual") if self.config.codec == "pixels" else ():
            if weight := getattr(self.training, key):
                raise ValueError(
                    f"training.{key} {weight}: codec pixels has no decoder to train by it; set it "
                    "to 0"
                )
        if self.training.adversarial and size < judge.least_side:
            raise ValueError(
                f"training.discriminator.layers {judge.layers}: needs images of "
                f"{judge.least_side} pixels or more, these have {size}; give fewer, or "
                "training.adversarial 0"
            )
        return self

    @model_validator(mode="after")
    def _lpips_sees_enough(self) -> TokenizerSpec:
        training = self.training
        side = training.perceptual_size or self.config.image_size
        of_lpips = training.perceptual and training.perceptual_network == "lpips"
        if of_lpips and side < LEAST_OF_LPIPS:
            raise ValueError(
                f"training.perceptual_size: lpips would see images of {side} pixels and needs "
                f"{LEAST_OF_LPIPS} or more; give perceptual_size {LEAST_OF_LPIPS} or more"
            )
        return self
