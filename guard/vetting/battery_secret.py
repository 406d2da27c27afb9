"""The installation's secret that batteries of changes are drawn from (`guard.ml.search.battery`).

A file in the data folder, made once. Machines that should give the same findings hold the same
file. Verdicts hold a commitment to it and never the secret.
"""

import os
import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from guard.core.errors import InputError
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS

FILE = Path("keys") / "battery.secret"
BYTES = 32
#: The name under which evidence holds the commitment among its digests.
COMMITMENT = "battery"


def kept_in(data_dir: Path) -> bytes:
    """The secret in this data folder; made with mode 0600 where there is none yet.

    Two processes that make it at the same time end up with the same one.

    Raises:
        InputError: it cannot be read or written, or the file holds something else.
    """
    path = data_dir / FILE
    try:
        if not path.exists():
            _make(path)
        secret = bytes.fromhex(path.read_text().strip())
    except (OSError, ValueError) as error:
        raise InputError(
            f"The battery's secret {path} cannot be read or made: {error}.", code="battery_secret"
        ) from error
    if len(secret) < BYTES:
        raise InputError(
            f"{path} holds no secret of {BYTES} bytes; remove it, and a new one is made.",
            code="battery_secret",
        )
    return secret


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(f".partial-{os.getpid()}-{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(secrets.token_hex(BYTES) + "\n")
    try:
        os.link(partial, path)  # unlike a rename, it leaves the secret of a faster process
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def needed_by(methods: Iterable[str], data_dir: Path) -> str:
    """The secret in hexadecimal, for a job's request; empty where none of them draws a battery.

    Detectors and defenses are named.
    """
    shelves = (DETECTORS, DEFENSES)
    drawn = any(
        shelf.get(name).draws_battery for name in methods for shelf in shelves if name in shelf
    )
    return kept_in(data_dir).hex() if drawn else ""


def given(hexadecimal: str) -> AbstractContextManager[None]:
    """Draw from a secret that `needed_by` gave; where it is empty, nothing is drawn."""
    from guard.ml.search.battery import PUBLIC, drawing_from

    secret = bytes.fromhex(hexadecimal) if hexadecimal else PUBLIC
    return drawing_from(lambda: secret)


def of_folder(data_dir: Callable[[], Path]) -> AbstractContextManager[None]:
    """Draw from the secret in a data folder; folder and secret are asked for once it is needed."""
    from guard.ml.search.battery import drawing_from

    return drawing_from(lambda: kept_in(data_dir()))


def commitment_of(secret: str) -> str:
    """What evidence and verdicts show of a secret that `needed_by` gave; empty for none."""
    from guard.ml.search.battery import commitment

    if not secret:
        return ""
    with given(secret):
        return commitment()
