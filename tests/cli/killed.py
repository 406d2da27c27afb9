"""A `guard.retrain` that is killed by SIGKILL on the way: `SET MODEL CLEANSET POLICY OUT SHARE`."""

import os
import signal
import sys

import torch

import guard
from tests.cli import sets


def main(taught: str, model: str, clean: str, policy: str, out: str, share: str) -> None:
    torch.set_num_threads(sets.THREADS)

    def die(done: float, note: str = "") -> None:
        if done >= float(share):
            os.kill(os.getpid(), signal.SIGKILL)

    guard.retrain(
        taught,
        like=model,
        method="sifted",
        cleanset=clean,
        out=out,
        params=sets.EPOCHS,
        policy=policy,
        sifters=sets.QUICK,
        progress=die,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
