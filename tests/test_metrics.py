"""Scores: the same numbers as torch-fidelity's own, against the held-out pictures or a given file, read batch by batch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bench import baselines
from bench.config import ConfigError, FeaturesConfig
from bench.datasets import ArrayPictures
from bench.features import Classifier
from bench.metrics import Extractor, Scored, score
from bench.reference import Reference, StreamedPictures, open_reference, read_reference
from srdd.schedule import ScaleSchedule
from stub_inception import StubInception

CPU, NAMES = torch.device("cpu"), ("fidelity", "class_agreement")


def pictures(seed, count=130, channels=3, shift=0):
    """Pictures of random colours, 8 pixels wide."""
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
    extractor = Extractor(FeaturesConfig(kind="inception", name="stub64", dim=64, **settings), CPU, Path("."))
    extractor.__dict__["network"] = StubInception()
    return extractor


def reference_file(path, seed=1, with_pictures=True, **changes):
    """An .npz as ADM's: statistics of stub features of some pictures, and the pictures."""
    images = pictures(seed)
    features = inception().features(images)[0].numpy().astype(np.float64)
    arrays = {"mu": features.mean(0), "sigma": np.cov(features, rowvar=False)}
    arrays |= {"arr_0": images.transpose(0, 2, 3, 1)} if with_pictures else {}
    arrays = {key: value for key, value in (arrays | changes).items() if value is not None}
    np.savez(path, **arrays)
    return images


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_are_those_of_torch_fidelity(channels):
    """Catches a score that is not what torch-fidelity itself gives: order of the sets, layers, subsets, splits, seeds."""
    generated, real, extractor = pictures(0, channels=channels), pictures(1, 150, channels), trained(channels)
    found = score(Scored(generated, np.arange(130) % 4, Reference(ArrayPictures(real, np.zeros(150))), extractor), NAMES)
    from torch_fidelity import calculate_metrics

    sets = [torch.utils.data.TensorDataset(torch.from_numpy(images)) for images in (generated, real)]
    for one in sets:
        one.__class__ = type("Plain", (torch.utils.data.TensorDataset,), {"__getitem__": lambda self, i: self.tensors[0][i]})
    theirs = calculate_metrics(
        input1=sets[0], input2=sets[1], cuda=False, batch_size=256, isc=True, fid=True, kid=True, prc=True, kid_subset_size=130,
        cache=False, save_cpu_ram=True, verbose=False, feature_extractor="tiny6",
    )  # fmt: skip
    assert found["fid_tiny6"][0] == theirs["frechet_inception_distance"]
    assert found["kid_tiny6"][0] == theirs["kernel_inception_distance_mean"]
    assert found["is_tiny6"][0] == theirs["inception_score_mean"]
    assert (found["precision_tiny6"][0], found["recall_tiny6"][0]) == (theirs["precision"], theirs["recall"])
    assert found["class_agreement_tiny6"][1] == "share"


@pytest.fixture
def held_out(tmp_path):
    """A folder of prepared data whose held-out pictures are unlike those of the reference file."""
    np.save(tmp_path / "test_images.npy", pictures(2, shift=90))
    np.save(tmp_path / "test_labels.npy", np.zeros(130, np.int64))
    (tmp_path / "data.json").write_text('{"kind": "arrays"}')
    return tmp_path


def numbers(generated, reference, extractor):
    return {name: value for name, (value, _) in score(Scored(generated, None, reference, extractor), NAMES).items()}


