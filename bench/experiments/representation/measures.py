"""What an encoder's z says of an image: its class, its fine detail, its pixels. Imports no torch.

N images, M training images, Z numbers of an encoder, L tokens, T targets
"""

from __future__ import annotations

import numpy as np

RIDGE = 1.0  # of the ridge regressions, on standardised z
PROBE = 1.0  # C of the logistic regression, on standardised z
DETAIL = ("ink", "centre_x", "centre_y", "var_x", "var_y", "cov")


def standardised(train_MZ: np.ndarray, test_NZ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both with mean 0 and deviation 1 of the training images; a constant number becomes 0."""
    mean_Z, deviation_Z = train_MZ.mean(0), train_MZ.std(0)
    deviation_Z = np.where(deviation_Z > 1e-8, deviation_Z, np.inf)
    return (train_MZ - mean_Z) / deviation_Z, (test_NZ - mean_Z) / deviation_Z


def probe_accuracy(
    train_MZ: np.ndarray, labels_M: np.ndarray, test_NZ: np.ndarray, labels_N: np.ndarray
) -> float:
    """Accuracy of a logistic regression on standardised z, scikit-learn's with C = 1."""
    from sklearn.linear_model import LogisticRegression

    train_MZ, test_NZ = standardised(train_MZ, test_NZ)
    probe = LogisticRegression(C=PROBE, max_iter=2000).fit(train_MZ, labels_M)
    return float(probe.score(test_NZ, labels_N))


def knn_accuracy(
    train_MZ: np.ndarray,
    labels_M: np.ndarray,
    test_NZ: np.ndarray,
    labels_N: np.ndarray,
    neighbours: int,
) -> float:
    """Accuracy of the vote of the nearest training images by cosine."""
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(neighbours, metric="cosine").fit(train_MZ, labels_M)
    return float(voters.score(test_NZ, labels_N))


def ridge_r2(
    train_MZ: np.ndarray, wanted_MT: np.ndarray, test_NZ: np.ndarray, wanted_NT: np.ndarray
) -> tuple[np.ndarray, float]:
    """R2 on test images of a ridge regression from standardised z: of every target, and of all
    weighted by their variance."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    train_MZ, test_NZ = standardised(train_MZ, test_NZ)
    predicted_NT = Ridge(alpha=RIDGE).fit(train_MZ, wanted_MT).predict(test_NZ)
    each_T = r2_score(wanted_NT, predicted_NT, multioutput="raw_values")
    return each_T, float(r2_score(wanted_NT, predicted_NT, multioutput="variance_weighted"))


def detail_of(images_NCHW: np.ndarray) -> np.ndarray:
    """Moments of the ink of uint8 images, brightness as mass: how much, where, how wide, how
    slanted, in the order of DETAIL; in pixels. An image without ink lies in the middle. Returns
    float64 (N, 6)."""
    ink_NHW = images_NCHW.astype(np.float64).mean(1) / 255
    mass_N = ink_NHW.sum((1, 2))
    side = ink_NHW.shape[-1]
    share_NHW = ink_NHW / np.maximum(mass_N, 1e-12)[:, None, None]
    place = np.arange(side) - (side - 1) / 2
    x_N, y_N = (share_NHW.sum(axis) @ place for axis in (1, 2))
    far_NX, far_NY = (place[None] - centre_N[:, None] for centre_N in (x_N, y_N))
    var_x_N = (share_NHW.sum(1) * far_NX**2).sum(1)
    var_y_N = (share_NHW.sum(2) * far_NY**2).sum(1)
    cov_N = np.einsum("nyx,nx,ny->n", share_NHW, far_NX, far_NY)
    return np.stack((mass_N, x_N, y_N, var_x_N, var_y_N, cov_N), 1)


def units(z_NZ: np.ndarray) -> np.ndarray:
    """Vectors over their lengths, float64; one of zeros stays."""
    z_NZ = z_NZ.astype(np.float64)
    return z_NZ / np.maximum(np.linalg.norm(z_NZ, axis=1, keepdims=True), 1e-12)


def class_distances(z_NZ: np.ndarray, labels_N: np.ndarray) -> tuple[float, float]:
    """Mean cosine distance of two images of one class, and of two of different classes."""
    cosine_NN = units(z_NZ) @ units(z_NZ).T
    same_NN = labels_N[:, None] == labels_N[None]
    apart_NN = ~np.eye(len(z_NZ), dtype=bool)
    return (
        float(1 - cosine_NN[same_NN & apart_NN].mean()),
        float(1 - cosine_NN[~same_NN].mean()),
    )


def blind_pairs(
    z_NZ: np.ndarray, labels_N: np.ndarray, tokens_NL: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of one class with different tokens and the highest cosines of z: what an encoder
    all but confuses (MMVP, arXiv 2401.06209). Returns places (count, 2) and cosines, highest first,
    of equal ones the first. Raises ValueError for fewer such pairs."""
    unit_NZ, places, cosines = units(z_NZ), [], []
    for label in np.unique(labels_N):
        rows_n = np.flatnonzero(labels_N == label)  # of one image there is no pair
        first, second = np.triu_indices(len(rows_n), 1)
        a, b = rows_n[first], rows_n[second]
        differ = (tokens_NL[a] != tokens_NL[b]).any(1)
        places.append(np.stack((a, b), 1)[differ])
        cosines.append((unit_NZ[a] * unit_NZ[b]).sum(1)[differ])
    pairs_P2, cosine_P = np.concatenate(places), np.concatenate(cosines)
    if len(pairs_P2) < count:
        raise ValueError(
            f"representation.pairs: {count}: the test images that are measured have "
            f"{len(pairs_P2)} pairs of one class with different tokens; give fewer"
        )
    best = np.lexsort((pairs_P2[:, 1], pairs_P2[:, 0], -cosine_P))[:count]
    return pairs_P2[best], cosine_P[best]
