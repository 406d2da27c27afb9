"""What an interrupted retraining needs to go on: the sift that it rests on, beside its checkpoints.

A long training is a folder of its own. `sift.json` in it is complete or not there, and belongs to
one request; the checkpoints of the training lie beside it.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from guard.core.digests import sha256
from guard.core.errors import InputError, IntegrityMismatch
from guard.core.plain import from_plain, to_plain
from guard.core.sift import SiftReport
from guard.vetting.sift import Sift

SIFT, LOCK = "sift.json", "lock"


class RetrainState:
    """The folder of one retraining.

    Args:
        folder: created when the work begins, readable by its owner only.
        key: SHA-256 of all that the sift and the training depend on.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    @contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time inside the block; a folder without a sift is gone after it.

        Raises:
            InputError: another process trains here.
        """
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / LOCK).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(
                    f"Another process keeps its training in {self.folder}; wait for it, or name "
                    "another --out.",
                    code="retraining_runs",
                ) from error
            try:
                yield
            finally:
                if not begun(self.folder):
                    self.forget()

    def fits(self) -> bool:
        """Whether nothing lies there, or what does belongs to this request."""
        try:
            self.load()
        except InputError:
            return False
        return True

    def load(self) -> Sift | None:
        """The sift of this request, as far as a training needs it; None where there is none.

        Raises:
            InputError: what lies there belongs to another request.
            IntegrityMismatch: the file's bytes are not those that were written.
        """
        if not begun(self.folder):
            return None
        digest, _, text = (self.folder / SIFT).read_text(encoding="utf-8").partition("\n")
        if digest != sha256(text.encode()):
            raise IntegrityMismatch(
                f"{self.folder / SIFT} is damaged; delete {self.folder} and train from the start.",
                code="training_checkpoint_damaged",
            )
        stored = json.loads(text)
        if stored["key"] != self.key:
            raise InputError(
                f"The training in {self.folder} has another model, set, method, parameter, seed or "
                "version; repeat its command with --resume, or delete the folder.",
                code="other_retraining",
            )
        return Sift(
            report=from_plain(SiftReport, stored["report"]),
            trusted=np.array(stored["trusted"], np.int64),
        )

    def save(self, found: Sift) -> None:
        """Keep a sift, whole or not at all."""
        text = json.dumps(
            {
                "key": self.key,
                "report": to_plain(found.report),
                "trusted": found.trusted.tolist(),
            }
        )
        partial = self.folder / f".{SIFT}.part"
        with partial.open("w", encoding="utf-8") as file:
            file.write(f"{sha256(text.encode())}\n{text}")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / SIFT)

    def forget(self) -> None:
        """Delete the folder, once its result is safe elsewhere."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def begun(folder: Path) -> bool:
    """Whether a training was begun in this folder and not finished."""
    return (folder / SIFT).is_file()
