"""Trainings of a tiny tokenizer, each with another loss: in this process, or by torchrun shared by
several, all in one start. In float64: rounding then turns no token, nor makes a step of a gradient
that is zero.

    python -m torch.distributed.run --nproc-per-node 2 tests/shared_trainings.py FOLDER
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F

from bench.pipeline import image_losses, tokenizer_trainer
from bench.pipeline.datasets import to_float
from bench.pipeline.perceptual import Perceptual
from bench.pipeline.tokenizer_trainer import TokenizerTrainer
from bench.runtime.ranks import join
from bench.study.tokenizer_settings import TokenizerSpec
from srdd.files import save_tensors
from srdd.noise import generator

SIZES = {
    "patch_nums": (1, 2, 4), "image_size": 8, "in_channels": 1, "codebook_size": 24,
    "codebook_dim": 4, "channels": 8, "channel_multipliers": (1, 2), "num_res_blocks": 1,
    "norm_groups": 2,
}  # fmt: skip
# a clip that some gradients meet: AdamW alone would not see a factor on all of them
TRAINING = {
    "steps": 8, "warmup": 2, "batch_size": 12, "clip": 0.5, "log_every": 2, "restart_every": 100,
    "discriminator": {"layers": 1, "channels": 8},
}  # fmt: skip
RESTARTS = {"restart_every": 2, "restart_share": 0.9}
CASES = {
    "pixels": {},
    "dropout": {"dropout": 0.4},
    "entropy": {"entropy": 0.5},
    "restarts": RESTARTS,
    "perceptual": {"perceptual": 0.7},
    "adversarial": {"adversarial": 0.8, "adversarial_start": 0.2},
    "all": {
        "dropout": 0.2, "entropy": 0.1, "perceptual": 0.7, "adversarial": 0.8, **RESTARTS
    },
}  # fmt: skip
KERNEL = torch.randn(5, 3, 3, 3, generator=generator("kernel"))


def small_stages(images_B3HW):
    """Activations of a made network, in place of a large one."""
    return [torch.tanh(F.conv2d(images_B3HW, KERNEL.to(images_B3HW), stride=2, padding=1))]


def write_images(folder, count=50):
    """Prepared images that differ in brightness: shares of a batch then differ in their means."""
    rng = np.random.default_rng(0)
    brightness_N = np.linspace(0.1, 1, count)
    images = rng.integers(0, 256, (count, 1, 8, 8)) * brightness_N[:, None, None, None]
    np.save(folder / "train_images.npy", images.astype(np.uint8))
    np.save(folder / "train_labels.npy", np.zeros(count, np.int64))
    (folder / "data.json").write_text(json.dumps({"kind": "arrays"}))


class Watched(TokenizerTrainer):
    """A training that counts the codes that it restarts."""

    restarted = 0

    def restart_codes(self, schedule, losses, source):
        before_VC = self.tokenizer.quantizer.codebook_VC.detach().clone()
        super().restart_codes(schedule, losses, source)
        after_VC = self.tokenizer.quantizer.codebook_VC.detach()
        self.restarted += int((before_VC != after_VC).any(1).sum())


def trainer_of(case, data, ranks):
    """The training of a case from its first step."""
    more = dict(CASES[case])
    config = {**SIZES, "dropout": more.pop("dropout", 0.0)}
    spec = {"config": config, "training": {**TRAINING, **more}}
    run = SimpleNamespace(
        ranks=ranks, device=torch.device("cpu"), inputs={"data": data}, files={}, config={},
        out=data, source="", run_id=case, say=print,
    )  # fmt: skip
    trainer = Watched(run, TokenizerSpec.model_validate(spec))
    trainer.resume.save_every = 10**6
    return trainer


def trained(case, data, ranks):
    """What a training of a case ends with: tensors, its log, how many codes were restarted."""
    small = Perceptual(small_stages, None, None)
    torch.set_default_dtype(torch.float64)
    try:
        with (
            patch.object(tokenizer_trainer, "to_float", lambda images: to_float(images).double()),
            patch.object(image_losses, "open_perceptual", lambda run, config: small),
        ):
            trainer = trainer_of(case, data, ranks)
            trainer.loop()
    finally:
        torch.set_default_dtype(torch.float32)
    tensors = {f"weights.{name}": value for name, value in trainer.tokenizer.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in trainer.average.weights.items()}
    tensors |= trainer.use.state() | trainer.image_losses.state()
    return tensors, [row._asdict() for row in trainer.log], trainer.restarted


def main(folder):
    """Every case, into a file for each process."""
    ranks = join()
    ranks.connect(torch.device("cpu"))
    for case in CASES:
        tensors, log, restarted = trained(case, folder, ranks)
        path = folder / f"{case}_{ranks.rank}.safetensors"
        save_tensors(path, tensors, log=log, restarted=restarted)
    ranks.close()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
