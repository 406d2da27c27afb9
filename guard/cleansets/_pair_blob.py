"""A pair set as one safetensors blob, written once and checked whenever it is read.

Reading needs no RDKit: the SMILES were made canonical when the set was added.
"""

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from guard.cleansets._blob import METADATA, PARTS
from guard.cleansets._raw import refuse
from guard.core.digests import canonical_json, sha256
from guard.core.errors import CleanSetError
from guard.core.evidence import PairSetFacts
from guard.core.modality import Modality
from guard.core.molecules import is_description, is_smiles_text
from guard.core.pairs import CuratedPairs, Pairs

LAYOUT = 1
_DTYPES = {
    "texts": np.uint8,
    "text_ends": np.int64,
    "smiles": np.uint8,
    "smiles_ends": np.int64,
    "split": np.uint8,
}


def write(
    pairs: Pairs, split: np.ndarray, name: str, elements: Sequence[str], heavy_atoms: int
) -> bytes:
    """The blob; equal arguments give equal bytes."""
    facts = {
        "layout": LAYOUT,
        "kind": str(Modality.GRAPHS),
        "name": name,
        "elements": list(elements),
        "heavy_atoms": heavy_atoms,
    }
    texts, text_ends = _packed(pairs.texts)
    smiles, smiles_ends = _packed(pairs.smiles)
    arrays = {
        "texts": texts,
        "text_ends": text_ends,
        "smiles": smiles,
        "smiles_ends": smiles_ends,
        "split": split,
    }
    return safetensors_numpy.save(arrays, metadata={METADATA: canonical_json(facts).decode()})


def kind_of(data: bytes) -> Modality:
    """The modality of a stored clean set, by its header; that of images states none.

    Raises:
        CleanSetError: the blob has no header of ours.
    """
    try:
        return Modality(_header(data).get("kind", str(Modality.IMAGES)))
    except (ValueError, AttributeError) as error:
        raise _bad("has no header of ours") from error


def load(data: bytes, name: str) -> CuratedPairs:
    """Read and check a pair set.

    Args:
        data: what `curate_pairs` wrote.
        name: what the set is called in the facts; its digest is its identity.

    Raises:
        CleanSetError: the bytes are not such a blob, or its arrays contradict each other.
    """
    try:
        arrays, header = safetensors_numpy.load(data), _header(data)
        texts = _unpacked(arrays["texts"], arrays["text_ends"])
        smiles = _unpacked(arrays["smiles"], arrays["smiles_ends"])
        facts = PairSetFacts(
            name=name,
            digest=sha256(data),
            heavy_atoms=int(header["heavy_atoms"]),
            elements=tuple(str(element) for element in header["elements"]),
            **_sizes(arrays["split"]),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _bad("is no pair set of ours") from error
    good = set(arrays) == set(_DTYPES) and header["layout"] == LAYOUT
    good = good and all(arrays[key].dtype == dtype for key, dtype in _DTYPES.items())
    good = good and len(texts) == len(smiles) == len(arrays["split"])
    if not good or not all(map(is_description, texts)) or not all(map(is_smiles_text, smiles)):
        raise _bad("has arrays that do not fit each other")
    return CuratedPairs.from_parts(facts, Pairs(texts, smiles), arrays["split"].tolist())


def _header(data: bytes) -> Any:
    size = int.from_bytes(data[:8], "little")
    try:
        return json.loads(json.loads(data[8 : 8 + size])["__metadata__"][METADATA])
    except (ValueError, KeyError, TypeError) as error:
        raise _bad("has no header of ours") from error


def _bad(what: str) -> CleanSetError:
    return refuse("bad_blob", f"The stored clean set {what}; add the clean set again.")


def _packed(parts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [part.encode() for part in parts]
    ends = np.cumsum([len(part) for part in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), np.uint8), ends


def _unpacked(data: np.ndarray, ends: np.ndarray) -> tuple[str, ...]:
    whole, starts = data.tobytes(), [0, *ends.tolist()]
    if any(first >= last for first, last in pairwise(starts)) or (starts[-1] != len(whole)):
        raise ValueError("the ends do not rise to the length of the data")
    return tuple(whole[first:last].decode() for first, last in pairwise(starts))


def _sizes(split: np.ndarray) -> dict[str, int]:
    counts = np.bincount(split, minlength=PARTS).tolist()
    if len(counts) != PARTS or not all(counts):
        raise ValueError("a part is empty")
    return dict(zip(("search", "calibration", "holdout"), counts, strict=True))
