"""A Parquet file of pairs: read, every row checked, duplicates dropped, split once.

The rows are an operator's own; a bad one is named, not skipped, so that nobody vets with less than
they think.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from guard.cleansets._curate import CALIBRATION_END, MAX_NAME, SEARCH_END
from guard.cleansets._molecules import Molecule, problem_or_molecule
from guard.cleansets._pair_blob import load, write
from guard.cleansets._raw import refuse
from guard.core.evidence import PairSetFacts
from guard.core.molecules import MAX_TEXT, is_description, require_rdkit
from guard.core.pairs import Pairs

COLUMNS = ("text", "smiles")
MAX_PAIRS = 1_000_000
MAX_BYTES = 1 << 30
#: The fewest distinct molecules that leave some for each part. A policy asks for more.
MIN_PAIRS = 20


@dataclass(frozen=True)
class RawPairs:
    """What a Parquet file holds, row by row and unchecked."""

    texts: tuple[str | None, ...]
    smiles: tuple[str | None, ...]


def claims(path: Path) -> bool:
    """Whether `path` is a Parquet file with the columns of a pair set."""
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file() or path.suffix.lower() != ".parquet":
        return False
    try:
        return set(COLUMNS) <= set(parquet.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return False  # the reader of images says what is wrong


def read(path: Path) -> RawPairs:
    """Read the columns `text` and `smiles`.

    Raises:
        CleanSetError: it is no Parquet file, a column is no text, or it is too large.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            metadata = file.metadata
            total = sum(
                metadata.row_group(index).total_byte_size
                for index in range(metadata.num_row_groups)
            )
            if metadata.num_rows > MAX_PAIRS or total > MAX_BYTES:
                raise refuse(
                    "too_large",
                    f"The file has {metadata.num_rows:,} rows and {total:,} bytes; take a sample "
                    "of it.",
                )
            table = file.read(columns=list(COLUMNS))
            columns = [table.column(name) for name in COLUMNS]
            for name, column in zip(COLUMNS, columns, strict=True):
                if column.type not in (pa.string(), pa.large_string()):
                    raise refuse("bad_columns", f"The column {name} of {path.name} must hold text.")
            texts, smiles = (tuple(column.to_pylist()) for column in columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise refuse(
            "bad_archive", f"{path.name} cannot be read as Parquet ({type(error).__name__})."
        ) from error
    return RawPairs(texts, smiles)


def curate_pairs(raw: RawPairs, name: str, seed: int = 0) -> tuple[bytes, PairSetFacts]:
    """Check every row of `raw`, drop exact duplicates, and split the molecules.

    They are split into search (50 %), calibration (20 %) and hold-out (30 %) by a hash of the
    canonical SMILES that is keyed with the seed: the order of rows does not matter, and a pair that
    is added later moves few others.

    Returns:
        The blob for `load`, and the facts that a policy may check; the blob's SHA-256 is the set's
        digest.

    Raises:
        CleanSetError: a row is no pair (the sentence names it), one molecule has two texts, or
            there are too few; or a bad name.
        MissingExtra: RDKit is not installed.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isprintable():
        raise refuse(
            "bad_names", f"A clean set's name must be 1 to {MAX_NAME} printable characters."
        )
    require_rdkit()
    found = _checked(raw)
    if len(found) < MIN_PAIRS:
        raise refuse(
            "too_few", f"There are {len(found)} distinct molecules; {MIN_PAIRS} or more are needed."
        )
    ordered = sorted(found, key=lambda smiles: _key(seed, smiles))
    pairs = Pairs(tuple(found[smiles][0] for smiles in ordered), tuple(ordered))
    molecules = [found[smiles][1] for smiles in ordered]
    elements = sorted(frozenset[str]().union(*(one.elements for one in molecules)))
    count = len(ordered)
    split = np.full(count, 2, np.uint8)
    split[: round(count * CALIBRATION_END)] = 1
    split[: round(count * SEARCH_END)] = 0
    data = write(pairs, split, name, elements, max(one.heavy_atoms for one in molecules))
    return data, load(data, name).facts


def _checked(raw: RawPairs) -> dict[str, tuple[str, Molecule]]:
    """Text and molecule of each pair, by canonical SMILES."""
    found: dict[str, tuple[str, Molecule]] = {}
    rows: dict[str, int] = {}
    for row, (text, smiles) in enumerate(zip(raw.texts, raw.smiles, strict=True)):
        if text is None or not is_description(text):
            raise refuse(
                "bad_text",
                f"row {row} has a text that is empty, longer than {MAX_TEXT} characters, or not "
                "printable.",
            )
        molecule = problem_or_molecule(smiles or "")
        if isinstance(molecule, str):
            raise refuse("bad_smiles", f"row {row} {molecule}.")
        earlier = found.setdefault(molecule.smiles, (text, molecule))
        if earlier[0] != text:
            raise refuse(
                "duplicate_molecule",
                f"row {row} and row {rows[molecule.smiles]} hold the same molecule with different "
                "texts; keep one of them.",
            )
        rows.setdefault(molecule.smiles, row)
    return found


def _key(seed: int, smiles: str) -> bytes:
    return hashlib.sha256(f"registry-guard split {seed}\n{smiles}".encode()).digest()
