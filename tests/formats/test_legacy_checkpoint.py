"""Old-layout PyTorch checkpoints: the same rules as for the zip checkpoints of today."""

import io
import os
from typing import Any

import pytest
import torch

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.formats._choose import choose
from guard.formats.legacy_checkpoint import LegacyCheckpoint
from tests.formats.jailing import needs_jail
from tests.formats.torch_zips import saved, state, zipped

BUDGET = Budget(seconds=60)


def old(value: Any, **options: Any) -> bytes:
    return saved(value, _use_new_zipfile_serialization=False, **options)


def sample() -> bytes:
    return old(state())


class Payload:
    """Unpickling it would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def test_its_first_bytes_name_it() -> None:
    assert type(choose(old(state())[:4096], "model.pth")).__name__ == "LegacyCheckpoint"


@needs_jail
def test_a_state_dict_comes_out_as_it_went_in() -> None:
    found = LegacyCheckpoint().tensors(io.BytesIO(old(state())), budget=BUDGET)

    assert found.keys() == state().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state().items())


@pytest.mark.parametrize(
    ("code", "data", "budget"),
    [
        ("pickled_module", old({"w": torch.ones(2), "x": Payload()}), BUDGET),
        ("pickle_opcode", old(state(), pickle_protocol=4), BUDGET),
        ("pickle_broken", old(state())[:60], BUDGET),
        ("pickle_too_long", old(state()), Budget(header_bytes=100)),
        ("polyglot", old(state()) + zipped({"a": b"b"}), BUDGET),
    ],
)
def test_what_breaks_a_rule_is_refused_before_the_jail(
    code: str, data: bytes, budget: Budget
) -> None:
    with pytest.raises(ArtifactRejected) as caught:
        LegacyCheckpoint().inspect(io.BytesIO(data), budget=budget)

    assert caught.value.code == code


@needs_jail
def test_a_file_that_ends_in_its_numbers_is_refused() -> None:
    with pytest.raises(ArtifactRejected) as caught:
        LegacyCheckpoint().tensors(io.BytesIO(old(state())[:-5]), budget=BUDGET)

    assert caught.value.code == "checkpoint_unreadable"
