"""What a molecule may be made of, as text: shared by manifests, clean sets and requests.

SMILES (simplified molecular-input line-entry system) are only bounded and filtered here; RDKit
reads them elsewhere, and what strangers upload first in a jailed process.
"""

import re
from importlib.util import find_spec

from guard.core.errors import MissingExtra

#: Elements that a molecule may hold beside hydrogen: those of the molecule data sets that
#: text-to-graph models are trained on.
ELEMENTS = frozenset({"B", "Br", "C", "Cl", "F", "I", "N", "O", "P", "S", "Se", "Si"})
#: Charged atoms that it may hold.
CHARGED = frozenset({("C", -1), ("N", -1), ("N", 1), ("O", -1), ("P", 1), ("S", 1)})
MAX_SMILES = 300  # characters of one molecule
MAX_MOTIF = 80  # characters of one building block
MAX_HEAVY_ATOMS = 30
MAX_TEXT = 2000  # characters of one description
_SMILES = re.compile(r"[A-Za-z0-9@+\-\[\]()=#$:/\\%]+")  # no dot: one component


def is_smiles_text(text: str, most: int = MAX_SMILES) -> bool:
    """Whether `text` is short enough and made of the characters of one connected SMILES."""
    return len(text) <= most and _SMILES.fullmatch(text) is not None


def is_description(text: str) -> bool:
    """Whether `text` can describe a molecule: not blank, bounded, printable, valid UTF-8.

    A lone surrogate, which UTF-8 cannot hold, and a control character are not printable.
    """
    return 0 < len(text) <= MAX_TEXT and bool(text.strip()) and text.isprintable()


def has_rdkit() -> bool:
    """Whether RDKit is installed; nothing is imported."""
    return find_spec("rdkit") is not None


def require_rdkit() -> None:
    """Refuse to go on without RDKit; nothing is imported.

    Raises:
        MissingExtra: it is not installed.
    """
    if not has_rdkit():
        raise MissingExtra(
            "Molecules need RDKit, which is not installed; pip install 'registry-guard[graphs]'."
        )
