"""What a key alone decides."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.core.errors import InputError
from guard.flow import _object_keys


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("incoming/resnet18-clean/model.safetensors", "resnet18-clean"),
        ("model.v1.safetensors", "model"),
        ("a/b/ResNet 18 (best)!/m.pt", "resnet-18-best"),
        ("x/model.v1/m.pt", "model-v1"),
        ("x/-rf/m.pt", "rf"),
        ("x/__init__/m.pt", "init"),
        ("x/CON/m.pt", "con"),
        ("x/..%2f..%2fetc/m.pt", "2f-2fetc"),
        ("a//m.pt", "a"),
        ("x/my-token-model/m.pt", "my-tkn-model"),
        ("x/TokenToken/m.pt", "tkntkn"),
        ("x/totokenken/m.pt", "totknken"),
        # A Cyrillic letter that looks like e, a Kelvin sign that lower-cases to k, a full-width r:
        # none becomes ASCII.
        ("x/r\u0435snet/m.pt", "r-snet"),
        ("x/\u212aa/m.pt", "a"),
        ("x/\uff52esnet/m.pt", "esnet"),
        ("x/" + "n" * 300 + "/m.pt", "n" * 63),
    ],
)
def test_names_are_the_last_folder_in_plain_letters(key: str, name: str) -> None:
    assert _object_keys.model_name(key) == name


@pytest.mark.parametrize("key", ["x/模型/m.pt", "x/---/m.pt", "x/../m.pt", ".pt"])
def test_a_key_that_gives_no_name_says_what_to_do(key: str) -> None:
    with pytest.raises(InputError, match="upload the model into a folder"):
        _object_keys.model_name(key)


@given(st.text(max_size=200))
def test_every_name_keeps_to_the_grammar_of_serving(key: str) -> None:
    try:
        name = _object_keys.model_name(key)
    except InputError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name)
    assert "token" not in name


@pytest.mark.parametrize(
    "key",
    [
        "a/README.md",
        "a/README",
        "LICENSE.txt",
        "a/tokenizer.json",
        "a/b.PNG",
        ".gitattributes",
        "a/index.html",
        "a/folder/",
        "a/model.sha256",
        "a/my.config.json",
        "notes.yml",
    ],
)
def test_companions_of_a_model_are_ignored_with_a_reason(key: str) -> None:
    assert _object_keys.not_a_model(key)


@pytest.mark.parametrize(
    "key",
    [
        "a/m.safetensors",
        "a/m.pt",
        "a/pytorch_model.bin",
        "a/m",
        "a/m.pkl",
        "a/m.mar",
        "a/m.xyz",
        "a/config.json",
        "config.json",
        "a/readme/m.pt",
        "a/m.txt.bin",
        "a/m.onnx",
        "a/m.gguf",
    ],
)
def test_everything_else_is_looked_at_since_formats_are_known_by_content(key: str) -> None:
    assert _object_keys.not_a_model(key) == ""


@pytest.mark.parametrize(
    "word", ["a\0b", "a\nb", "\x1b[31m", "\u202egpj.pt", "a\ud800", "", "x" * 1025, "ü" * 513]
)
def test_keys_that_cannot_be_stored_or_shown_are_unusable_and_kept_escaped(word: str) -> None:
    assert _object_keys.unusable("bucket", word, None)
    assert _object_keys.shown(word).isprintable()
    assert len(_object_keys.shown(word)) <= _object_keys.MAX_KEY_BYTES


def test_ordinary_keys_in_any_script_are_usable_as_they_are() -> None:
    for word in ("in/a b+c/m.pt", "模型/ü.pt", "../../etc/passwd", "-rf"):
        assert _object_keys.unusable("bucket", word, "v1") == ""
        assert _object_keys.shown(word) == word


def test_buckets_and_versions_are_checked_too() -> None:
    assert _object_keys.unusable("b\0", "k", None)
    assert _object_keys.unusable("b", "k", "v" * 2000)
