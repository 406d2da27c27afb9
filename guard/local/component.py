"""The contract between the supervisor and each part of the embedded stack."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from guard.local._process import Process


class State(StrEnum):
    """The state of one part."""

    STARTING = "starting"
    READY = "ready"
    EXTERNAL = "external"  # was running already; it is used, not started
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True)
class Status:
    """One line of the output of `guard up`; the address never holds a password."""

    component: str
    address: str
    pid: int | None
    state: State
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The folders of a stack and what its parts share.

    `data` survives a restart, `run` (private, short path) does not. `secrets` are made once for
    this data folder. `env` is what guard processes inherit; services get a clean environment.
    """

    data: Path
    run: Path
    secrets: Mapping[str, str]
    env: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=dict)

    def clean_environment(self, home: Path) -> dict[str, str]:
        """The few variables that a service needs, without credentials of whoever started it."""
        return {"PATH": self.env.get("PATH", "/usr/bin:/bin"), "HOME": str(home), "LANG": "C.UTF-8"}


class Component(ABC):
    """One part: how to start it, how to check that it works, and what others must know of it."""

    name: ClassVar[str]
    #: How long it may take to start working, and to stop when asked, in seconds.
    start_seconds: float = 30.0
    stop_seconds: float = 10.0

    @abstractmethod
    def start(self) -> Process:
        """Write the files that it needs, start it, and return at once."""

    @abstractmethod
    def works(self) -> bool:
        """Whether it answers now; called repeatedly, so it never waits long."""

    @property
    @abstractmethod
    def address(self) -> str:
        """Where it answers, without a password."""

    def prepare(self) -> None:  # noqa: B027 - most parts have nothing to do
        """Called once it works, before it is reported as ready."""

    def environment(self) -> dict[str, str]:
        """The settings (GUARD_*) by which others find it."""
        return {}

    def clean(self) -> None:  # noqa: B027 - most parts leave nothing
        """Remove what it leaves outside its folders, after it has stopped."""


def answers(url: str, *, below: int = 500) -> bool:
    """Whether a URL answers with a status under `below`."""
    import httpx

    try:
        return httpx.get(url, timeout=2.0, trust_env=False).status_code < below
    except httpx.HTTPError:
        return False
