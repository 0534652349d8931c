"""Scores: the same numbers as torch-fidelity's own, or as their formulas, against the held-out
images or a given file, read batch by batch."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.pipeline import baselines, metrics, set_distances
from bench.pipeline.datasets import ArrayImages
from bench.pipeline.features import Classifier
from bench.pipeline.metrics import UNITS, Extractor, Scored, score
from bench.pipeline.reference import (
    Chosen,
    Reference,
    StreamedImages,
    open_reference,
    read_reference,
)
from bench.runtime.quick_start import import_torch_fidelity
from bench.study.checks import RETURNS
from bench.study.errors import ConfigError
from bench.study.scores import bare_name, kid_is_exact, score_name
from bench.study.settings import FeaturesConfig
from srdd.noise import generator
from srdd.schedule import ScaleSchedule
from stub_inception import StubInception

CPU, NAMES = torch.device("cpu"), ("fidelity", "class_agreement")


def random_images(seed, count=130, channels=3, shift=0):
    """Images of random colours, 8 pixels wide."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.integers(0, 200, (count, channels, 8, 8)) + shift, 0, 255).astype(np.uint8)


def trained(channels=3):
    """An extractor of ours, its classifier at its first weights."""
    config = FeaturesConfig(kind="trained", name="tiny6", dim=6, channels=8)
    extractor = Extractor(config, CPU, Path("."))
    model = Classifier(config, channels=channels, image_size=8, num_classes=4)
    model.init_weights(0)
    extractor.__dict__["classifier"] = model.eval()  # as if read from its file
    return extractor


def inception(**settings):
    """An extractor of the kind inception without its 90 MB."""
    extractor = Extractor(
        FeaturesConfig(kind="inception", name="stub64", dim=64, **settings), CPU, Path(".")
    )
    extractor.__dict__["network"] = StubInception()
    return extractor


def test_weights_that_were_replaced_are_not_read(tmp_path):
    """Catches scores by another network beside those of the one that was checked first."""
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"one")
    config = FeaturesConfig(
        kind="inception",
        name="mine",
        weights=str(weights),
        sha256=hashlib.sha256(b"one").hexdigest(),
    )
    weights.write_bytes(b"other")
    with pytest.raises(ConfigError, match="features.weights: .*weights.pth has sha256"):
        _ = Extractor(config, CPU, tmp_path).network


def reference_file(path, seed=1, with_images=True, **changes):
    """An .npz as ADM's: statistics of stub features of some images, and the images."""
    images = random_images(seed)
    features = inception().features(images)[0].numpy().astype(np.float64)
    arrays = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    arrays |= {"arr_0": images.transpose(0, 2, 3, 1)} if with_images else {}
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez(path, **arrays)
    return images


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_are_those_of_torch_fidelity(channels, monkeypatch):
    """Catches a score that is not what torch-fidelity itself gives: order of the sets, layers,
    subsets, splits, seeds."""
    monkeypatch.setattr(metrics, "kid_is_exact", lambda *sizes: False)  # as of sets too large
    generated, real, extractor = (
        random_images(0, channels=channels),
        random_images(1, 150, channels),
        trained(channels),
    )
    found = score(
        Scored(
            generated, np.arange(130) % 4, Reference(ArrayImages(real, np.zeros(150))), extractor
        ),
        NAMES,
    )
    import_torch_fidelity()
    from torch_fidelity import calculate_metrics

    sets = [
        torch.utils.data.TensorDataset(torch.from_numpy(images)) for images in (generated, real)
    ]
    for one in sets:
        one.__class__ = type(
            "Plain",
            (torch.utils.data.TensorDataset,),
            {"__getitem__": lambda self, i: self.tensors[0][i]},
        )
    theirs = calculate_metrics(
        input1=sets[0], input2=sets[1], cuda=False, batch_size=256, isc=True, fid=True, kid=True,
        prc=True, kid_subset_size=130, cache=False, save_cpu_ram=True, verbose=False,
        feature_extractor="tiny6",
    )  # fmt: skip
    # features in float32 differ in their last digits with the batch on some processors
    for ours, name in (
        ("fid", "frechet_inception_distance"),
        ("kid", "kernel_inception_distance_mean"),
        ("is", "inception_score_mean"),
    ):
        assert found[f"{ours}_tiny6"][0] == pytest.approx(theirs[name], rel=1e-6)
    assert (found["precision_tiny6"][0], found["recall_tiny6"][0]) == (
        theirs["precision"],
        theirs["recall"],
    )
    assert found["class_agreement_tiny6"][1] == "share"


