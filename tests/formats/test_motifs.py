"""RDKit reads motifs in the jail first; what it cannot read, or what breaks it, is refused."""

import sys

import pytest

from guard.core.errors import ArtifactRejected, MissingExtra, Unavailable
from guard.formats import _motifs


def test_motifs_that_rdkit_reads_pass() -> None:
    assert _motifs.check_motifs(["C", "Si", "[N+]", "C1CS1", "c1ccncc1"]) == [1, 1, 1, 3, 6]


@pytest.mark.parametrize("motif", ["C1CC", "C(", "[Xx]", "C%%", "C C", "C.C", "C" * 81])
def test_a_motif_that_rdkit_cannot_read_is_named(motif: str) -> None:
    with pytest.raises(ArtifactRejected) as caught:
        _motifs.check_motifs(["C", motif])

    assert caught.value.code == "manifest_motif_refused"
    assert "motif" in caught.value.sentence


@pytest.mark.parametrize(
    "program",
    [
        "import os; os.write(1, b'L'); os.abort()",
        "import os; os.write(1, b'LSnothing')",
        "import os; os.write(1, b'LS[1, 2, 3]')",
        "import os; os.write(1, b'LS[true]')",
        "import os; os.write(1, b'LR')",
    ],
)
def test_a_child_that_dies_or_lies_refuses_the_model(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(_motifs, "PROGRAM", ("-c", program))

    with pytest.raises(ArtifactRejected, match="break RDKit"):
        _motifs.check_motifs(["C"])


def test_without_a_jail_nothing_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_motifs, "PROGRAM", ("-c", "import sys; sys.exit('no jail here')"))

    with pytest.raises(Unavailable, match="jail for motifs did not start") as caught:
        _motifs.check_motifs(["C"])

    assert caught.value.code == "jail_unavailable"


def test_without_rdkit_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdkit", None)

    with pytest.raises(MissingExtra, match=r"registry-guard\[graphs\]"):
        _motifs.check_motifs(["C"])
