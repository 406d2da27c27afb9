"""A process that trains, and is killed by SIGKILL on the way: `NAME FOLDER SHARE THREADS`."""

import os
import signal
import sys
from pathlib import Path

import torch

from guard.core.digests import sha256
from guard.ml.training.checkpoints import FolderCheckpoint
from guard.retrainers import RETRAINERS
from tests import toys
from tests.retrainers import sets


def main(name: str, folder: str, share: str, threads: str) -> None:
    torch.set_num_threads(int(threads))

    def die(done: float, note: str = "") -> None:
        if done >= float(share):
            os.kill(os.getpid(), signal.SIGKILL)

    retrainer = RETRAINERS.get(name)
    retrainer(**retrainer.quick())(
        toys.manifest(),
        sets.poisoned(),
        toys.clean_set(),
        sets.sift(),
        checkpoint=FolderCheckpoint(Path(folder), sha256(name.encode())),
        seed=3,
        progress=die,
        device="cpu",
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