# ---------------------------------------------------------------- all pairs


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of a few rows, so that sets of a hundred have many and an uneven last one."""
    monkeypatch.setattr(set_distances, "BLOCK", 900)


def layers(generated, real, extractor):
    return [extractor.features(images)[0].double().numpy() for images in (generated, real)]


def test_kid_takes_all_pairs(small_blocks):
    """Catches pairs that are counted twice or left out at the border of blocks, an image compared
    with itself, and sets that are weighted by each other's number."""
    generated, real, extractor = random_images(0), random_images(1, 150, shift=30), trained()
    found = numbers(generated, Reference(real), extractor)["kid_tiny6"]
    x, y = layers(generated, real, extractor)
    xx, yy, xy = ((a @ b.T / 6 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    pairs = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)]
    assert found == pytest.approx(sum(pairs) - 2 * xy.mean(), rel=1e-9)
    import_torch_fidelity()
    from torch_fidelity.metric_kid import kid_features_to_metric

    two = [torch.from_numpy(features[:130]) for features in (x, y)]
    whole = kid_features_to_metric(*two, kid_subsets=1, kid_subset_size=130, verbose=False)
    ours = numbers(generated, Reference(real[:130]), extractor)["kid_tiny6"]
    assert ours == pytest.approx(whole["kernel_inception_distance_mean"], rel=1e-6)


def test_large_sets_keep_their_subsets():
    """Catches hours of pairs, and sets of the studies here that lose the exact number."""
    assert kid_is_exact(10_000, 10_000, 64) and kid_is_exact(50_000, 10_000, 64)
    assert not kid_is_exact(50_000, 50_000, 2048) and not kid_is_exact(10**6, 10_000, 64)


# ---------------------------------------------------------------- density and coverage


@pytest.mark.parametrize("shift", [0, 30])
def test_density_and_coverage_are_their_formulas(small_blocks, shift):
    """Catches balls round the wrong set, an image that is its own neighbour, another k, and rows
    that a block leaves out."""
    generated, real, extractor = random_images(0, shift=shift), random_images(1, 150), trained()
    found = score(Scored(generated, None, Reference(real), extractor), ("density_coverage",))
    x, y = layers(generated, real, extractor)
    between = np.linalg.norm(y[:, None] - y[None], axis=2)
    radii = np.sort(between, axis=1)[:, 5]  # the first is the image itself
    inside = np.linalg.norm(y[:, None] - x[None], axis=2) < radii[:, None]
    share = inside.sum() / (5 * len(x))
    assert found["density_tiny6"] == (pytest.approx(share, rel=1e-12), "ratio")
    assert found["coverage_tiny6"] == (pytest.approx(inside.any(1).mean(), rel=1e-12), "share")
    assert 0 < found["coverage_tiny6"][0] < 1


def test_one_image_again_and_again_covers_little():
    """Catches a coverage that a generator of one good image pleases, as it pleases precision."""
    real, extractor = random_images(1, 150), trained()
    scored = Scored(np.repeat(real[:1], 130, 0), None, Reference(real), extractor)
    found = score(scored, ("fidelity", "density_coverage"))
    assert found["precision_tiny6"][0] == 1 and found["coverage_tiny6"][0] < 0.2


