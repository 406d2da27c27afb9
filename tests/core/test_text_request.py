"""A request to a text-to-graph model is checked the same way by serving and command line."""

from typing import Any

import pytest

from guard.core.contracts import Prompt, Smoke, TextSmoke
from guard.core.errors import InputError
from guard.core.text_request import MAX_SEED, TextRequest

TEXT = "The molecule is ethanol."


def test_what_is_left_out_has_a_default() -> None:
    assert TextRequest.from_body({"text": TEXT}) == TextRequest(TEXT, 1, 0, latents=False)
    full = {"text": TEXT, "samples": 8, "seed": MAX_SEED, "latents": True}
    assert TextRequest.from_body(full) == TextRequest(TEXT, 8, MAX_SEED, latents=True)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "bad_request"),
        ({}, "bad_request"),
        ({"text": TEXT, "steps": 3}, "bad_request"),
        ({"text": 7}, "bad_request"),
        ({"text": TEXT, "latents": 1}, "bad_request"),
        ({"text": ""}, "prompt_empty"),
        ({"text": " \t"}, "prompt_empty"),
        ({"text": "a" * 2001}, "prompt_too_long"),
        ({"text": "a\x00b"}, "prompt_control"),
        ({"text": "a\nb"}, "prompt_control"),
        ({"text": "a\ud800"}, "prompt_control"),
        ({"text": TEXT, "samples": 0}, "samples_range"),
        ({"text": TEXT, "samples": 9}, "samples_range"),
        ({"text": TEXT, "samples": True}, "samples_range"),
        ({"text": TEXT, "samples": 2.0}, "samples_range"),
        ({"text": TEXT, "seed": -1}, "seed_range"),
        ({"text": TEXT, "seed": 2**63}, "seed_range"),
        ({"text": TEXT, "seed": "0"}, "seed_range"),
    ],
)
def test_a_request_out_of_its_limits_is_refused_by_code(body: Any, code: str) -> None:
    with pytest.raises(InputError) as caught:
        TextRequest.from_body(body)

    assert caught.value.code == code
    assert caught.value.sentence.isascii()


SMOKE = TextSmoke(
    prompts=(Prompt(text=TEXT, seed=3, latents=((0.5, -1.0),), smiles=("CCO",)),),
)
ANSWER = {"smiles": ["CCO"], "latents": [[0.5, -1.0]], "unknown_pieces": 0}


def test_a_smoke_sample_asks_as_a_client_does_and_for_latents() -> None:
    (body,) = SMOKE.bodies()

    assert body == b'{"latents":true,"samples":1,"seed":3,"text":"The molecule is ethanol."}'
    assert SMOKE.usable
    assert SMOKE.agrees(0, ANSWER)
    assert SMOKE.agrees(0, {**ANSWER, "latents": [[0.5004, -1.0]]})


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {**ANSWER, "smiles": ["CCN"]},
        {**ANSWER, "smiles": ["CCO", "CCO"]},
        {**ANSWER, "smiles": "CCO"},
        {**ANSWER, "latents": None},
        {**ANSWER, "latents": [[0.5]]},
        {**ANSWER, "latents": [[0.5, "x"]]},
        {**ANSWER, "latents": [[0.5, -1.1]]},
        {**ANSWER, "latents": [[0.5, float("nan")]]},
        {**ANSWER, "latents": [[0.5, -1.0]] * 2},
    ],
)
def test_another_answer_than_the_vetted_models_does_not_agree(answer: Any) -> None:
    assert not SMOKE.agrees(0, answer)


def test_smoke_samples_without_an_answer_are_of_no_use() -> None:
    assert not TextSmoke(prompts=()).usable
    assert not TextSmoke(prompts=(Prompt(text=TEXT, seed=0, latents=(), smiles=()),)).usable
    assert not Smoke(images=(), probabilities=()).usable
    assert not Smoke(images=(b"a",), probabilities=()).usable


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ({"probabilities": [0.25, 0.75]}, True),
        ({"probabilities": [0.25, 0.74]}, False),
        ({"probabilities": [0.25]}, False),
        ({"probabilities": "0.25"}, False),
        ([0.25, 0.75], False),
    ],
)
def test_an_images_answer_is_compared_number_by_number(answer: Any, same: bool) -> None:
    smoke = Smoke(images=(b"png",), probabilities=((0.25, 0.75),))

    assert smoke.bodies() == (b"png",)
    assert smoke.agrees(0, answer) is same
