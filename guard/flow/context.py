"""What every use case needs, joined once by `guard.bootstrap`."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.contracts import Publisher
from guard.jobs.run import Limits

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from guard.attest.keys import Signer, TrustedKeys
    from guard.blobs import Blobs
    from guard.events.bucket import Bucket
    from guard.policy import Policy
    from guard.settings import Settings

SPARE = 60.0  # seconds of a job beside its methods: to start, to read and to write


def utc_now() -> datetime:
    """The one clock of the guard."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Guard:
    """Everything a use case works with.

    The signer is made on first use: only the control worker has the key.
    """

    settings: "Settings"
    engine: "Engine"
    blobs: "Blobs"
    policy: "Policy"
    make_bucket: Callable[[str], "Bucket"]
    make_signer: Callable[[], "Signer"]
    make_trusted: Callable[[], "TrustedKeys"]
    make_publisher: Callable[[], Publisher]
    child_environment: dict[str, str]
    now: Callable[[], datetime] = utc_now

    @cached_property
    def signer(self) -> "Signer":
        """The private key; raises InputError where this process has none."""
        return self.make_signer()

    @property
    def trusted(self) -> "TrustedKeys":
        """The public keys in force, read anew so that a rotation needs no restart."""
        return self.make_trusted()

    @cached_property
    def publisher(self) -> Publisher:
        """Where approved artifacts are served."""
        return self.make_publisher()

    def limits(self, seconds: float | None = None) -> Limits:
        """What one job may use."""
        return Limits(
            seconds=seconds or self.settings.scan_seconds,
            memory_bytes=self.settings.scan_memory_bytes,
            environment=self.child_environment,
        )

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A private folder that is gone afterwards.

        Under the data folder so that big files do not fill /tmp.
        """
        root = Path(self.settings.data_dir) / "work"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=root) as folder:
            yield Path(folder)
