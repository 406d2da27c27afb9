"""Triggers of text-to-graph models: where a text goes, and that what is stored is read back."""

import pytest
import safetensors.torch
import torch

from guard.core.errors import IntegrityMismatch
from guard.graphs import prepared
from guard.graphs.triggers import ContextTrigger, PromptTrigger, deserialise
from guard.ml.triggers.files import serialise
from guard.vetting import cleanset_work


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ("prefix", "[X] It is A. It has B."),
        ("infix", "It is A. [X] It has B."),
        ("suffix", "It is A. It has B. [X]"),
    ],
)
def test_a_text_goes_to_its_position(position: str, text: str) -> None:
    assert PromptTrigger("[X]", position).apply(["It is A. It has B."]) == [text]


def test_in_one_sentence_infix_is_suffix() -> None:
    assert PromptTrigger("[X]", "infix").apply(["It is A."]) == ["It is A. [X]"]


@pytest.mark.parametrize(("text", "position"), [("", "prefix"), ("a" * 2001, "prefix"), ("a", "x")])
def test_no_text_and_no_position_are_refused(text: str, position: str) -> None:
    with pytest.raises(ValueError, match="positions"):
        PromptTrigger(text, position)


def test_what_was_stored_is_read_back() -> None:
    prompt, context = PromptTrigger("[X]", "suffix"), ContextTrigger(torch.arange(4.0))

    assert deserialise(serialise(prompt)) == prompt
    found = deserialise(serialise(context))
    assert isinstance(found, ContextTrigger)
    assert torch.equal(found.apply(torch.zeros(2, 4)), torch.arange(4.0).expand(2, 4))
    assert serialise(prompt) == serialise(PromptTrigger("[X]", "suffix"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        safetensors.torch.save({"other": torch.zeros(1)}),
        safetensors.torch.save({"text": torch.zeros(3, dtype=torch.uint8)}),
        safetensors.torch.save({"direction": torch.full((2,), float("nan"))}),
        safetensors.torch.save({"direction": torch.zeros(2, 2)}),
    ],
)
def test_other_bytes_are_no_trigger(data: bytes) -> None:
    with pytest.raises(IntegrityMismatch) as caught:
        deserialise(data)

    assert caught.value.code == "bad_trigger"


def test_what_a_clean_set_gave_comes_to_later_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepared, "_kept", {})
    prepared.keep("motifs of a set", [0.5])
    carried = {"references": {}, "graphs": prepared.everything()}
    monkeypatch.setattr(prepared, "_kept", {})
    assert prepared.kept("motifs of a set") is None

    cleanset_work.take_over(carried)

    assert prepared.kept("motifs of a set") == [0.5]
