"""What a key alone decides."""

import pytest

from guard.flow import _object_keys


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
        "a/model.safetensors.index.json",
        "a/pytorch_model.bin.index.json",
        "config.json",
        "a/readme/m.pt",
        "a/m.txt.bin",
        "a/m.onnx",
        "a/m.gguf",
    ],
)
def test_everything_else_is_looked_at_since_formats_are_known_by_content(key: str) -> None:
    assert _object_keys.not_a_model(key) == ""


@pytest.mark.threat("A19")
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