@pytest.mark.parametrize("with_pictures", [True, False])
def test_a_given_reference_is_what_scores_are_held_against(held_out, with_pictures):
    """Catches features.reference that is named in captions and not used, or KID, precision and recall taken from the wrong pictures."""
    real = reference_file(held_out / "ref.npz", with_pictures=with_pictures)
    extractor, generated = inception(reference=str(held_out / "ref.npz")), pictures(0)
    found = numbers(generated, open_reference(extractor.config, held_out), extractor)
    given, split = (
        numbers(generated, Reference(ArrayPictures(images, np.zeros(130))), extractor) for images in (real, pictures(2, shift=90))
    )
    assert found["fid_stub64"] == pytest.approx(given["fid_stub64"], rel=1e-3) != pytest.approx(split["fid_stub64"], rel=0.1)
    others = [name for name in found if not name.startswith("fid")]
    assert [found[name] for name in others] == [(given if with_pictures else split)[name] for name in others]
    assert given["kid_stub64"] != split["kid_stub64"]


def test_the_floor_of_a_reference_is_zero_for_its_own_pictures(held_out):
    """Catches statistics of other features than those that generated pictures get."""
    real = reference_file(held_out / "ref.npz")
    extractor = inception(reference=str(held_out / "ref.npz"))
    found = numbers(real, open_reference(extractor.config, held_out), extractor)
    assert abs(found["fid_stub64"]) < 1e-6 and found["precision_stub64"] == found["recall_stub64"] == 1


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
    """Catches a truncated file, a file that is no .npz, and another file than the one whose sum stands in the study."""
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
        assert isinstance(rows, slice), "one picture at a time is slow"
        part = self.images[rows]
        self.most = max(self.most, len(part))
        self.read_at.append(rows.start)
        return part


@pytest.mark.parametrize("make", [trained, inception])
def test_pictures_are_read_once_in_batches(make):
    """Catches a score that copies all pictures into memory, or reads them one by one: 50 000 of 256 pixels are 10 GB."""
    generated, real, extractor = Counting(pictures(0, 290)), Counting(pictures(1, 280)), make()
    reference = Reference(real)
    for _ in range(2):
        score(Scored(generated, np.arange(290) % 4, reference, extractor), ("fidelity",))
    assert generated.most == real.most == 256
    assert generated.read_at == [0, 256] * 2 and real.read_at == [0, 256], "the reference is read once for all"
    score(Scored(generated, np.arange(290) % 4, reference, extractor), ("class_agreement",))
    assert generated.most == 256


def test_pictures_of_a_reference_are_streamed(tmp_path):
    """Catches 10 000 pictures that are all read to look at some, a wrong order, or a stream that cannot be read twice."""
    real = reference_file(tmp_path / "ref.npz")
    stream = StreamedPictures(tmp_path / "ref.npz")
    for _ in range(2):
        parts = [stream.read(range(i, min(i + 50, len(stream)))) for i in range(0, len(stream), 50)]
        assert [len(part) for part in parts] == [50, 50, 30]
        assert np.array_equal(torch.cat(parts).numpy(), real)


def test_floor_and_reconstruction_are_never_all_in_memory(make_tokenizer):
    """Catches training pictures that are all read, or all decoded, before they are scored."""
    from bench.metrics import batches

    tokenizer, most = make_tokenizer(), []
    real = reconstruct = baselines.reconstruct
    schedule = ScaleSchedule(tokenizer.config.patch_nums)
    tokens_NL = np.arange(600 * schedule.seq_len).reshape(600, -1) % 7

    def counted(tokenizer, schedule, tokens_NL, device):
        most.append(len(tokens_NL))
        return reconstruct(tokenizer, schedule, tokens_NL, device)

    baselines.reconstruct = counted
    try:
        lazy = baselines.reconstruction(tokenizer, schedule, tokens_NL, CPU)
        found = torch.cat(list(batches(lazy)))
    finally:
        baselines.reconstruct = real
    assert most == [256, 256, 88] and np.array_equal(found.numpy(), reconstruct(tokenizer, schedule, tokens_NL, CPU))
    train = Counting(pictures(0, 600))
    train.read = lambda rows: (most.append(len(rows)), torch.from_numpy(train.images[rows]))[1]
    chosen = np.arange(0, 600, 2)
    assert np.array_equal(torch.cat(list(batches(baselines.some_of(train, chosen)))).numpy(), train.images[chosen])
    assert max(most) == 256
