"""The library's own entry: values of a wrong kind, size or range are one ValueError."""

import pytest
import torch

from srdd.checkpoint import (
    load_model,
    load_tensors,
    load_tokenizer,
    save_model,
    save_tensors,
    save_tokenizer,
)
from srdd.config import SamplerConfig, TokenizerConfig
from srdd.noise import generator
from srdd.sampling import generate
from srdd.schedule import ScaleSchedule
from srdd.tokenizer import Tokenizer
from srdd.zero_shot import known_prefix, replace_tokens

SCHEDULE = ScaleSchedule((1, 2, 3))
CONFIG = TokenizerConfig(
    patch_nums=(1, 2), codebook_size=7, codebook_dim=4, channels=4, channel_multipliers=(1,),
    num_res_blocks=1, attention=False, norm_groups=2, image_size=2, in_channels=1,
)  # fmt: skip


@pytest.fixture
def tokenizer():
    made = Tokenizer(CONFIG)
    made.init_weights(generator("tokenizer"))
    return made.eval()


IMAGES = {
    "bytes": torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
    "0 to 255": torch.full((2, 1, 2, 2), 127.0),
    "no numbers": torch.full((2, 1, 2, 2), float("nan")),
    "colour": torch.zeros(2, 3, 2, 2),
    "no batch": torch.zeros(1, 2, 2),
    "other size": torch.zeros(2, 1, 4, 4),
    "an array": torch.zeros(2, 1, 2, 2).numpy(),
}


@pytest.mark.parametrize("case", IMAGES)
def test_images_of_a_tokenizer(tokenizer, case):
    """Catches bytes that are taken for images in [-1, 1], NaN that becomes tokens, and torch's own
    tracebacks."""
    with pytest.raises(ValueError, match="^images: .*must be"):
        tokenizer.encode(IMAGES[case])
    assert tokenizer.encode(torch.full((2, 1, 2, 2), -1.0)).shape == (2, 5)


TOKENS = {
    "below": torch.full((2, 5), -1),
    "above": torch.full((2, 5), 8),
    "short": torch.zeros(2, 4, dtype=torch.int64),
    "long": torch.zeros(2, 10, dtype=torch.int64),
    "floats": torch.zeros(2, 5),
    "no batch": torch.zeros(5, dtype=torch.int64),
}


@pytest.mark.parametrize("case", TOKENS)
def test_tokens_of_a_tokenizer(tokenizer, case):
    """Catches tokens of another schedule that are cut off, and numbers above V taken for absent."""
    with pytest.raises(ValueError, match="^tokens: .*must be"):
        tokenizer.decode(TOKENS[case])
    assert tokenizer.decode(torch.full((2, 5), 7)).shape == (2, 1, 2, 2)


def test_files_with_unsound_weights(tokenizer, make_model, tmp_path):
    """Catches NaN, integers and settings of another kind in a file that reads without a word."""
    model = make_model()
    for module, save, load in (
        (tokenizer, save_tokenizer, load_tokenizer),
        (model, save_model, load_model),
    ):
        path = tmp_path / "x.safetensors"
        save(path, module)
        load(path)
        tensors, about = load_tensors(path)
        name = sorted(tensors)[0]
        for value in (float("nan"), float("inf")):
            spoilt = {**tensors, name: torch.full_like(tensors[name], value)}
            save_tensors(path, spoilt, **about)
            with pytest.raises(ValueError, match=f"x.safetensors: {name} holds NaN or inf"):
                load(path)
        save_tensors(path, {**tensors, name: tensors[name].long()}, **about)
        with pytest.raises(
            ValueError, match=f"x.safetensors: weights do not fit: {name} holds torch.int64"
        ):
            load(path)
        for config in (
            "text",
            {**about["config"], "patch_nums": [2, 1]},
            {**about["config"], "new": 1},
        ):
            save_tensors(path, tensors, **{**about, "config": config})
            with pytest.raises(ValueError, match="x.safetensors: [^\n]*$"):
                load(path)


WRONG = {
    "seeds": (3, "must be whole numbers"),
    "config": ({"name": "var"}, "config: dict: must be a SamplerConfig"),
    "known": ((1, 2), "known: tuple: must be a Known"),
    "ladder": (None, "ladder: NoneType: must be a Ladder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_kinds_of_a_request(make_model, make_ladder, name):
    """Catches an AttributeError for an argument of another kind."""
    value, words = WRONG[name]
    asked = {"ladder": make_ladder(SCHEDULE), "seeds": [0, 1], "config": SamplerConfig()}
    with pytest.raises(ValueError, match=words):
        generate(make_model(), labels_B=torch.tensor([0, 1]), **{**asked, name: value})


def test_known_and_replaced_tokens_fit():
    """Catches a prefix that counts from the end, and images without a seed that stay as they
    are."""
    tokens_BL = torch.zeros(2, 14, dtype=torch.int64)
    for count, tokens, words in (
        (-1, tokens_BL, "count -1"),
        (4, tokens_BL, "count 4"),
        (1, tokens_BL[:, :5], "tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            known_prefix(SCHEDULE, count, tokens)
    for change, words in (
        ({"seeds": [0]}, "1 seeds for 2"),
        ({"share": 1.5}, "share 1.5"),
        ({"k": 3}, "k 3"),
        ({"share": -0.5}, "share"),
    ):
        with pytest.raises(ValueError, match=words):
            replace_tokens(
                tokens_BL,
                SCHEDULE,
                **{"k": 2, "share": 0.5, "seeds": [0, 1], "codebook_size": 7, **change},
            )
