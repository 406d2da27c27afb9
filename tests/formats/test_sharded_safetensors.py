"""Shards and their index are read as one state dict only where they agree in every tensor."""

import io
import json
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.core.shards import opening, shard
from guard.formats.sharded_safetensors import ShardedSafetensors

BUDGET = Budget(file_bytes=1 << 24)
NAME = "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{place}-of-00002.safetensors" for place in (1, 2))
PARTS = {
    FIRST: {"conv.weight": torch.arange(12.0).reshape(3, 4), "steps": torch.tensor(7)},
    SECOND: {"fc.weight": torch.ones(5, dtype=torch.float16)},
}
MAP = {name: file for file, part in PARTS.items() for name in part}
INDEX = {"metadata": {"total_size": 66.0}, "weight_map": MAP}


def packed(
    index: Any = INDEX, parts: dict[str, dict[str, torch.Tensor]] = PARTS, more: bytes = b""
) -> bytes:
    files = {name: safetensors.torch.save(part) for name, part in parts.items()}
    text = index if isinstance(index, bytes) else json.dumps(index).encode()
    start = opening(
        NAME,
        len(text),
        [(name, len(data)) for name, data in files.items()],
    )
    return b"".join([start, text, *files.values(), more])


def sample() -> bytes:
    return packed()


def refused(data: bytes, budget: Budget = BUDGET) -> ArtifactRejected:
    with pytest.raises(ArtifactRejected) as caught:
        ShardedSafetensors().tensors(io.BytesIO(data), budget=budget)
    return caught.value


def test_the_tensors_of_all_shards_come_out_as_one_state_dict() -> None:
    file = io.BytesIO(sample())

    header = ShardedSafetensors().inspect(file, budget=BUDGET)
    found = ShardedSafetensors().tensors(file, budget=BUDGET)

    assert {info.name for info in header.tensors} == found.keys() == MAP.keys()
    for name, file_name in MAP.items():
        assert torch.equal(found[name], PARTS[file_name][name])
        assert found[name].dtype == PARTS[file_name][name].dtype


@pytest.mark.parametrize(
    ("code", "says", "data"),
    [
        ("shards_bad_index", "JSON", packed(b"{")),
        ("shards_bad_index", "JSON", packed(b"[" * 100_000)),
        ("shards_bad_index", "JSON", packed(b'{"weight_map": {"a": "x", "a": "y"}}')),
        ("shards_bad_index", "weight_map", packed([])),
        ("shards_bad_index", "weight_map", packed({"weight_map": {}})),
        ("shards_bad_index", "weight_map", packed({"weight_map": {"a": 1}})),
        ("shards_bad_index", "passwd", packed({"weight_map": {"a": "../../etc/passwd"}})),
        ("shards_bad_index", "model.bin", packed({"weight_map": {"a": "model.bin"}})),
        ("shards_incomplete", FIRST, packed(parts={SECOND: PARTS[SECOND]})),
        ("shards_contradict", SECOND, packed({"weight_map": dict.fromkeys(PARTS[FIRST], FIRST)})),
        ("shards_contradict", "no shard", packed({"weight_map": {**MAP, "more": FIRST}})),
        ("shards_contradict", "'steps'", packed({"weight_map": {**MAP, "steps": SECOND}})),
        (
            "shards_contradict",
            "'steps'",
            packed({"weight_map": {"conv.weight": FIRST, "fc.weight": SECOND}}),
        ),
        (
            "shards_contradict",
            "is in",
            packed(parts={FIRST: PARTS[FIRST], SECOND: {**PARTS[SECOND], **PARTS[FIRST]}}),
        ),
        ("shards_damaged", "as they are", packed(more=b"x")),
        ("shards_damaged", "as they are", packed().replace(b'"index"', b'"Index"')),
        ("shards_damaged", "as they are", packed().replace(FIRST.encode(), SECOND.encode(), 1)),
        ("shards_damaged", "as they are", packed().replace(FIRST.encode(), b"/" * len(FIRST), 1)),
        ("shards_damaged", "as they are", packed().replace(b'{"index":', b'{"index":-', 1)),
    ],
)
def test_what_does_not_agree_is_refused_by_its_cause(code: str, says: str, data: bytes) -> None:
    error = refused(data)

    assert error.code == code
    assert says in error.sentence
    assert error.sentence.isprintable()


def test_a_shard_that_breaks_a_rule_of_safetensors_is_named() -> None:
    name = "conv.weight"
    error = refused(packed(parts={**PARTS, FIRST: {**PARTS[FIRST], name: torch.tensor([1e999])}}))
    assert error.code == "not_finite"

    data = packed()
    error = refused(data.replace(b'"F16"', b'"F8_"'))
    assert (error.code, error.sentence.startswith(f"Shard {SECOND}: ")) == (
        "dtype_not_allowed",
        True,
    )


@pytest.mark.parametrize(
    ("code", "limits"),
    [
        ("too_many_tensors", {"tensors": 2}),
        ("too_many_parameters", {"parameters": 17}),
        ("header_too_large", {"header_bytes": 20}),
        ("over_memory_budget", {"memory_bytes": 60}),
    ],
)
def test_limits_count_for_all_shards_together(code: str, limits: dict[str, int]) -> None:
    assert refused(sample(), replace(BUDGET, **limits)).code == code


def test_more_shards_than_the_limit_are_refused() -> None:
    names = [f"m-{place:05}-of-01001.safetensors" for place in range(1001)]

    assert refused(opening(NAME, 0, [(name, 0) for name in names])).code == "too_many_shards"


@pytest.mark.parametrize(
    ("name", "index"),
    [
        (FIRST, NAME),
        ("my net.fp16-00003-of-00010.safetensors", "my net.fp16.safetensors.index.json"),
        ("model-1-of-2.safetensors", None),
        ("../model-00001-of-00002.safetensors", None),
        ("model-00001-of-00002.safetensors.txt", None),
        ("model.safetensors", None),
    ],
)
def test_a_shard_is_known_by_its_name(name: str, index: str | None) -> None:
    found = shard(name)

    assert (found and found.index) == index


def test_the_headers_of_all_shards_together_are_limited() -> None:
    files = {
        name: safetensors.torch.save(part, metadata={"note": "x" * 300})
        for name, part in PARTS.items()
    }
    text = json.dumps(INDEX).encode()
    start = opening(
        NAME,
        len(text),
        [(name, len(data)) for name, data in files.items()],
    )
    data = b"".join([start, text, *files.values()])
    one = 8 + int.from_bytes(next(iter(files.values()))[:8], "little")

    ShardedSafetensors().inspect(io.BytesIO(data), budget=BUDGET)  # a limit that holds
    error = refused(data, replace(BUDGET, header_bytes=one + 100))
    assert error.code == "header_too_large"
    assert SECOND in error.sentence
