"""A ladder so small that its joint distribution can be written down, and a chi-square test against it."""

import itertools

import torch
from scipy import stats

from srdd.noise import generator
from srdd.quantizer import Quantizer
from srdd.schedule import ScaleSchedule

# probability that a correct sampler fails one test; the seeds are fixed, so a passing test stays passing
FALSE_ALARM = 1e-4


class Oracle:
    """Exact conditionals p(tokens of scale k | state read for scale k, label) on the schedule (1, 2).

    `denoise` is the contract of samplers. `joint` enumerates every sequence without the library's ladder: one code is
    spread over the 2 x 2 grid, and with phi_ratio 0 phi is the identity, so the state is that code itself.
    """

    schedule = ScaleSchedule((1, 2))

    def __init__(self, V: int = 3, C: int = 2, num_classes: int = 2) -> None:
        rng = generator("oracle")
        self.V = V
        self.weight_kCV = 1.5 * torch.randn(2, C, V, generator=rng, dtype=torch.float64)
        self.bias_klV = [torch.randn(n, V, generator=rng, dtype=torch.float64) for n in (1, 4)]
        self.label_yV = torch.randn(num_classes + 1, V, generator=rng, dtype=torch.float64)
        self.null_label = num_classes
        quantizer = Quantizer(V, C, num_phi=1, phi_ratio=0.0).double().requires_grad_(False)
        quantizer.codebook_VC.copy_(torch.randn(V, C, generator=rng, dtype=torch.float64))
        self.ladder = quantizer.at(self.schedule)
        self.calls = []

    def denoise(self, inputs_BlC, k, labels_B):
        self.calls.append((k, len(labels_B)))
        return inputs_BlC @ self.weight_kCV[k] + self.bias_klV[k] + self.label_yV[labels_B][:, None]

    def conditional(self, state_C, k, label, weights):
        """Probabilities (l, V) under guidance weights of both scales, from the definition u + w (c - u)."""
        base = state_C @ self.weight_kCV[k] + self.bias_klV[k]
        cond, uncond = base + self.label_yV[label], base + self.label_yV[self.null_label]
        return (uncond + weights[k] * (cond - uncond)).softmax(-1)

    def sequences(self):
        return list(itertools.product(range(self.V), repeat=self.schedule.seq_len))

    def joint(self, label, weights=(1.0, 1.0)):
        """Probability of each of `sequences()`."""
        codes_VC = self.ladder.quantizer.codebook_VC
        first = self.conditional(torch.zeros_like(codes_VC[0]), 0, label, weights)[0]
        second = [self.conditional(codes_VC[a], 1, label, weights) for a in range(self.V)]
        out = []
        for a, *rest in self.sequences():
            p = first[a]
            for i, b in enumerate(rest):
                p = p * second[a][i, b]
            out.append(float(p))
        return out

    def index(self, tokens_BL):
        """Place of each row of tokens in `sequences()`."""
        powers = self.V ** torch.arange(tokens_BL.shape[1] - 1, -1, -1)
        return (tokens_BL * powers).sum(1)


def chi_square(observed, probabilities):
    """p-value of counts under probabilities; cells expected under 5 are pooled. A correct sampler is under FALSE_ALARM with
    that probability. A count where the probability is 0 gives 0."""
    observed = torch.as_tensor(observed, dtype=torch.float64)
    expected = torch.as_tensor(probabilities, dtype=torch.float64) * observed.sum()
    if (observed[expected == 0] > 0).any():
        return 0.0
    small = expected < 5
    cells = [(o, e) for o, e in zip(observed[~small].tolist(), expected[~small].tolist())]
    if expected[small].sum() > 0:
        cells.append((float(observed[small].sum()), float(expected[small].sum())))
    if len(cells) == 1:  # all mass in one cell, and all counts are there
        return 1.0
    statistic = sum((o - e) ** 2 / e for o, e in cells)
    return float(stats.chi2.sf(statistic, len(cells) - 1))
