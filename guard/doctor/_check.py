"""What a check is, what it finds, and what it works with."""

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from stat import S_IMODE, S_IWGRP, S_IWOTH
from typing import TYPE_CHECKING, Any

from guard.core.errors import Unavailable
from guard.flow.context import utc_now
from guard.store.session import database_url, make_engine, reading

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

    from guard.settings import Settings

#: Names of objects and files that a check makes and removes.
PROBE = "guard-doctor-"
OTHERS_WRITE = S_IWGRP | S_IWOTH


class State(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"  # it works; a person should know
    FAILED = "failed"
    UNKNOWN = "could_not_check"  # not seen to work, which is not the same as well


@dataclass(frozen=True)
class Finding:
    """The finding of one check: one sentence, and one on what to do unless it is well."""

    state: State
    sentence: str
    mend: str = ""
    check: str = ""

    def to_dict(self) -> dict[str, str]:
        """JSON-ready."""
        return {
            "check": self.check,
            "state": str(self.state),
            "sentence": self.sentence,
            "mend": self.mend,
        }


def ok(sentence: str) -> Finding:
    """It is well."""
    return Finding(State.OK, sentence)


def warning(sentence: str, mend: str) -> Finding:
    """It works, and something about it should be otherwise."""
    return Finding(State.WARNING, sentence, mend)


def failed(sentence: str, mend: str) -> Finding:
    """It does not work, or is not safe."""
    return Finding(State.FAILED, sentence, mend)


def unknown(sentence: str, mend: str) -> Finding:
    """It could not be checked."""
    return Finding(State.UNKNOWN, sentence, mend)


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to check: what to leave out, how long each check may take, whose rights to try.

    `uploader_profile` is a profile of the AWS configuration with the credentials of an uploader.
    """

    skip: frozenset[str] = frozenset()
    seconds: float = 15.0
    uploader_profile: str = ""


@dataclass(frozen=True)
class Ground:
    """What checks work with; connections are made when they are first used."""

    settings: "Settings"
    options: Options = field(default_factory=Options)
    now: Callable[[], datetime] = utc_now

    @cached_property
    def engine(self) -> "Engine":
        """The database.

        Raises:
            Unavailable: it is a file that does not exist; opening it would make one.
        """
        url = database_url(self.settings.database_url)
        if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
            raise Unavailable("There is no database file.", code="no_database")
        return make_engine(self.settings.database_url)

    def reading(self) -> "AbstractContextManager[Session]":
        """A session that only reads; raises Unavailable as `engine`, or at the first query."""
        return reading(self.engine)

    @cached_property
    def s3(self) -> Any:
        """A client of the store with the guard's own credentials."""
        from guard.events.bucket import make_client

        settings = self.settings
        return make_client(
            endpoint=settings.s3_endpoint,
            region=settings.s3_region,
            access_key=settings.s3_access_key,
            secret_key=settings.s3_secret_key.reveal(),
        )

    def close(self) -> None:
        """Give connections back."""
        with suppress(Unavailable):
            self.engine.dispose()


@dataclass(frozen=True)
class Check:
    """One check; `seconds` is its own limit, where it may take longer than others."""

    name: str
    run: Callable[[Ground], Finding]
    seconds: float = 0.0


def mode_of(path: Path) -> int:
    """The permission bits of a file or folder."""
    return S_IMODE(path.stat().st_mode)