def test_balls_of_real_images_that_are_all_alike_hold_nothing():
    """Catches density and coverage that are what rounding leaves, another on every processor: an
    open ball of no radius is empty, even of the image itself."""
    for seed in range(20):
        rows_ND = 1000 * torch.randn(3, 7, generator=generator(str(seed)), dtype=torch.float64)
        alike_ND = rows_ND.repeat(8, 1)
        radii_N = set_distances.squared_radii(alike_ND)
        assert radii_N.tolist() == [0.0] * 24
        assert set_distances.density_coverage(alike_ND, radii_N, rows_ND) == (0.0, 0.0)
        assert set_distances.nearest_squared(rows_ND, [alike_ND]).tolist() == [0.0] * 3


def test_what_is_no_number_stays_none():
    """Catches a NaN that becomes a distance of 0, the best there is."""
    x_ND = torch.randn(9, 4, generator=generator("nan"), dtype=torch.float64)
    x_ND[4, 2] = torch.nan
    assert np.isnan(set_distances.distance_within(x_ND))
    assert set_distances.nearest_squared(x_ND, [x_ND[:3]]).isnan().nonzero().tolist() == [[4]]


# ---------------------------------------------------------------- classification accuracy score


def by_brightness(count, seed, channels=1):
    """Dark and bright noise: the label is how bright an image is."""
    labels = np.arange(count) % 2
    images = random_images(seed, count, channels) // 2 + 120 * labels[:, None, None, None]
    return images.astype(np.uint8), labels


@pytest.mark.parametrize("kind", ["trained", "inception"])
def test_the_accuracy_is_of_what_the_generated_images_teach(monkeypatch, kind):
    """Catches a classifier that is trained on the reference, told other labels than those asked
    for, or that changes from one call to the next."""
    extractor = {"trained": lambda: trained(1), "inception": inception}[kind]()
    short = {"steps": 25, "batch_size": 32}
    object.__setattr__(extractor, "config", extractor.config.model_copy(update=short))
    monkeypatch.setattr(metrics, "FeaturesConfig", lambda **more: FeaturesConfig(**more, **short))
    images, labels = by_brightness(140, 0)
    real, truth = by_brightness(120, 1)
    name = f"cas_{extractor.config.name}"

    def of(asked):
        scored = Scored(images, asked, Reference(ArrayImages(real, truth)), extractor, True)
        return score(scored, ("classification_accuracy",))[name]

    assert of(labels) == (1.0, "share") == of(labels)
    assert of(1 - labels) == (0.0, "share")


def test_no_accuracy_where_there_is_none_to_have():
    """Catches a training for each of a sweep's sets, and an error where no labels are known."""
    images, labels = by_brightness(140, 0)
    known = Reference(ArrayImages(images, labels))
    for asked, reference, costly in (
        (labels, known, False),
        (None, known, True),
        (labels, Reference(images), True),
    ):
        scored = Scored(images, asked, reference, trained(1), costly=costly)
        assert score(scored, ("classification_accuracy",)) == {}


def test_the_accuracy_has_a_seed_of_its_own(monkeypatch):
    """Catches the extractor's own first weights and batches: both would err on the same images."""
    seen = []
    real = metrics.train_classifier
    heard = lambda *words: seen.append(words[4]) or real(*words)  # noqa: E731
    monkeypatch.setattr(metrics, "train_classifier", heard)
    images, labels = by_brightness(140, 0)
    for seed in (0, 1):
        extractor = trained(1)
        changes = {"steps": 1, "seed": seed}
        object.__setattr__(extractor, "config", extractor.config.model_copy(update=changes))
        known = Reference(ArrayImages(images, labels))
        score(Scored(images, labels, known, extractor, True), ("classification_accuracy",))
    assert len({*seen, 0, 1}) == 4


# ---------------------------------------------------------------- pixels


