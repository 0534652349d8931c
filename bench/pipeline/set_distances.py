"""Distances between two sets of feature vectors or images, block by block.

No N x M matrix is ever whole in memory. All in float64; features in float32 are made float64 piece
by piece.

N real or first images, M generated or second ones, D numbers of each, Y classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .datasets import AnyImages, to_float
from .features import batches

BLOCK = 2**23  # numbers of a block of distances: 64 MiB
WIDE = 2**25  # numbers of a set that are float64 at once: 256 MiB
NEIGHBOURS = 5  # k of density and coverage, as their paper recommends
MOST_PIXELS = 32 * 32 * 3  # numbers of an image whose covariance is taken as it is
REDUCED = 16  # side of larger images, by area


def _blocks(count: int, width: int) -> Iterator[slice]:
    rows = max(1, BLOCK // max(1, width))
    return (slice(i, min(i + rows, count)) for i in range(0, count, rows))


# ---------------------------------------------------------------- KID


def _cubic(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    """KID's kernel of all pairs, (x . y / D + 1)^3."""
    return (x_ND @ y_MD.T).div_(x_ND.shape[1]).add_(1).pow_(3)


def kernel_within(x_ND: torch.Tensor) -> float:
    """Mean of KID's kernel over all pairs of different images of one set, as the unbiased MMD takes
    it (arXiv 1801.01401). x_ND: float64, two rows or more."""
    count, total = len(x_ND), 0.0
    for rows in _blocks(count, count):  # the kernel is symmetric: only pairs from the diagonal on
        block = _cubic(x_ND[rows], x_ND[rows.start :])
        square = block[:, : len(block)]
        total += 2 * block.sum().item() - square.sum().item() - square.diagonal().sum().item()
    return total / (count * (count - 1))


def kernel_between(x_ND: torch.Tensor, y_MD: torch.Tensor) -> float:
    """Mean of KID's kernel over all pairs of two sets (arXiv 1801.01401). Both float64."""
    total = sum(_cubic(x_ND[rows], y_MD).sum().item() for rows in _blocks(len(x_ND), len(y_MD)))
    return total / (len(x_ND) * len(y_MD))


# ---------------------------------------------------------------- density and coverage


def widened(x_ND: torch.Tensor) -> torch.Tensor:
    """Features in float64, or as they are where they are so many that `_squared_distances` does it
    piece by piece."""
    return x_ND.double() if x_ND.numel() <= WIDE else x_ND


