"""Have an upload's motifs read by RDKit in the jail, before anything else parses them."""

import io
import json
from collections.abc import Sequence
from typing import Any

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, Unavailable
from guard.core.molecules import ELEMENTS, MAX_MOTIF, is_smiles_text, require_rdkit
from guard.formats._bytes import reject, show
from guard.formats._jail import run_jailed

PROGRAM = ("-m", "guard.formats._motif_child")
_SECONDS = 30.0


def check_motifs(motifs: Sequence[str]) -> list[int]:
    """The heavy atoms of each motif; one that RDKit cannot read, or that breaks it, is refused.

    Args:
        motifs: SMILES, or symbols of single atoms; the manifest has limited their number, length
            and characters.

    Raises:
        ArtifactRejected: `manifest_motif_refused`; the sentence names the motif.
        Unavailable: this machine cannot build a jail.
        MissingExtra: RDKit is not installed.
    """
    require_rdkit()
    for motif in motifs:
        if not is_smiles_text(motif, MAX_MOTIF):
            raise _refused(f"the motif {show(motif)} is no SMILES of one fragment")
    # A single atom is named by its symbol, and some of those are no SMILES: Si, Se.
    asked = [f"[{motif}]" if motif in ELEMENTS else motif for motif in motifs]
    out, budget = io.BytesIO(), Budget(seconds=_SECONDS, file_bytes=1 << 20)
    try:
        run_jailed(io.BytesIO(json.dumps(asked).encode()), out, budget=budget, program=PROGRAM)
        found = json.loads(out.getvalue())
    except Unavailable as error:
        sentence = error.sentence.replace("PyTorch checkpoints", "motifs")
        raise Unavailable(sentence, code=error.code) from error
    except (ArtifactRejected, ValueError) as error:
        raise _refused("its motifs break RDKit, or take too long to read") from error
    if not _is_answer(found, len(motifs)):
        raise _refused("its motifs break RDKit")
    for motif, atoms in zip(motifs, found, strict=True):
        if atoms == 0:
            raise _refused(f"RDKit cannot read the motif {show(motif)}")
    return list(found)


def _is_answer(found: Any, count: int) -> bool:
    return (
        isinstance(found, list) and len(found) == count and all(type(one) is int for one in found)
    )


def _refused(why: str) -> ArtifactRejected:
    return reject("manifest_motif_refused", f"The model cannot be vetted: {why}.")
