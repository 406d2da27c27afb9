"""PyTorch checkpoints.

The archive's rules, the pickle's allow-list, and the conversion in the jail.
"""

import argparse
import io
import os
import sys
import types
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.formats import _jail, _jail_child
from guard.formats._pickle_scan import check_pickle
from guard.formats._read import open_tensors
from guard.formats.pytorch_state_dict import PytorchStateDict
from tests.formats.jailing import needs_jail
from tests.formats.torch_zips import members_of, saved, state, zipped

BUDGET = Budget(seconds=60)


def sample() -> bytes:
    return saved(state())


class Canary:
    """Unpickling it creates a file; a real payload would open a shell."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def inspected(data: bytes) -> str:
    with pytest.raises(ArtifactRejected) as caught:
        PytorchStateDict().inspect(io.BytesIO(data), budget=BUDGET)
    return caught.value.code


def changed(**members: bytes) -> bytes:
    """An honest checkpoint with members added or replaced.

    `__` in a name stands for a slash, `_dot_` for a dot.
    """
    names = {name.replace("__", "/").replace("_dot_", "."): data for name, data in members.items()}
    return zipped({**members_of(sample()), **names})


@needs_jail
def test_a_state_dict_comes_out_as_it_went_in(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(
        saved({"state_dict": {f"module.{name}": x for name, x in state().items()}, "epoch": 3})
    )

    name, header, found = open_tensors(path, "model.pt", BUDGET)

    assert name == "pytorch_state_dict"
    assert {info.name for info in header.tensors} == found.keys() == state().keys()
    for key, tensor in state().items():
        assert tensor.dtype == found[key].dtype
        assert torch.equal(tensor, found[key])


@pytest.mark.threat("B05")
@needs_jail
def test_a_value_that_is_not_finite_is_refused_behind_the_jail() -> None:
    data = saved({"w": torch.tensor([1.0, float("nan")])})

    with pytest.raises(ArtifactRejected) as caught:
        PytorchStateDict().tensors(io.BytesIO(data), budget=BUDGET)

    assert caught.value.code == "not_finite"


@pytest.mark.row(9)
@pytest.mark.threat("C04")
@needs_jail
def test_a_tensor_that_unfolds_to_terabytes_is_counted_before_it_is_copied() -> None:
    data = saved({"w": torch.zeros(1).expand(1 << 40)})

    with pytest.raises(ArtifactRejected) as caught:
        PytorchStateDict().tensors(io.BytesIO(data), budget=BUDGET)

    assert caught.value.code == "output_too_large"


@pytest.mark.row(7, 15)
@pytest.mark.threat("C01")
def test_a_pickled_payload_is_named_and_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = saved({"w": torch.zeros(1), "x": Canary(canary)})

    assert inspected(data) == "pickled_module"
    assert not canary.exists()


@needs_jail
def test_the_jail_refuses_the_payload_on_its_own(tmp_path: Path) -> None:
    """Without our opcode list in front.

    Torch's `weights_only` is the second reader, the locks are the third.
    """
    canary = tmp_path / "canary"
    data = saved({"w": torch.zeros(1), "x": Canary(canary)})

    with pytest.raises(ArtifactRejected) as caught:
        _jail.run_jailed(io.BytesIO(data), io.BytesIO(), budget=BUDGET)

    assert caught.value.code == "unsafe_pickle"
    assert not canary.exists()


def test_a_whole_module_is_refused_with_advice() -> None:
    with pytest.raises(ArtifactRejected, match="state_dict") as caught:
        PytorchStateDict().inspect(io.BytesIO(saved(nn.Linear(2, 2))), budget=BUDGET)

    assert caught.value.code == "pickled_module"


def test_protocol_4_is_refused() -> None:
    assert inspected(saved(state(), pickle_protocol=4)) == "pickle_opcode"


@pytest.mark.row(8)
@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("zip_broken", sample()[:-1]),
        ("zip_broken", sample() + b"x"),
        ("zip_gap", b"PK\x03\x04" + sample()),
        ("zip_compressed", zipped(members_of(sample()), zipfile.ZIP_DEFLATED)),
        ("zip_bad_name", changed(archive__dotdot=b"").replace(b"dotdot", b"../../")),
        ("zip_bad_name", changed(**{"archive/a\x1b": b""})),
        ("zip_unexpected_member", changed(archive__more_dot_py=b"import os")),
        ("zip_unexpected_member", changed(other__version=b"3")),
        (
            "zip_member_missing",
            zipped({"archive/data.pkl": members_of(sample())["archive/data.pkl"]}),
        ),
        ("torchscript", changed(archive__code__model_dot_py=b"")),
        ("torchscript", changed(archive__constants_dot_pkl=b"")),
        ("torchserve_archive", changed(**{"MAR-INF/MANIFEST.json": b"{}"})),
        ("torch_package", changed(**{"archive/.data/extern_modules": b""})),
        ("exported_program", changed(archive__archive_format=b"pt2")),
        ("pickle_broken", changed(archive__data_dot_pkl=b"\x80\x02}q\x00")),
        ("pickle_broken", changed(archive__data_dot_pkl=b"\x80\x02}.cposix\nsystem\n")),
        ("pickle_broken", changed(archive__data_dot_pkl=b"")),
        (
            "pickle_opcode",
            changed(archive__data_dot_pkl=b"\x80\x02\x8c\x05posix\x8c\x06system\x93."),
        ),
        ("pickled_module", changed(archive__data_dot_pkl=b"\x80\x02cposix\nsystem\n.")),
    ],
)
def test_each_broken_rule_has_its_name(code: str, data: bytes) -> None:
    assert code == inspected(data)


def test_members_that_share_bytes_are_refused() -> None:
    """The trick of overlapping zip bombs: two list entries for one place."""
    data = bytearray(
        zipped({**members_of(sample()), "archive/data/7": b"1234", "archive/data/8": b"1234"})
    )
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        first = archive.getinfo("archive/data/7").header_offset
        second = archive.getinfo("archive/data/8").header_offset
    place = data.rfind(second.to_bytes(4, "little"))
    data[place : place + 4] = first.to_bytes(4, "little")

    assert inspected(bytes(data)) in {"zip_overlap", "zip_local_mismatch"}


def test_a_list_that_disagrees_with_the_members_is_refused() -> None:
    data = bytearray(sample())
    place = data.find(b"archive/data.pkl")
    data[place : place + 16] = b"archive/dota.pkl"

    assert inspected(bytes(data)) == "zip_local_mismatch"


@pytest.mark.row(9)
def test_too_many_members_are_refused_before_they_are_listed() -> None:
    data = zipped({"archive/data.pkl": b"", **{f"archive/data/{i}": b"" for i in range(40)}})

    with pytest.raises(ArtifactRejected) as caught:
        PytorchStateDict().inspect(io.BytesIO(data), budget=Budget(tensors=20))

    assert caught.value.code == "zip_too_many_members"


def test_a_name_with_an_escape_that_does_not_exist_is_refused() -> None:
    members = members_of(sample())
    program = next(name for name in members if name.endswith("data.pkl"))
    members[program] = b"\x80\x02ccollections\nOrdered\\oict\n."
    data = zipped(members)

    with pytest.raises(ArtifactRejected) as caught:
        PytorchStateDict().inspect(io.BytesIO(data), budget=BUDGET)

    assert caught.value.code == "pickle_broken"


@settings(max_examples=60)
@given(st.integers(0, len(sample()) - 1), st.integers(0, 255))
def test_a_damaged_checkpoint_is_inspected_or_refused(position: int, value: int) -> None:
    data = bytearray(sample())
    data[position] = value
    try:
        header = PytorchStateDict().inspect(io.BytesIO(data), budget=BUDGET)
    except ArtifactRejected:
        return

    assert header.format == "pytorch_state_dict"


@pytest.mark.parametrize(
    "checkpoint",
    [
        state(),
        {"state_dict": state()},
        {"net": state(), "acc": 0.9},
        {f"module.{name}": tensor for name, tensor in state().items()},
    ],
)
def test_the_state_dict_is_found_in_its_wrapper(checkpoint: dict[str, Any]) -> None:
    assert state().keys() == _jail_child._state_dict(checkpoint).keys()


@pytest.mark.parametrize(
    ("code", "checkpoint"),
    [
        ("no_state_dict", {}),
        ("no_state_dict", [torch.zeros(1)]),
        ("no_state_dict", {"epoch": 3}),
        ("no_state_dict", {1: torch.zeros(1)}),
        ("no_state_dict", {"state_dict": {"a": {"b": torch.zeros(1)}}}),
        ("ambiguous_checkpoint", {"a.b": torch.ones(2), "a": {"b": torch.ones(2)}}),
    ],
)
def test_a_checkpoint_without_one_state_dict_is_refused(code: str, checkpoint: Any) -> None:
    with pytest.raises(_jail_child._Refused, match=f"^{code}$"):
        _jail_child._state_dict(checkpoint)


def test_several_state_dicts_keep_the_names_that_tell_them_apart() -> None:
    found = _jail_child._state_dict(
        {"state_dict": state(), "model": {"ema": state()}, "optimizer": {"state": state()}}
    )

    assert found.keys() == {
        f"{name}.{key}" for name in ("state_dict", "model.ema") for key in state()
    }


class AttributeDict(dict[str, Any]):
    """Pickled under the name of Lightning's own class, which need not be installed."""


@needs_jail
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "beside",
    [
        argparse.Namespace(lr=0.1, opt=argparse.Namespace(name="sgd")),
        AttributeDict(lr=0.1),
        PurePosixPath("runs/1"),
        np.float64(0.9),
    ],
)
def test_trainers_objects_are_skipped(
    beside: Any, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("pytorch_lightning.utilities.parsing")
    module.AttributeDict = AttributeDict  # type: ignore[attr-defined]
    for package in ("pytorch_lightning", "pytorch_lightning.utilities"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(AttributeDict, "__module__", module.__name__)
    path = tmp_path / "epoch=3-step=100 (1) +é.ckpt"
    checkpoint = {"epoch": 3, "args": beside, "state_dict": state()}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)

    name, _, found = open_tensors(path, path.name, BUDGET)

    assert name == ("pytorch_state_dict" if zipped else "legacy_checkpoint")
    assert found.keys() == state().keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in state().items())


def test_objects_are_made_only_where_something_is_skipped() -> None:
    program = b"\x80\x02ccollections\nOrderedDict\n)\x81."

    with pytest.raises(ArtifactRejected, match="NEWOBJ"):
        check_pickle(program, budget=BUDGET)
