"""The guard's own processes, each started with `python -m ...` as in production."""

import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from guard.local._ports import LOOPBACK
from guard.local._process import Process
from guard.local.component import Component, Place, answers

#: Celery's set of all processes that take remote commands; a worker is in it once it consumes.
_PIDBOX = "_kombu.binding.celery.pidbox"
_MIGRATE = """
from guard.bootstrap import open_guard
from guard.flow.principals import person
from guard.flow.schema import upgrade
guard = open_guard()
upgrade(guard, "guard up", lambda: person(guard, guard.settings.token.reveal(), "guard up"))
"""


class _Guard(Component):
    """One Python process with the settings of the whole stack."""

    #: What the kernel sends it if the supervisor dies. Celery understands SIGTERM as "finish your
    #: work first".
    death_signal: int = signal.SIGTERM

    def __init__(self, place: Place, settings: Callable[[], dict[str, str]]) -> None:
        self._place = place
        self._settings = settings

    def arguments(self) -> Sequence[str]:
        """The arguments of the Python interpreter."""
        raise NotImplementedError

    def start(self) -> Process:
        return Process(
            [sys.executable, *self.arguments()],
            env={**self._place.env, **self._settings()},
            cwd=self._place.run,
            log=self._log(),
            death_signal=self.death_signal,
        )

    def _log(self) -> Path:
        return self._place.run / f"{self.name}.log"


class Migration(_Guard):
    """Brings the database's schema up to date; it counts as working once it has succeeded."""

    name: ClassVar[str] = "database"
    start_seconds = 3600.0  # a large database takes long; one that fails ends by itself

    def arguments(self) -> Sequence[str]:
        return ["-c", _MIGRATE]

    def start(self) -> Process:
        self._process = super().start()
        return self._process

    def works(self) -> bool:
        return self._process.exit_code() == 0

    @property
    def address(self) -> str:
        url = self._settings().get("GUARD_DATABASE_URL", "")
        return url if url.startswith("sqlite") else url.split("@")[-1]


class Api(_Guard):
    """The HTTP API and the console."""

    name: ClassVar[str] = "api"
    start_seconds = 60.0

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self._place.ports['api']}"

    def arguments(self) -> Sequence[str]:
        return [
            "-m",
            "uvicorn",
            "guard.api.app:from_settings",
            "--factory",
            "--host",
            LOOPBACK,
            "--port",
            str(self._place.ports["api"]),
            "--no-access-log",
            "--log-level",
            "warning",
        ]

    def works(self) -> bool:
        return answers(f"{self.address}/health/live", below=300)


class Relay(_Guard):
    """The process that sends outbox rows as messages."""

    name: ClassVar[str] = "relay"
    start_seconds = 60.0

    def arguments(self) -> Sequence[str]:
        return ["-m", "workers.relay"]

    def start(self) -> Process:
        self._process = super().start()
        return self._process

    def works(self) -> bool:
        # It has no address, and waits by itself for the services that it needs.
        return self._process.exit_code() is None

    @property
    def address(self) -> str:
        return "database -> broker"


class Poller(Relay):
    """The process that takes events from an SQS queue; it waits by itself for the queue."""

    name: ClassVar[str] = "poller"

    def arguments(self) -> Sequence[str]:
        return ["-m", "workers.poller"]

    @property
    def address(self) -> str:
        return "queue -> database"


class Beat(Relay):
    """The scheduler of periodic tasks: sweep, rescue, reconcile."""

    name: ClassVar[str] = "beat"

    def arguments(self) -> Sequence[str]:
        return [
            "-m",
            "celery",
            "-A",
            "workers.app",
            "beat",
            "--pidfile=",
            "--loglevel",
            "WARNING",
            "-s",
            str(self._place.run / "beat"),
        ]

    @property
    def address(self) -> str:
        return "broker"


class Worker(_Guard):
    """A Celery worker for some queues.

    Args:
        queues: names from `guard.core.queues.QUEUES`.
        processes: how many tasks it runs at once.
    """

    name: ClassVar[str] = "worker"
    start_seconds = 60.0
    death_signal = signal.SIGQUIT

    def __init__(
        self,
        place: Place,
        settings: Callable[[], dict[str, str]],
        *,
        name: str,
        queues: Sequence[str],
        processes: int,
    ) -> None:
        super().__init__(place, settings)
        self.name = name  # type: ignore[misc]  # several workers in one stack
        self._queues = queues
        self._processes = processes

    @property
    def address(self) -> str:
        return ", ".join(self._queues)

    def arguments(self) -> Sequence[str]:
        return [
            "-m",
            "celery",
            "-A",
            "workers.app",
            "worker",
            "-P",
            "prefork",
            "-c",
            str(self._processes),
            "-O",
            "fair",
            "-Q",
            ",".join(self._queues),
            "-n",
            self._node(),
            "--without-gossip",
            "--without-mingle",
            "--loglevel",
            "WARNING",
        ]

    def works(self) -> bool:
        import redis

        try:
            with redis.Redis.from_url(
                self._settings()["GUARD_REDIS_URL"], socket_timeout=2, socket_connect_timeout=2
            ) as broker:
                return any(
                    self._node().encode() in bytes(member) for member in broker.smembers(_PIDBOX)
                )
        except redis.RedisError:
            return False

    def _node(self) -> str:
        return f"{self.name}@{self._place.secrets['node']}"
