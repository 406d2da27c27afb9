"""Have an upload's motifs read by RDKit in the jail, before anything else parses them."""

import io
import json
from collections.abc import Sequence
from typing import Any

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected, Unavailable
from guard.core.molecules import MAX_MOTIF, is_smiles_text, require_rdkit
from guard.formats._bytes import reject, show
from guard.formats._jail import run_jailed

PROGRAM = ("-m", "guard.formats._motif_child")
_SECONDS = 30.0


def check_motifs(motifs: Sequence[str]) -> None:
    """Refuse motifs that RDKit cannot read, or that break it.

    Args:
        motifs: SMILES, already limited in number, length and characters by the manifest.

    Raises:
        ArtifactRejected: `manifest_motif_refused`; the sentence names the motif.
        Unavailable: this machine cannot build a jail.
        MissingExtra: RDKit is not installed.
    """
    require_rdkit()
    for motif in motifs:
        if not is_smiles_text(motif, MAX_MOTIF):
            raise _refused(f"the motif {show(motif)} is no SMILES of one fragment")
    out, budget = io.BytesIO(), Budget(seconds=_SECONDS, file_bytes=1 << 20)
    try:
        run_jailed(
            io.BytesIO(json.dumps(list(motifs)).encode()), out, budget=budget, program=PROGRAM
        )
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


def _is_answer(found: Any, count: int) -> bool:
    return (
        isinstance(found, list) and len(found) == count and all(type(one) is int for one in found)
    )


def _refused(why: str) -> ArtifactRejected:
    return reject("manifest_motif_refused", f"The model cannot be vetted: {why}.")
