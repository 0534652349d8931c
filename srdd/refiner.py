"""What quantisation lost, given back: a small network that moves a restored state towards the
continuous latent of the clean image (refiner of RestoreVAR, arXiv 2505.18047).

B batch, L tokens of all scales, C latent channels, D width of the model, W of the refiner, h w
latent grid, M = h w
"""

from __future__ import annotations

import torch
from torch import nn

from .model import ScaleTransformer
from .noise import truncated_normal_
from .quantizer import Ladder


@torch.no_grad()
def rolled_out(
    model: ScaleTransformer, ladder: Ladder, degraded_BChw: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The likeliest code of every scale after the model's own coarser ones (RestoreVAR, arXiv
    2505.18047): the state f_hat_BChw and what the head read, hidden_BLD. Never teacher-forced."""
    labels_B = torch.zeros(len(degraded_BChw), dtype=torch.long, device=degraded_BChw.device)
    denoise, ladder = model.denoiser(degraded_BChw), ladder.read_as(model.config.state)
    f_hat_BChw = seen_BChw = ladder.empty_state(len(degraded_BChw))
    features = []
    for k in range(ladder.schedule.num_scales):
        hidden_BlD = denoise.hidden(ladder.read_scale(seen_BChw, k), k, labels_B)
        tokens_Bl = denoise.head(hidden_BlD).argmax(-1)
        f_hat_BChw, seen_BChw = ladder.after(f_hat_BChw, ladder.quantizer.embed(tokens_Bl), k)
        features.append(hidden_BlD.float())
    return f_hat_BChw, torch.cat(features, 1)


class LatentRefiner(nn.Module):
    """Cells of a state attend to one another and to the features of all scales; what comes out is
    added to the state, at first nothing (RestoreVAR, arXiv 2505.18047; learned positions)."""

    def __init__(
        self, channels: int, side: int, features: int, depth: int, width: int, heads: int
    ) -> None:
        super().__init__()
        self.norm, self.input = nn.LayerNorm(channels), nn.Linear(channels, width)
        self.memory = nn.Linear(features, width)
        self.position_MW = nn.Parameter(torch.empty(side * side, width))
        layer = nn.TransformerDecoderLayer(
            width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerDecoder(layer, depth, nn.LayerNorm(width))
        self.output = nn.Linear(width, channels)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw every matrix from one generator; gains are 1, shifts 0, and the output is 0."""
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                std = parameter.shape[-1] ** -0.5
                truncated_normal_(parameter, std, generator)
        nn.init.zeros_(self.output.weight)

    def forward(self, f_hat_BChw: torch.Tensor, hidden_BLD: torch.Tensor) -> torch.Tensor:
        """A refined state. hidden_BLD: of `rolled_out`. Shape is kept."""
        cells_BMC = f_hat_BChw.flatten(2).transpose(1, 2)
        x_BMW = self.input(self.norm(cells_BMC)) + self.position_MW
        added_BMC = self.output(self.layers(x_BMW, self.memory(hidden_BLD)))
        added_BChw: torch.Tensor = added_BMC.transpose(1, 2).unflatten(2, f_hat_BChw.shape[2:])
        return f_hat_BChw + added_BChw