def pixel_scores(generated, labels, real):
    extractor = trained(generated.shape[1])
    return score(Scored(generated, labels, Reference(real), extractor), ("pixels",))


@pytest.mark.parametrize("channels, count", [(1, 300), (3, 130)])
def test_pixels_have_a_distance_of_their_own(channels, count):
    """Catches another scale than [-1, 1], a covariance that is divided wrongly, also of fewer
    images than pixels, and the extractor's name behind it."""
    generated, real = random_images(0, count, channels), random_images(1, 150, channels, shift=30)
    import_torch_fidelity()
    import torch_fidelity.metric_fid as theirs

    flat = [torch.from_numpy(x.reshape(len(x), -1) / 127.5 - 1) for x in (generated, real)]
    wanted = theirs.fid_statistics_to_metric(
        *(theirs.fid_features_to_statistics(x) for x in flat), verbose=False
    )["frechet_inception_distance"]
    found = pixel_scores(generated, None, real)
    assert found["fid_pixels"] == (pytest.approx(wanted, rel=1e-5), "score")
    assert set(found) == {"fid_pixels", "variance_pixels"}


def test_variance_is_inside_classes():
    """Catches the variance between classes, classes that all count the same, and a class of one
    image that counts as one without variance."""
    images = random_images(0, 301, 1)
    labels = np.r_[np.zeros(200, int), np.full(100, 7), [3]]
    images[labels == 7] = images[labels == 7] // 3 + 150
    flat = images.reshape(301, -1) / 127.5 - 1
    parts = [flat[labels == y].var(0, ddof=1).mean() for y in (0, 7)]
    found = pixel_scores(images, labels, images)["variance_pixels"]
    wanted = (200 * parts[0] + 100 * parts[1]) / 300
    assert found == (pytest.approx(wanted, rel=1e-6), "squared intensity")
    whole = pixel_scores(images, None, images)["variance_pixels"][0]
    assert whole == pytest.approx(flat.var(0, ddof=1).mean(), rel=1e-6) and whole > 1.2 * wanted


def test_a_variance_that_no_class_has_is_no_number():
    """Catches a 0.0, which is that of equal images, where every class has one image."""
    images = random_images(0, 130, 1)
    assert set(pixel_scores(images, np.arange(130), images)) == {"fid_pixels"}


def test_a_class_without_any_share_leaves_an_inception_score():
    """Catches 0 times the logarithm of 0: a network so sure that a class has no share at all."""
    logits_NV = torch.full((40, 3), -1000.0)
    logits_NV[torch.arange(40), torch.arange(40) % 2] = 0.0
    score = metrics.inception_score(logits_NV)
    assert score == pytest.approx(metrics.inception_score(logits_NV.clamp(min=-600.0)))
    assert 1.5 < score <= 2.0