def _squared_distances(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    """||x - y||^2 of all pairs in float64, of as many y at a time as are float64 at once."""
    x_ND, size = x_ND.double(), max(1, WIDE // y_MD.shape[1])
    if len(y_MD) <= size:
        return _squared_distances_at_once(x_ND, y_MD.double())
    # filled, and not joined: small pieces that stay would cut up the memory of large ones that go
    whole_NM = x_ND.new_empty(len(x_ND), len(y_MD))
    for i in range(0, len(y_MD), size):
        piece_MD = y_MD[i : i + size].double()
        whole_NM[:, i : i + size] = _squared_distances_at_once(x_ND, piece_MD)
    return whole_NM


def _squared_distances_at_once(x_ND: torch.Tensor, y_MD: torch.Tensor) -> torch.Tensor:
    """||x - y||^2 of all pairs as ||x||^2 - 2 x . y + ||y||^2: one matrix product, rounding as in
    float64."""
    products_NM = (x_ND @ y_MD.T).mul_(-2)
    return products_NM.add_(_lengths(x_ND)[:, None]).add_(_lengths(y_MD))


def _rounding(x_ND: torch.Tensor, y_MD: torch.Tensor) -> float:
    """What `_squared_distances` may leave of equal rows: its terms cancel, their rounding stays,
    which differs from one processor to the next."""
    longest = [_lengths(z_ND).max().item() for z_ND in (x_ND, y_MD)]
    return x_ND.shape[1] * torch.finfo(torch.float64).eps * sum(longest)


def _lengths(x_ND: torch.Tensor) -> torch.Tensor:
    """||x||^2 of each row; the squares of all rows at once would be as much memory as they are."""
    parts = [x_ND[rows].square().sum(1) for rows in _blocks(len(x_ND), x_ND.shape[1])]
    return torch.cat(parts) if parts else x_ND.new_empty(0)


def squared_radii(x_ND: torch.Tensor, k: int = NEIGHBOURS) -> torch.Tensor:
    """Squared distance of every real image to its k-th nearest other one (arXiv 2002.09797, NND_k),
    0 where k others equal it. x_ND: `widened`, with more than k rows; float64 of shape (N,)."""
    radii = []
    for rows in _blocks(len(x_ND), len(x_ND)):
        block = _squared_distances(x_ND[rows], x_ND)
        block[:, rows].fill_diagonal_(torch.inf)  # an image is no neighbour of itself
        radii.append(block.topk(k, 1, largest=False).values[:, -1])
    return _without_rounding(torch.cat(radii), _rounding(x_ND, x_ND))


def _without_rounding(squared: torch.Tensor, rounding: float) -> torch.Tensor:
    """Squared distances, in place: 0 where rounding alone may have left something, NaN where one
    was."""
    return squared.masked_fill_(squared <= rounding, 0.0)


def density_coverage(
    x_ND: torch.Tensor, radii_N: torch.Tensor, y_MD: torch.Tensor, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Density and coverage of generated images (arXiv 2002.09797): of all pairs, the share
    of k whose generated image lies in the real one's ball; and the share of balls with one inside.

    x_ND: real; radii_N: their `squared_radii`; y_MD: generated; both `widened`. Density: balls of
    real images that hold a generated one, over k; 1 on average for real ones, and may exceed 1.
    Coverage: share of real images whose ball holds a generated one. A ball is open, as in the
    authors' code.
    """
    inside, covered = 0, 0
    # an open ball of no radius holds nothing, also where rounding takes a distance below 0
    radii_N = radii_N.masked_fill(radii_N == 0, -torch.inf)
    for rows in _blocks(len(x_ND), len(y_MD)):
        within = _squared_distances(x_ND[rows], y_MD) < radii_N[rows, None]
        inside += int(within.sum())
        covered += int(within.any(1).sum())
    return inside / (k * len(y_MD)), covered / len(x_ND)


# ---------------------------------------------------------------- inside classes


def distance_within(x_ND: torch.Tensor) -> float:
    """Mean distance of all pairs of different images of one set (as LPIPS diversity, arXiv
    1711.11586, of any features). x_ND: `widened`, two rows or more."""
    count, total, rounding = len(x_ND), 0.0, _rounding(x_ND, x_ND)
    for rows in _blocks(count, count):
        block = _squared_distances(x_ND[rows], x_ND)
        total += _without_rounding(block, rounding).sqrt_().sum().item()
    return total / (count * (count - 1))


def spread_within(x_ND: torch.Tensor, labels_N: torch.Tensor) -> dict[int, float]:
    """`distance_within` (arXiv 1711.11586) of each class with two images or more. x_ND: `widened`;
    labels_N: int64."""
    spreads = {}
    for label in labels_N.unique().tolist():
        of_class_ND = x_ND[labels_N == label]
        if len(of_class_ND) > 1:
            spreads[label] = distance_within(of_class_ND)
    return spreads


# ---------------------------------------------------------------- nearest images


def nearest_squared(x_MD: torch.Tensor, others: Iterable[torch.Tensor]) -> torch.Tensor:
    """Squared distance of every image to the nearest of others, float64 of shape (M,).

    others: (B, D) each, read once and part by part. All float64.
    """
    nearest_M = torch.full((len(x_MD),), torch.inf, dtype=x_MD.dtype, device=x_MD.device)
    rounding = 0.0
    for other_BD in others:
        rounding = max(rounding, _rounding(x_MD, other_BD))
        for rows in _blocks(len(x_MD), len(other_BD)):
            least_B = _squared_distances(x_MD[rows], other_BD).amin(1)
            nearest_M[rows] = torch.minimum(nearest_M[rows], least_B)
    return _without_rounding(nearest_M, rounding)


def pixel_rows(images: AnyImages) -> torch.Tensor:
    """Pixels of uint8 images in [-1, 1] as float64 (N, D); images of more than 32 x 32 x 3 numbers
    are reduced to 16 x 16 by area."""
    return torch.cat([_pixels(images_BCHW).flatten(1) for images_BCHW in batches(images)])


# ---------------------------------------------------------------- pixels


@dataclass(frozen=True)
class PixelMoments:
    """Mean and covariance of a set's pixels in [-1, 1], and their variance inside classes."""

    shape: tuple[int, ...]
    mean_D: torch.Tensor
    covariance_DD: torch.Tensor
    variance: float | None


def _pixels(images_BCHW: torch.Tensor) -> torch.Tensor:
    """uint8 images as float64 in [-1, 1], reduced by area where they are large."""
    pixels_BCHW = to_float(images_BCHW).double()
    if pixels_BCHW[0].numel() > MOST_PIXELS and max(pixels_BCHW.shape[2:]) > REDUCED:
        pixels_BCHW = F.adaptive_avg_pool2d(pixels_BCHW, REDUCED)
    return pixels_BCHW


def pixel_moments(images: AnyImages, labels_N: torch.Tensor | None = None) -> PixelMoments:
    """Mean and covariance of pixels for FID's formula (arXiv 1706.08500), read batch by batch.

    images: uint8 (N, C, S, S); labels_N: int64, or None for one class. Pixels are in [-1, 1].
    Images of more than 32 x 32 x 3 numbers are reduced to 16 x 16 by area: a covariance has the
    square of as many. variance: trace of the covariance inside a class over D, averaged over the
    classes in their shares of the labels; a class of one image counts for nothing.
    """
    labels_N = torch.zeros(len(images), dtype=torch.long) if labels_N is None else labels_N
    classes, places_N = labels_N.unique(return_inverse=True)
    counts_Y = torch.bincount(places_N).double()
    squares_Y = torch.zeros(len(classes), dtype=torch.float64)
    at = 0
    for images_BCHW in batches(images):
        pixels_BCHW = _pixels(images_BCHW)
        x_BD = pixels_BCHW.flatten(1)
        if at == 0:
            shape, D = tuple(pixels_BCHW.shape[1:]), x_BD.shape[1]
            sums_YD, products_DD = x_BD.new_zeros(len(classes), D), x_BD.new_zeros(D, D)
        places_B = places_N[at : at + len(x_BD)]
        at += len(x_BD)
        sums_YD.index_add_(0, places_B, x_BD)
        squares_Y.index_add_(0, places_B, x_BD.square().sum(1))
        products_DD = products_DD + x_BD.T @ x_BD
    N = len(labels_N)
    mean_D = sums_YD.sum(0) / N
    covariance_DD = (products_DD - N * torch.outer(mean_D, mean_D)) / (N - 1)
    variance = _variance_inside(counts_Y, squares_Y, sums_YD)
    return PixelMoments(shape, mean_D, covariance_DD, variance)


def _variance_inside(
    counts_Y: torch.Tensor, squares_Y: torch.Tensor, sums_YD: torch.Tensor
) -> float | None:
    """Trace of the covariance inside a class over D, mean over classes in their shares.

    From the number of images of each class, the sums of their squares and their sums: the sum of
    squared distances from the mean is the sum of squares less the squared sum over the number.
    None where no class has two images.
    """
    several = counts_Y > 1
    if not several.any():
        return None
    inside_Y = squares_Y - sums_YD.square().sum(1) / counts_Y
    per_class = inside_Y[several] / (counts_Y[several] - 1) / sums_YD.shape[1]
    shares = counts_Y[several] / counts_Y[several].sum()
    return (shares * per_class).sum().item()


def root(covariance_DD: torch.Tensor) -> torch.Tensor:
    """Symmetric square root of a covariance, whose eigenvalues below 0 are rounding."""
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    return (vectors_DD * values_D.clamp(min=0).sqrt()) @ vectors_DD.T


def frechet(ours: PixelMoments, theirs: PixelMoments, root_DD: torch.Tensor) -> float:
    """Fréchet distance of two sets' pixels (arXiv 1706.08500), in squared units of pixels.

    root_DD: `root` of their covariance. The trace of the root of a product of two covariances is
    that of a symmetric matrix, whose eigenvalues cost a tenth of a general one's.
    """
    values_D = torch.linalg.eigvalsh(root_DD @ ours.covariance_DD @ root_DD)
    traces = ours.covariance_DD.trace() + theirs.covariance_DD.trace()
    apart = (ours.mean_D - theirs.mean_D).square().sum()
    return (apart + traces - 2 * values_D.clamp(min=0).sqrt().sum()).item()
