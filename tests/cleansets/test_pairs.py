"""Clean sets of pairs: each row is checked and named, the split goes by the molecule."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors import numpy as safetensors_numpy

from guard.cleansets import curated_source, kind_of, load, load_pairs
from guard.core.errors import CleanSetError, MissingExtra
from guard.core.evidence import PairSetFacts, clean_set_from
from guard.core.modality import Modality
from guard.core.pairs import CuratedPairs
from guard.core.plain import to_plain
from tests.graph_toys import alkanes, write_pairs


def curated(folder: Path, texts: list[Any], smiles: list[Any], seed: int = 0) -> CuratedPairs:
    data, facts = curated_source(write_pairs(folder / "set.parquet", texts, smiles), "set", seed)
    found = load_pairs(data, "set")
    assert found.facts == facts
    return found


def refusal(folder: Path, texts: list[Any], smiles: list[Any]) -> CleanSetError:
    with pytest.raises(CleanSetError) as caught:
        curated(folder, texts, smiles)
    return caught.value


def test_pairs_are_split_and_their_facts_carry_their_kind(tmp_path: Path) -> None:
    found = curated(tmp_path, *alkanes(40))

    facts = found.facts
    assert (facts.search, facts.calibration, facts.holdout, facts.pairs) == (20, 8, 12, 40)
    assert (facts.elements, facts.heavy_atoms) == (("Br", "C", "Cl", "F", "I", "N", "O"), 8)
    assert len(found.holdout) == 12
    assert len(found.visible().together()) == 28
    stored = to_plain(facts)
    assert stored["kind"] == "text-to-graph"
    assert clean_set_from(stored) == facts
    assert isinstance(facts, PairSetFacts)


def test_the_order_of_rows_does_not_matter_and_the_seed_does(tmp_path: Path) -> None:
    texts, smiles = alkanes(40)

    one = curated(tmp_path, texts, smiles)
    other = curated(tmp_path, texts[::-1], smiles[::-1])

    assert one == other
    assert curated(tmp_path, texts, smiles, seed=1).holdout != one.holdout


def test_a_molecule_that_is_added_moves_few_others(tmp_path: Path) -> None:
    texts, smiles = alkanes(60)

    few, more = (curated(tmp_path, texts[:count], smiles[:count]) for count in (56, 60))

    left = set(few.holdout.smiles) - set(more.holdout.smiles)
    assert len(left) <= 3


def test_texts_stay_with_their_molecules_and_smiles_become_canonical(tmp_path: Path) -> None:
    texts, smiles = alkanes(40)
    smiles[1], smiles[7] = "NC", "C(N)C"
    smiles[2] = "C[C@@H](F)O"

    found = curated(tmp_path, texts, smiles)

    pairs = dict(
        zip(
            found.visible().together().smiles + found.holdout.smiles,
            found.visible().together().texts + found.holdout.texts,
            strict=True,
        )
    )
    assert pairs["CN"] == texts[1]
    assert pairs["CCN"] == texts[7]
    assert pairs["CC(O)F"] == texts[2]


def test_exact_duplicates_are_dropped(tmp_path: Path) -> None:
    texts, smiles = alkanes(40)

    found = curated(tmp_path, [*texts, texts[0]], [*smiles, "OC"])

    assert found.facts.pairs == 40


@pytest.mark.parametrize(
    ("text", "smiles", "code", "what"),
    [
        ("A text.", "C1CC", "bad_smiles", "row 5 has a SMILES that RDKit cannot read"),
        ("A text.", "", "bad_smiles", "row 5 has a SMILES that RDKit cannot read"),
        ("A text.", None, "bad_smiles", "row 5 has a SMILES that RDKit cannot read"),
        ("A text.", "C.O", "bad_smiles", "row 5 holds several components"),
        ("A text.", "C[As]", "bad_smiles", "row 5 holds the element As"),
        ("A text.", "C[OH2+]", "bad_smiles", "row 5 holds O with the charge \\+1"),
        ("A text.", "[13CH4]", "bad_smiles", "row 5 holds an isotope"),
        ("A text.", "C" * 31, "bad_smiles", "row 5 holds 31 heavy atoms"),
        ("A text.", "C" * 301, "bad_smiles", "row 5 has a SMILES of more than 300"),
        ("A text.", "OC", "duplicate_molecule", "row 5 and row 0 hold the same molecule"),
        ("", "CF", "bad_text", "row 5 has a text that is empty"),
        (None, "CF", "bad_text", "row 5 has a text that is empty"),
        ("a\x07", "CF", "bad_text", "row 5 .* not printable"),
        ("a" * 2001, "CF", "bad_text", "row 5 .* longer than 2000"),
    ],
)
def test_a_bad_row_is_named(
    tmp_path: Path, text: str | None, smiles: str | None, code: str, what: str
) -> None:
    texts: list[Any]
    all_smiles: list[Any]
    texts, all_smiles = (list[Any](column) for column in alkanes(40))
    texts[5], all_smiles[5] = text, smiles

    error = refusal(tmp_path, texts, all_smiles)

    assert error.code == f"cleanset_{code}"
    assert re.search(what, error.sentence), error.sentence


def test_too_few_molecules_and_a_bad_name_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, *alkanes(19)).code == "cleanset_too_few"
    path = write_pairs(tmp_path / "a.parquet", *alkanes(40))
    with pytest.raises(CleanSetError, match="printable"):
        curated_source(path, "a\n")


def test_columns_of_another_type_and_broken_files_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, [1, 2], ["C", "CC"]).code == "cleanset_bad_columns"
    whole = write_pairs(tmp_path / "b.parquet", *alkanes(400)).read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:40] + bytes(200) + whole[240:])
    with pytest.raises(CleanSetError) as caught:
        curated_source(tmp_path / "b.parquet", "b")
    assert caught.value.code == "cleanset_bad_archive"


def test_a_parquet_file_without_both_columns_is_one_of_images(tmp_path: Path) -> None:
    for columns in ({"text": ["a"]}, {"image": [b"x"], "label": [0]}):
        parquet.write_table(pa.table(columns), tmp_path / "c.parquet")
        with pytest.raises(CleanSetError) as caught:
            curated_source(tmp_path / "c.parquet", "c")
        assert caught.value.code in {"cleanset_bad_columns", "cleanset_unreadable_image"}
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    with pytest.raises(CleanSetError, match="Parquet"):
        curated_source(tmp_path / "d.parquet", "d")


def blob(folder: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    data, _ = curated_source(write_pairs(folder / "e.parquet", *alkanes(40)), "e")
    return data, safetensors_numpy.load(data)


def test_a_stored_blob_says_which_kind_it_is(tmp_path: Path) -> None:
    data, _ = blob(tmp_path)

    assert kind_of(data) is Modality.GRAPHS
    with pytest.raises(CleanSetError):
        load(data, "e")  # not as images
    for other in (b"", b"\x02" + bytes(7) + b"{}", bytes(40)):
        with pytest.raises(CleanSetError):
            kind_of(other)


@pytest.mark.parametrize("fault", ["missing", "dtype", "ends", "part", "text", "header"])
def test_a_changed_blob_is_refused(tmp_path: Path, fault: str) -> None:
    data, arrays = blob(tmp_path)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])["__metadata__"]
    if fault == "missing":
        del arrays["split"]
    elif fault == "dtype":
        arrays["split"] = arrays["split"].astype(np.int64)
    elif fault == "ends":
        arrays["text_ends"] = arrays["text_ends"][::-1].copy()
    elif fault == "part":
        arrays["split"] = np.zeros_like(arrays["split"])
    elif fault == "text":
        arrays["texts"] = np.zeros_like(arrays["texts"])
    else:
        header = {"guard.cleanset": "[]"}

    with pytest.raises(CleanSetError) as caught:
        load_pairs(safetensors_numpy.save(arrays, metadata=header), "e")

    assert caught.value.code == "cleanset_bad_blob"


def test_without_rdkit_the_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pairs(tmp_path / "f.parquet", *alkanes(40))
    monkeypatch.setitem(sys.modules, "rdkit", None)

    with pytest.raises(MissingExtra, match=r"pip install 'registry-guard\[graphs\]'"):
        curated_source(path, "f")


def test_a_stored_set_is_read_without_rdkit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, _ = blob(tmp_path)
    monkeypatch.setitem(sys.modules, "rdkit", None)

    assert load_pairs(data, "e").facts.pairs == 40
