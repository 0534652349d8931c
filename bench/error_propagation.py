"""Verb: corrupt a share of the tokens of one scale in a sample, let the sampler go on with the same random numbers, and see what
becomes of the error.

For every scale s and share p: `drift_p<p>`, the relative distance of the final latent state to that of the clean sample;
`drift_direct_p<p>`, the same if all later tokens had stayed as they were; their quotient `drift_ratio_p<p>` is below 1 where later
scales repair and above 1 where they amplify. The scores of the corrupted set less those of the clean one, both against the held-out
split, are `fid_change_p<p>_<extractor>`.
"""

from __future__ import annotations

import numpy as np
import torch

from srdd.checkpoint import load_model, load_tokenizer
from srdd.config import SamplerConfig
from srdd.quantizer import Ladder
from srdd.sampling import generate
from srdd.zero_shot import corrupt_scale

from .config import ErrorPropagationConfig, EvaluationConfig, FeaturesConfig
from .datasets import to_uint8
from .metrics import Extractor, Scored, score
from .prepare import open_split
from .progress import Progress
from .sample import labels_of
from .train import model_identity
from .verb import Run, main


class Errors:
    """Clean samples of a model, and the same with errors put into one scale."""

    def __init__(self, run: Run) -> None:
        self.settings: ErrorPropagationConfig = run.settings("error_propagation", ErrorPropagationConfig)
        self.sampler: SamplerConfig = run.settings("sampler", SamplerConfig)
        evaluation: EvaluationConfig = run.settings("evaluation", EvaluationConfig)
        self.tokenizer = load_tokenizer(run.inputs["tokenizer"] / "tokenizer.safetensors").to(run.device)
        self.model = load_model(run.inputs["train"] / "model.safetensors").to(run.device)
        self.ladder: Ladder = self.tokenizer.at(self.model.schedule)
        self.first, self.batch, self.count = evaluation.first_seed, evaluation.batch_size, self.settings.num_images
        self.labels_N = labels_of(self.count, self.first, self.model.config.num_classes)
        self.device = run.device

    def batches(self) -> list[range]:
        return [range(i, min(i + self.batch, self.count)) for i in range(0, self.count, self.batch)]

    def clean(self, rows: range) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and final state of the pictures of these rows, as the sampler makes them."""
        return generate(self.model, self.ladder, self.labels(rows), self.seeds(rows), self.sampler)

    def labels(self, rows: range) -> torch.Tensor:
        return self.labels_N[rows.start : rows.stop].to(self.device)

    def seeds(self, rows: range) -> range:
        return range(self.first + rows.start, self.first + rows.stop)

    def wrong(self, rows: range, tokens_BL: torch.Tensor, k: int, share: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Final states after errors in scale k: with later scales drawn anew, and with later tokens as they were."""
        schedule, V = self.ladder.schedule, self.model.config.codebook_size
        known = corrupt_scale(schedule, tokens_BL, k, share, V, self.seeds(rows))
        drawn_BChw = generate(self.model, self.ladder, self.labels(rows), self.seeds(rows), self.sampler, known)[1]
        return drawn_BChw, self.ladder.decode(known.tokens_BL)

    @torch.no_grad()
    def pictures(self, f_hat_BChw: torch.Tensor) -> np.ndarray:
        return to_uint8(self.tokenizer.to_image(f_hat_BChw)).cpu().numpy()


def distance(clean_BChw: torch.Tensor, other_BChw: torch.Tensor) -> torch.Tensor:
    """||clean - other|| / ||clean|| of each picture."""
    return (clean_BChw - other_BChw).flatten(1).norm(dim=1) / clean_BChw.flatten(1).norm(dim=1)


@torch.no_grad()
def work(run: Run) -> None:
    errors = Errors(run)
    extractor = Extractor(run.settings("features", FeaturesConfig), run.device, run.inputs["features"])
    reference, metrics = open_split(run.inputs["data"], "test"), run.settings("evaluation", EvaluationConfig).metrics
    here = {**model_identity(run), "num_images": errors.count}
    here |= {"seed_first": errors.first, "seed_last": errors.first + errors.count - 1}
    asked_N = errors.labels_N.numpy() if errors.model.config.conditional else None

    def scores(parts: list[np.ndarray]) -> dict[str, tuple[float, str]]:
        return score(Scored(np.concatenate(parts), asked_N, reference, extractor), metrics)

    clean = [errors.clean(rows) for rows in errors.batches()]
    before = scores([errors.pictures(state) for _, state in clean])
    cells = [(k, share) for k in range(errors.ladder.schedule.num_scales) for share in errors.settings.shares]
    progress = Progress(run.run_id, errors.count * len(cells), unit="picture")
    for k, share in cells:
        drift, direct, images = [], [], []
        for rows, (tokens_BL, state_BChw) in zip(errors.batches(), clean):
            drawn_BChw, kept_BChw = errors.wrong(rows, tokens_BL, k, share)
            drift.append(distance(state_BChw, drawn_BChw))
            direct.append(distance(state_BChw, kept_BChw))
            images.append(errors.pictures(drawn_BChw))
            progress.advance(len(rows))
        far, near = torch.cat(drift).double().mean().item(), torch.cat(direct).double().mean().item()
        run.add(f"drift_p{share:g}", far, "share", scale=k, **here)
        run.add(f"drift_direct_p{share:g}", near, "share", scale=k, **here)
        run.add(f"drift_ratio_p{share:g}", far / near, "ratio", scale=k, **here)
        for name, (value, unit) in scores(images).items():
            metric, _, suffix = name.rpartition("_")
            run.add(f"{metric}_change_p{share:g}_{suffix}", value - before[name][0], unit, scale=k, **here)
    progress.close()


if __name__ == "__main__":
    main("error_propagation", work, inputs=("data", "tokenizer", "tokens", "train", "features"))
