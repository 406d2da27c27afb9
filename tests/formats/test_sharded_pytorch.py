"""Shards of PyTorch checkpoints are read in one jail, and only where they and the index agree."""

import io
import json
import resource
from dataclasses import replace
from typing import Any

import pytest
import torch

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.core.shards import opening
from guard.formats import _jail
from guard.formats.sharded_pytorch import ShardedPytorch, apart
from tests.formats import bombs
from tests.formats.jailing import needs_jail
from tests.formats.torch_zips import saved

BUDGET = Budget(file_bytes=1 << 24, seconds=60)
NAME = "pytorch_model.bin.index.json"
FIRST, SECOND = (f"pytorch_model-0000{place}-of-00002.bin" for place in (1, 2))
PARTS: dict[str, Any] = {
    FIRST: {"conv.weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(7)},
    SECOND: {"fc.weight": torch.ones(5, dtype=torch.float16)},
}
MAP = {name: file for file, part in PARTS.items() for name in part}


def packed(listed: Any = MAP, **files: bytes) -> bytes:
    """The packed file; `first` and `second` take the place of a shard's bytes."""
    shards = {
        FIRST: files.get("first", saved(PARTS[FIRST])),
        SECOND: files.get("second", saved(PARTS[SECOND])),
    }
    text = json.dumps({"weight_map": listed}).encode()
    start = opening(NAME, len(text), [(name, len(data)) for name, data in shards.items()])
    return b"".join([start, text, *shards.values()])


def sample() -> bytes:
    return packed()


def refused(data: bytes, budget: Budget = BUDGET) -> ArtifactRejected:
    with pytest.raises(ArtifactRejected) as caught:
        ShardedPytorch().tensors(io.BytesIO(data), budget=budget)
    return caught.value


@pytest.mark.parametrize(
    ("code", "says", "data"),
    [
        ("shards_bad_index", "00002.bin", packed({"a": "model-00001-of-00001.safetensors"})),
        ("shards_incomplete", "00003.bin", packed({**MAP, "a": "m-00003-of-00003.bin"})),
        ("shards_of_pickles", SECOND, packed(second=b"no zip")),
        ("shards_of_pickles", SECOND, packed(second=b"")),
        (
            "shards_of_pickles",
            SECOND,
            packed(second=saved({}, _use_new_zipfile_serialization=False)),
        ),
        ("pickled_module", f"Shard {FIRST}: ", packed(first=saved({"a": print}))),
    ],
)
def test_shards_that_break_a_rule_are_refused_before_any_is_read(
    code: str, says: str, data: bytes
) -> None:
    error = refused(data)

    assert (error.code, says in error.sentence) == (code, True), error.sentence


def test_all_pickles_together_stay_within_the_budget() -> None:
    ShardedPytorch().inspect(io.BytesIO(sample()), budget=replace(BUDGET, header_bytes=2000))
    error = refused(sample(), replace(BUDGET, header_bytes=600))

    assert (error.code, SECOND in error.sentence) == ("zip_too_many_members", True)
    assert refused(sample(), replace(BUDGET, tensors=1)).code == "too_many_tensors"


def test_what_comes_out_of_the_jail_must_be_what_the_index_lists() -> None:
    one, names = torch.ones(1), [FIRST, SECOND]
    numbered = {"0.conv.weight": one, "0.steps": one, "1.fc.weight": one}

    assert apart(numbered, MAP, names).keys() == MAP.keys()
    for changed, listed, code, says in (
        ({"1.steps": one}, MAP, "shards_contradict", f"'steps' is in {FIRST} and in {SECOND}"),
        ({}, {**MAP, "steps": SECOND}, "shards_contradict", f"'steps' in {SECOND}"),
        ({}, {**MAP, "more": FIRST}, "shards_contradict", "no shard"),
        ({"2.more": one}, MAP, "jail_crashed", "broke their reader"),
    ):
        with pytest.raises(ArtifactRejected, match=says) as caught:
            apart({**numbered, **changed}, listed, names)
        assert caught.value.code == code


@needs_jail
def test_a_shard_is_a_flat_state_dict_and_no_trainer_s_file() -> None:
    assert refused(packed(second=saved({"state_dict": PARTS[SECOND]}))).code == "no_state_dict"


@needs_jail
@pytest.mark.threat("C08")
def test_what_shards_may_compute_is_bounded_by_their_size_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_jail, "_CPU_SECONDS", 1)
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    bomb = bombs.checkpoint(bombs.nested_key())

    assert refused(packed(first=bomb, second=bomb)).code == "over_time_budget"
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 15
