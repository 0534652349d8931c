"""The public VAR code (FoundationVision/VAR) beside ours, with the same random weights.

Nothing of it is kept in this repository: the caller names a checkout. No checkpoint is read.

B batch, L tokens of all scales, V codebook, C latent channels
"""

from __future__ import annotations

import copy
import importlib
import io
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from srdd.config import ModelConfig
from srdd.model import ScaleTransformer
from srdd.official import import_model, import_official
from srdd.quantizer import Ladder
from srdd.tokenizer import Tokenizer

from ..study.errors import ConfigError

PATCH_NUMS = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
V, C, CLASSES = 4096, 32, 1000
CFG, TOP_K, TOP_P = 1.5, 900, 0.96
HISTORIES = {"VAR": None, "SDD": 0}
# with the gates of its training (1e-5) blocks would hardly move the logits, and a comparison of
# logits would say nothing of them
INIT = {"init_adaln": 0.5, "init_adaln_gamma": 0.5, "init_head": 1.0, "init_std": -1}
AGREE = 1e-2  # rounding leaves 1e-5, a wrong weight tenths


def check_checkout(path: Path) -> None:
    """Whether a folder is a checkout of the public code. Raises ConfigError for one that is not."""
    if not (path / "models" / "var.py").is_file():
        raise ConfigError(
            f"{path}: holds no models/var.py; give a checkout of FoundationVision/VAR"
        )


@contextmanager
def _reachable(path: Path) -> Iterator[None]:
    """The checkout can be imported inside. A stand-in takes the place of a missing huggingface_hub,
    which only loading weights needs."""
    stand_in = types.ModuleType("huggingface_hub")
    stand_in.PyTorchModelHubMixin = type("PyTorchModelHubMixin", (), {})  # type: ignore[attr-defined]
    sys.path.insert(0, str(path.resolve()))
    try:
        importlib.import_module("huggingface_hub")
    except ImportError:
        sys.modules["huggingface_hub"] = stand_in
    try:
        yield
    finally:
        sys.path.remove(str(path.resolve()))
        if sys.modules.get("huggingface_hub") is stand_in:
            del sys.modules["huggingface_hub"]


def public_models(
    path: Path, depth: int, width: int, channels: int, device: torch.device
) -> tuple[Any, Any]:
    """VQVAE and VAR of the public code, random weights, float32, in evaluation mode.

    Its own build function is not used: it leaves the VQVAE uninitialised until weights are read,
    and takes initialisation from all layers made later. Stochastic depth is 0, so that both sides
    train every block. Raises ConfigError for a folder that is no checkout.
    """
    check_checkout(path)
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*amp.autocast.*")
    with _reachable(path), redirect_stdout(io.StringIO()):
        dist = importlib.import_module("dist")
        vars(dist)["__device"] = str(device)
        vqvae_class = importlib.import_module("models.vqvae").VQVAE
        var_class = importlib.import_module("models.var").VAR
        vqvae = vqvae_class(vocab_size=V, z_channels=C, ch=channels, v_patch_nums=PATCH_NUMS)
        sizes = {"depth": depth, "embed_dim": width, "num_heads": depth, "num_classes": CLASSES}
        var = var_class(
            vqvae.to(device),
            **sizes,
            norm_eps=1e-6,
            attn_l2_norm=True,
            drop_path_rate=0.0,
            patch_nums=PATCH_NUMS,
        )
        var.init_weights(**INIT)
    return vqvae.eval(), var.to(device).eval()


@dataclass
class Pair:
    """Both sides with equal weights on one device: the public models, our tokenizer, and what our
    models are imported from, on the CPU, where imported ones are kept to be copied."""

    vqvae: Any
    var: Any
    tokenizer: Tokenizer
    config: ModelConfig
    var_state: dict[str, torch.Tensor]
    device: torch.device
    kept: dict[str, ScaleTransformer] = field(default_factory=dict)

    def ours(self, variant: str) -> ScaleTransformer:
        """Our model of a variant (VAR, SDD) in float32, in evaluation mode."""
        if variant not in self.kept:
            history = HISTORIES[variant]
            self.kept[variant] = import_model(self.var_state, PATCH_NUMS, history=history)
        return copy.deepcopy(self.kept[variant]).to(self.device)

    def config_of(self, variant: str) -> ModelConfig:
        """The settings of that model."""
        return self.config.model_copy(update={"history": HISTORIES[variant]})

    @property
    def ladder(self) -> Ladder:
        """Our quantizer with the schedule."""
        return self.tokenizer.at(self.config.schedule)

    def decode(self, f_hat_BChw: torch.Tensor) -> torch.Tensor:
        """Images in [-1, 1] by the public decoder."""
        images: torch.Tensor = type(self.vqvae).fhat_to_img(self.vqvae, f_hat_BChw)
        return images

    def free_caches(self) -> None:
        """Drop the keys and values that a sample cut short leaves in the public model."""
        for block in self.var.blocks:
            block.attn.kv_caching(False)