def test_large_images_are_reduced_first():
    """Catches a covariance of 4096 numbers an image, and a reduction that is no mean over areas."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (120, 1, 64, 64)).astype(np.uint8)
    small = large.reshape(120, 1, 16, 4, 16, 4).mean((3, 5)).reshape(120, -1) / 127.5 - 1
    moments = set_distances.pixel_moments(large)
    assert moments.shape == (1, 16, 16)
    assert np.allclose(moments.covariance_DD, np.cov(small, rowvar=False), rtol=1e-4, atol=1e-7)
    assert set_distances.pixel_moments(random_images(0, 100, 3)).shape == (3, 8, 8)


def test_the_variance_inside_classes_counts_pairs_and_no_single_image():
    """Catches a class of two images that is left out, and one of a single image that counts."""
    images, labels = random_images(1, 6, 1), torch.tensor([0, 0, 1, 2, 2, 2])
    pixels = images.astype(float).reshape(6, -1) / 127.5 - 1
    inside = [pixels[np.array(rows)].var(0, ddof=1).mean() for rows in ([0, 1], [3, 4, 5])]
    found = set_distances.pixel_moments(images, labels).variance
    assert found == pytest.approx((2 * inside[0] + 3 * inside[1]) / 5)
    assert set_distances.pixel_moments(images[:2], torch.tensor([0, 1])).variance is None


def test_a_reference_of_another_shape_has_no_distance_of_pixels():
    """Catches grey images against a given file of colour: an error after all trainings."""
    assert set(pixel_scores(random_images(0, channels=1), None, random_images(1))) == {
        "variance_pixels"
    }


# ---------------------------------------------------------------- names


def test_metrics_give_what_a_study_may_name():
    """Catches a claim of a score that no metric gives, a score that no claim can name, and a unit
    of neither."""
    images, labels = by_brightness(140, 0)
    extractor = trained(1)
    short = extractor.config.model_copy(update={"steps": 1})
    object.__setattr__(extractor, "config", short)
    scored = Scored(images, labels, Reference(ArrayImages(images, labels)), extractor, True)
    given = set()
    for metric, names in RETURNS.items():
        found = score(scored, (metric,))
        assert list(found) == [score_name(name, "tiny6") for name in names], metric
        assert [bare_name(whole, "tiny6") for whole in found] == list(names)
        given |= set(names)
    assert set(UNITS) <= given and bare_name("kept_loss_test", "tiny6") is None


@pytest.fixture
def held_out(tmp_path):
    """A folder of prepared data whose held-out images are unlike those of the reference file."""
    np.save(tmp_path / "test_images.npy", random_images(2, shift=90))
    np.save(tmp_path / "test_labels.npy", np.zeros(130, np.int64))
    (tmp_path / "data.json").write_text('{"kind": "arrays"}')
    return tmp_path


def numbers(generated, reference, extractor):
    return {
        name: value
        for name, (value, _) in score(Scored(generated, None, reference, extractor), NAMES).items()
    }


@pytest.mark.parametrize("with_images", [True, False])
def test_a_given_reference_is_what_scores_are_held_against(held_out, with_images):
    """Catches features.reference that is named in captions and not used, or KID, precision and
    recall taken from the wrong images."""
    real = reference_file(held_out / "ref.npz", with_images=with_images)
    extractor, generated = inception(reference=str(held_out / "ref.npz")), random_images(0)
    found = numbers(generated, open_reference(extractor.config, held_out), extractor)
    given, split = (
        numbers(generated, Reference(ArrayImages(images, np.zeros(130))), extractor)
        for images in (real, random_images(2, shift=90))
    )
    assert (
        found["fid_stub64"]
        == pytest.approx(given["fid_stub64"], rel=1e-3)
        != pytest.approx(split["fid_stub64"], rel=0.1)
    )
    others = [name for name in found if not name.startswith("fid")]
    assert [found[name] for name in others] == [
        (given if with_images else split)[name] for name in others
    ]
    assert given["kid_stub64"] != split["kid_stub64"]


def test_the_floor_of_a_reference_is_zero_for_its_own_images(held_out):
    """Catches statistics of other features than those that generated images get."""
    real = reference_file(held_out / "ref.npz")
    extractor = inception(reference=str(held_out / "ref.npz"))
    found = numbers(real, open_reference(extractor.config, held_out), extractor)
    assert (
        abs(found["fid_stub64"]) < 1e-6 and found["precision_stub64"] == found["recall_stub64"] == 1
    )


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"sigma": None}, "sigma"),
        ({"mu": np.zeros(7)}, "dim 64"),
        ({"sigma": np.full((64, 64), np.nan)}, "finite"),
        ({"arr_0": np.zeros((130, 8, 8, 3), np.float32)}, "uint8"),
        ({"arr_0": np.zeros((130, 3, 8, 8), np.uint8)}, "(N, S, S, 3)"),
        ({"mu": np.array(["a"] * 64)}, "float"),
    ],
)
def test_bad_references_are_one_line(tmp_path, changes, words):
    """Catches a reference of another kind that gives a number, or a traceback."""
    reference_file(tmp_path / "ref.npz", **changes)
    with pytest.raises(ConfigError, match="features.reference") as error:
        read_reference(inception(reference=str(tmp_path / "ref.npz")).config)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_damaged_foreign_and_exchanged_references(tmp_path):
    """Catches a truncated file, a file that is no .npz,
    and another file than the one whose sum stands in the study."""
    path = tmp_path / "ref.npz"
    reference_file(path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no zip at all", b""):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"features\.reference.*ref\.npz"):
            read_reference(inception(reference=str(path)).config)
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match=f"{'0' * 64} expected"):
        read_reference(inception(reference=str(path), reference_sha256="0" * 64).config)


class Counting:
    """Stands for a memory-mapped array: gives slices, and remembers the largest."""

    def __init__(self, images):
        self.images, self.most, self.read_at = images, 0, []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        assert isinstance(rows, slice), "one image at a time is slow"
        part = self.images[rows]
        self.most = max(self.most, len(part))
        self.read_at.append(rows.start)
        return part


@pytest.mark.parametrize("make", [trained, inception])
def test_images_are_read_once_in_batches(make):
    """Catches a score that copies all images into memory, or reads them one by one:
    50 000 of 256 pixels are 10 GB."""
    generated, real, extractor = (
        Counting(random_images(0, 290)),
        Counting(random_images(1, 280)),
        make(),
    )
    reference = Reference(real)
    for _ in range(2):
        score(Scored(generated, np.arange(290) % 4, reference, extractor), ("fidelity",))
    batch = extractor.batch
    assert generated.most == real.most == batch < 280
    begins = list(range(0, 290, batch))
    assert generated.read_at == begins * 2, "all of it, batch by batch"
    assert real.read_at == begins, "the reference is read once for all"
    score(Scored(generated, np.arange(290) % 4, reference, extractor), ("class_agreement",))
    assert generated.most == batch


def test_images_of_a_reference_are_streamed(tmp_path):
    """Catches 10 000 images that are all read to look at some, a wrong order,
    or a stream that cannot be read twice."""
    real = reference_file(tmp_path / "ref.npz")
    stream = StreamedImages(tmp_path / "ref.npz")
    for _ in range(2):
        parts = [stream.read(range(i, min(i + 50, len(stream)))) for i in range(0, len(stream), 50)]
        assert [len(part) for part in parts] == [50, 50, 30]
        assert np.array_equal(torch.cat(parts).numpy(), real)


def test_floor_and_reconstruction_are_never_all_in_memory(make_tokenizer):
    """Catches training images that are all read, or all decoded, before they are scored."""
    from bench.pipeline.metrics import batches

    tokenizer, most = make_tokenizer(), []
    real = reconstruct = baselines.reconstruct
    schedule = ScaleSchedule(tokenizer.config.patch_nums)
    tokens_NL = np.arange(600 * schedule.seq_len).reshape(600, -1) % 7

    def counted(tokenizer, schedule, tokens_NL, device):
        most.append(len(tokens_NL))
        return reconstruct(tokenizer, schedule, tokens_NL, device)

    baselines.reconstruct = counted
    try:
        lazy = baselines.reconstruction(
            tokenizer, schedule, tokens_NL, np.arange(len(tokens_NL)), CPU
        )
        found = torch.cat(list(batches(lazy)))
    finally:
        baselines.reconstruct = real
    assert most == [256, 256, 88] and np.array_equal(
        found.numpy(), reconstruct(tokenizer, schedule, tokens_NL, CPU)
    )
    train = Counting(random_images(0, 600))
    train.read = lambda rows: (most.append(len(rows)), torch.from_numpy(train.images[rows]))[1]
    chosen = np.arange(0, 600, 2)
    assert np.array_equal(
        torch.cat(list(batches(Chosen(train, chosen)))).numpy(), train.images[chosen]
    )
    assert max(most) == 256
