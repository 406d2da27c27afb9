"""What every format on the shelf must hold to.

Each test module `tests.formats.test_NAME` brings a `sample()`.
"""

import importlib
import io
import subprocess
import sys
from typing import BinaryIO

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.core.contracts import Budget, Format, Header
from guard.core.errors import ArtifactRejected, Unavailable
from guard.formats import FORMATS
from guard.formats._choose import choose
from tests.formats.jailing import needs_jail

NAMES = FORMATS.names()
BUDGET = Budget(file_bytes=1 << 24, seconds=60)


def sample(name: str) -> bytes:
    data = importlib.import_module(f"tests.formats.test_{name}").sample()
    assert isinstance(data, bytes)
    return data


def vettable(*, jailed: bool) -> list[str]:
    return [
        name for name in NAMES if FORMATS.get(name).vettable and FORMATS.get(name).jailed is jailed
    ]


def refusing() -> list[str]:
    return [name for name in NAMES if not FORMATS.get(name).vettable]


def inspected(kind: Format, data: bytes) -> Header | None:
    """The header; None for a refusal that names its rule.

    Any other exception is the test's failure.
    """
    try:
        return kind.inspect(io.BytesIO(data), budget=BUDGET)
    except ArtifactRejected as error:
        assert ArtifactRejected.code != error.code  # noqa: PT017 - a refusal must name its rule
        assert error.sentence.isprintable()  # noqa: PT017
        return None


def test_choosing_and_inspecting_need_no_torch() -> None:
    """The flow and the API list and choose formats without paying for torch."""
    program = (
        "import io, sys; from guard.core.contracts import Budget; from guard.formats._choose "
        "import choose; "
        "import guard.formats._read, guard.formats._canonical; data = sys.stdin.buffer.read(); "
        "choose(data, 'x').inspect(io.BytesIO(data), budget=Budget()); sys.exit('torch' in "
        "sys.modules)"
    )

    for name in vettable(jailed=False) + vettable(jailed=True):
        assert (
            subprocess.run(
                [sys.executable, "-c", program], input=sample(name), check=False
            ).returncode
            == 0
        )


@pytest.mark.parametrize("name", NAMES)
def test_its_sample_is_claimed_by_it_alone(name: str) -> None:
    assert FORMATS.get(name) is type(choose(sample(name)[:4096], "upload.bin"))


@pytest.mark.parametrize("name", NAMES)
def test_it_claims_neither_nothing_nor_noise(name: str) -> None:
    assert not FORMATS.get(name)().claims(b"", f"model.{name}")
    assert not FORMATS.get(name)().claims(b"\xee" * 4096, f"model.{name}")


@pytest.mark.parametrize("name", vettable(jailed=False) + vettable(jailed=True))
def test_a_vettable_sample_passes_inspection(name: str) -> None:
    header = inspected(FORMATS.get(name)(), sample(name))

    assert header is not None
    assert name == header.format


def check_tensors(name: str) -> None:
    file: BinaryIO = io.BytesIO(sample(name))
    file.seek(3)
    header = FORMATS.get(name)().inspect(file, budget=BUDGET)

    found = FORMATS.get(name)().tensors(file, budget=BUDGET)

    assert found
    assert not file.closed
    for tensor in found.values():
        assert isinstance(tensor, torch.Tensor)
        assert tensor.device.type == "cpu"
        assert torch.isfinite(tensor.double()).all()
    assert not header.tensors or {info.name: info.shape for info in header.tensors} == {
        key: tuple(tensor.shape) for key, tensor in found.items()
    }


@pytest.mark.parametrize("name", vettable(jailed=False))
def test_its_tensors_are_finite_and_as_its_header_says(name: str) -> None:
    check_tensors(name)


@needs_jail
@pytest.mark.parametrize("name", vettable(jailed=True))
def test_its_tensors_come_out_of_the_jail_finite(name: str) -> None:
    check_tensors(name)


@pytest.mark.row(9)
@pytest.mark.parametrize("name", vettable(jailed=False) + vettable(jailed=True))
def test_a_file_over_budget_is_refused(name: str) -> None:
    data = sample(name)
    with pytest.raises(ArtifactRejected) as caught:
        FORMATS.get(name)().inspect(io.BytesIO(data), budget=Budget(file_bytes=len(data) - 1))

    assert caught.value.code == "file_too_large"


@pytest.mark.parametrize("name", refusing())
def test_an_unvettable_format_says_what_to_upload_instead(name: str) -> None:
    kind = FORMATS.get(name)()
    for look in (kind.inspect, kind.tensors):
        with pytest.raises(ArtifactRejected, match=r"model\.safetensors") as caught:
            look(io.BytesIO(sample(name)), budget=BUDGET)

        assert ArtifactRejected.code != caught.value.code


@pytest.mark.parametrize("name", NAMES)
def test_a_truncated_file_is_refused(name: str) -> None:
    data = sample(name)
    lengths = {*range(0, len(data), max(1, len(data) // 100)), *range(min(len(data), 64))}

    kind = FORMATS.get(name)
    passed = sorted(length for length in lengths if inspected(kind(), data[:length]) is not None)

    assert not passed or kind.jailed
    for length in {passed[place] for place in (0, len(passed) // 2, -1) if passed}:
        # What only the jail reads, such as the numbers behind an old checkpoint's pickles.
        with pytest.raises((ArtifactRejected, Unavailable)):
            kind().tensors(io.BytesIO(data[:length]), budget=BUDGET)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(NAMES), st.randoms(use_true_random=False))
def test_damage_ends_in_a_header_or_a_named_refusal(name: str, random: "object") -> None:
    data = bytearray(sample(name))
    for _ in range(random.randint(1, 8)):  # type: ignore[attr-defined]
        data[random.randrange(len(data))] = random.randrange(256)  # type: ignore[attr-defined]

    header = inspected(FORMATS.get(name)(), bytes(data))

    assert header is None or FORMATS.get(name).vettable
