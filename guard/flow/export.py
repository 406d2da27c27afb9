"""Write what is published under a name into a folder, to carry it elsewhere."""

import shutil
from pathlib import Path

from guard.core.errors import InputError
from guard.flow.context import Guard
from guard.flow.publish import view
from guard.publishers import SIGNATURE, WEIGHTS, carried
from guard.store import publications, scans
from guard.store.rows import PublicationRow
from guard.store.session import reading


def export(guard: Guard, name: str, folder: Path) -> PublicationRow:
    """Write weights, configuration, release and, where there is one, model signature.

    Args:
        folder: must not exist yet, or be empty.

    Raises:
        InputError: nothing is published under the name, or the folder holds something.
        NotServable, IntegrityMismatch: the gate refuses the model now, or its bytes were changed.
    """
    with reading(guard.engine) as session:
        row = next(iter(publications.active(session, name)), None)
        scan = None if row is None else next(iter(scans.for_digest(session, row.digest)), None)
    if row is None or scan is None:
        raise InputError(f"Nothing is published as {name!r}.", code="not_published")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty; name a new folder.", code="bad_out")
    view(guard, scan)
    folder.mkdir(parents=True, exist_ok=True)
    with guard.blobs.open(row.digest) as weights:
        files = carried(weights, row.envelope)
        weights.seek(0)
        with (folder / WEIGHTS).open("xb") as out:
            shutil.copyfileobj(weights, out)
    if (signature := (row.receipt.get("detail") or {}).get(SIGNATURE)) is not None:
        files[SIGNATURE] = str(signature).encode()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    return row