def build_pair(
    path: Path, depth: int, width: int, channels: int, device: torch.device, seed: int = 0
) -> Pair:
    """The public models from a seed, and ours with their weights. Raises ConfigError for a folder
    that is no checkout."""
    torch.manual_seed(seed)
    vqvae, var = public_models(path, depth, width, channels, device)
    var_state = {key: x.cpu() for key, x in var.state_dict().items()}
    vqvae_state = {key: x.cpu() for key, x in vqvae.state_dict().items()}
    tokenizer, model = import_official(vqvae_state, var_state)
    return Pair(vqvae, var, tokenizer.to(device), model.config, var_state, device)


def random_batch(
    pair: Pair, batch: int, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random tokens_BL, what the model reads of them, inputs_BLC, and labels_B."""
    source = torch.Generator().manual_seed(seed)
    tokens_BL = torch.randint(V, (batch, pair.config.schedule.seq_len), generator=source)
    tokens_BL = tokens_BL.to(pair.device)
    labels_B = torch.arange(batch, device=pair.device) % CLASSES
    with torch.no_grad():
        return tokens_BL, pair.ladder.teacher_forced_inputs(tokens_BL), labels_B


@contextmanager
def _full_convolutions() -> Iterator[None]:
    """Convolutions of a GPU with all digits of float32, of which torch's default, TF32, keeps
    three: inputs that differ in the last digit would differ by 5e-4 after phi."""
    kept, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = kept


@torch.no_grad()
def disagreement(pair: Pair, batch: int = 2) -> float:
    """Largest difference of teacher-forced logits_BLV of both sides in float32, over their standard
    deviation.

    Each side makes its inputs from the same tokens. The public forward pass drops classes at random
    also in evaluation mode: not here.
    """
    kept, pair.var.cond_drop_rate = pair.var.cond_drop_rate, 0.0
    with _full_convolutions():
        tokens_BL, inputs_BLC, labels_B = random_batch(pair, batch, seed=1)
        by_scale = [tokens_BL[:, piece] for piece in pair.config.schedule.slices]
        theirs = pair.var(labels_B, pair.vqvae.quantize.idxBl_to_var_input(by_scale))
        ours = pair.ours("VAR")(inputs_BLC, labels_B)
    pair.var.cond_drop_rate = kept
    return float((ours - theirs).abs().max() / theirs.std())


def attention_path(pair: Pair, masked: bool, precision: str) -> str:
    """Which attention the public code takes: flash_attn, xformers or torch's own.

    Its flash attention takes no mask, and no float32.
    """
    attention = pair.var.blocks[0].attn
    if attention.using_flash and not masked and precision != "float32":
        return "using_flash"
    return "using_xform" if attention.using_xform else "sdpa"


def autocast_of(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Products in bfloat16 where that is the precision."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def public_sampling(pair: Pair, batch: int, precision: str) -> Callable[[], torch.Tensor]:
    """A call that draws one batch with the public sampler, up to the state f_hat_BChw."""
    # its sampler ends with the decoder, which is timed apart
    pair.vqvae.fhat_to_img = lambda f_hat_BChw: f_hat_BChw
    labels_B = torch.arange(batch, device=pair.device) % CLASSES

    def sample() -> torch.Tensor:
        with autocast_of(pair.device, precision):
            f_hat_BChw: torch.Tensor = pair.var.autoregressive_infer_cfg(
                batch, labels_B, cfg=CFG, top_k=TOP_K, top_p=TOP_P
            )
        return f_hat_BChw

    return sample
