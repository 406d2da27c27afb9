"""The program that `_motifs` runs in the jail: SMILES on stdin become numbers of atoms on stdout.

RDKit's parsers are C++ and read here, for the first time, what a stranger wrote. The output is not
trusted: the parent checks it again.
"""

import json
import os
import sys

from guard.core.errors import Unavailable
from guard.formats import _locks
from guard.formats._jail import LOCKED, SENT


def _atoms(smiles: str) -> int:
    """Heavy atoms of a fragment; 0 where RDKit cannot read it."""
    from rdkit import Chem

    molecule: Chem.Mol | None = Chem.MolFromSmiles(smiles)
    return 0 if molecule is None else int(molecule.GetNumAtoms())


def _send(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def main() -> int:
    """Lock this process, report it, parse; the only argument is a JSON object of limits."""
    limits = json.loads(sys.argv[1])
    try:
        own_namespaces = _locks.leave_the_world()
        from rdkit import RDLogger

        RDLogger.DisableLog("rdApp.*")  # type: ignore[attr-defined]
        _atoms("c1ccccc1")  # whatever is imported on first use; no file can be opened afterwards
        _locks.lock(
            memory_bytes=limits["memory_bytes"],
            cpu_seconds=limits["cpu_seconds"],
            drop_user=not own_namespaces,
        )
    except Unavailable as error:
        sys.stderr.write(error.sentence)
        return 1
    _send(LOCKED)
    with open(0, "rb", closefd=False) as file:
        found = [_atoms(smiles) for smiles in json.loads(file.read())]
    _send(SENT + json.dumps(found).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
