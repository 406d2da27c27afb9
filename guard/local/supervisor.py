"""The embedded stack: all services of the guard on one machine, started from pip packages.

    with Stack(folder, env) as stack:
        stack.start(report)
        stack.wait()

The parts end together. Parts that run elsewhere, according to the environment (`REDIS_URL`,
`GUARD_S3_ENDPOINT`, `GUARD_TORCHSERVE_MANAGEMENT`), are used instead of started. A part that dies
is reported, not restarted: on one machine a person should see it.
"""

import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Self

from guard.core.errors import Unavailable
from guard.local._ports import free_ports
from guard.local._run_folder import RunFolder, read_record
from guard.local.component import Component, Place, State, Status
from guard.local.guard_processes import Api, Beat, Migration, Poller, Relay, Worker
from guard.local.open_inference import OpenInference
from guard.local.torchserve import PORTS as TORCHSERVE_PORTS
from guard.local.torchserve import Torchserve
from guard.local.valkey import Valkey
from guard.local.weed import BUCKET, Weed
from guard.local.weed import PORTS as WEED_PORTS

if TYPE_CHECKING:
    from guard.local._process import Process

#: In the order of starting; each group waits for the one before it.
SERVICES = ("seaweedfs", "valkey", "torchserve", "open_inference", "database")
GUARD = (
    "api",
    "relay",
    "worker-scan",
    "worker-train",
    "worker-inspect",
    "worker-control",
    "worker-watch",
    "worker-notify",
    "beat",
    "poller",
)
PARTS = (*SERVICES, *GUARD)
#: Part -> the variables that are set if it runs elsewhere.
ELSEWHERE = {
    "seaweedfs": ("GUARD_S3_ENDPOINT",),
    "valkey": ("GUARD_REDIS_URL", "REDIS_URL"),
    "torchserve": ("GUARD_TORCHSERVE_MANAGEMENT",),
    "open_inference": ("GUARD_OPEN_INFERENCE_MANAGEMENT",),
}
_POLL_SECONDS = 0.05

Report = Callable[[Status], None]


class Stack:
    """Starts, watches and ends the parts.

    Use it from the main thread: parts end with the thread that started them.

    Args:
        folder: data folder; one stack at a time.
        env: the environment that guard processes inherit; its settings override what the stack
            would choose.
        parts: which of `PARTS` to start.

    Raises:
        InputError: another stack uses the folder.
    """

    def __init__(
        self, folder: Path, env: Mapping[str, str], *, parts: Collection[str] = PARTS
    ) -> None:
        self._held = RunFolder(folder.expanduser().absolute())
        self._env = dict(env)
        names = ["valkey", "api", "open_inference"]
        names += [f"weed_{name}" for name in WEED_PORTS] + [
            f"ts_{name}" for name in TORCHSERVE_PORTS
        ]
        self._place = Place(
            data=self._held.data,
            run=self._held.run,
            secrets=self._held.secrets,
            env=self._env,
            ports=dict(zip(names, free_ports(len(names)), strict=True)),
        )
        self._external = {part: address for part in parts if (address := self._elsewhere(part))}
        self._components = {
            component.name: component
            for component in self._make()
            if component.name in parts and component.name not in self._external
        }
        self._processes: dict[str, Process] = {}
        self._states: dict[str, State] = dict.fromkeys(self._components, State.STOPPED)
        self._details: dict[str, str] = {}
        self._report: Report = _no_report

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def api_address(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self._place.ports['api']}"

    def environment(self) -> dict[str, str]:
        """The settings (GUARD_*) by which any guard process finds this stack, with secrets."""
        data = self._place.data
        chosen = {
            "GUARD_DATA_DIR": str(data),
            "GUARD_DATABASE_URL": f"sqlite:///{data / 'guard.db'}",
            "GUARD_BLOB_URL": str(data / "blobs"),
            "GUARD_WEBHOOK_TOKEN": self._place.secrets["webhook"],
            "GUARD_SIGNING_KEY_FILE": str(data / "keys" / "signing.pem"),
            "GUARD_TRUSTED_KEYS_FILE": str(self._trusted()),
        }
        for component in self._components.values():
            chosen |= component.environment()
        given = {
            name: value for name, value in self._env.items() if name.startswith("GUARD_") and value
        }
        # Who started the stack is not who calls a command in another terminal.
        given.pop("GUARD_TOKEN", None)
        for alias in ("DATABASE_URL", "REDIS_URL"):
            if self._env.get(alias):
                given.setdefault(f"GUARD_{alias}", self._env[alias])
        return chosen | given

    def start(self, report: Report | None = None) -> None:
        """Start every part and wait until each works; `report` is called at each change.

        Raises:
            Unavailable: a part did not start; the sentence quotes the end of its log. Call `stop`
                all the same.
        """
        self._report = report or _no_report
        for part, address in self._external.items():
            self._report(Status(component=part, address=address, pid=None, state=State.EXTERNAL))
        for group in (SERVICES, GUARD):
            mine = [self._components[name] for name in group if name in self._components]
            for component in mine:
                self._move(component.name, State.STARTING)
                try:
                    self._processes[component.name] = component.start()
                except (OSError, Unavailable) as error:
                    self._move(component.name, State.FAILED, str(error))
                    raise Unavailable(f"{component.name} could not be started: {error}") from error
                self._record()
            self._await(mine)
        self._check()

    def status(self) -> list[Status]:
        """The current status of each part, in the order of starting."""
        for name, process in self._processes.items():
            ended = process.exit_code()
            if self._states[name] is State.READY and ended is not None and name != Migration.name:
                self._move(name, State.FAILED, f"ended with {ended}\n{process.tail()}")
        return [
            self._status(name)
            for name in PARTS
            if name in self._components or name in self._external
        ]

    def wait(self, stop: threading.Event | None = None) -> None:
        """Watch until `stop` is set, a signal ends the process, or a part dies.

        Raises:
            Unavailable: a part died.
        """
        while stop is None or not stop.is_set():
            self._check()
            time.sleep(_POLL_SECONDS * 4)

    def restart(self, part: str) -> None:
        """Start a part again, after ending what is left of it.

        Raises:
            Unavailable: it did not start.
        """
        component = self._components[part]
        old = self._processes.pop(part, None)
        if old is not None:
            old.ask_to_stop()
            old.end(time.monotonic() + component.stop_seconds)
            component.clean()
        self._move(part, State.STARTING)
        self._processes[part] = component.start()
        self._record()
        self._await([component])

    def stop(self) -> None:
        """End everything, the guard's own processes first; a second call is harmless."""
        for group in (GUARD, SERVICES):
            running = [name for name in group if name in self._processes]
            for name in running:
                self._processes[name].ask_to_stop()
            patience = max((self._components[name].stop_seconds for name in running), default=0.0)
            deadline = time.monotonic() + patience
            for name in running:
                self._processes.pop(name).end(deadline)
                self._components[name].clean()
                self._move(name, State.STOPPED)
        self._held.close()

    def _check(self) -> None:
        for status in self.status():
            if status.state is State.FAILED:
                raise Unavailable(f"{status.component} {status.detail}")

    def _make(self) -> Iterator[Component]:
        yield Weed(
            self._place,
            webhook=f"{self.api_address}/events/s3",
            token=self._env.get("GUARD_WEBHOOK_TOKEN") or self._place.secrets["webhook"],
            bucket=self._env.get("GUARD_INTAKE_BUCKET") or BUCKET,
        )
        yield Valkey(self._place)
        if self._env.get("GUARD_PUBLISHER", "torchserve").strip() in ("", "torchserve"):
            yield Torchserve(self._place, trusted=self._trusted())
        elif self._env["GUARD_PUBLISHER"].strip() == "open_inference":
            yield OpenInference(self._place, trusted=self._trusted())
        yield Migration(self._place, self.environment)
        yield Api(self._place, self.environment)
        yield Relay(self._place, self.environment)
        # One scan at a time: it may hold the GPU, and all the memory a machine has.
        yield Worker(
            self._place, self.environment, name="worker-scan", queues=("scan",), processes=1
        )
        # Of its own, since a training may take days.
        yield Worker(
            self._place, self.environment, name="worker-train", queues=("train",), processes=1
        )
        # Apart from each other: an upload may hold who reads it, or who publishes it, for minutes.
        for name, queues, processes in (
            ("worker-inspect", ("inspect",), 2),
            ("worker-control", ("publish", "control"), 2),
            ("worker-watch", ("watch",), 1),
            ("worker-notify", ("notify",), 1),
        ):
            yield Worker(
                self._place, self.environment, name=name, queues=queues, processes=processes
            )
        yield Beat(self._place, self.environment)
        if self._env.get("GUARD_SQS_QUEUE_URL"):
            yield Poller(self._place, self.environment)

    def _await(self, components: Collection[Component]) -> None:
        start = time.monotonic()
        waiting = {component.name: component for component in components}
        while waiting:
            for name, component in list(waiting.items()):
                process = self._processes[name]
                # Checked before `works`: a part that succeeds may end between the two checks.
                ended = process.exit_code() is not None
                if component.works():
                    component.prepare()
                    self._move(name, State.READY)
                    del waiting[name]
                elif ended or time.monotonic() - start > component.start_seconds:
                    why = "ended" if ended else f"did not work in {component.start_seconds:g} s"
                    self._move(name, State.FAILED, why)
                    raise Unavailable(f"{name} {why}; its log ends with:\n{process.tail()}")
            time.sleep(_POLL_SECONDS)

    def _move(self, name: str, state: State, detail: str = "") -> None:
        self._states[name], self._details[name] = state, detail
        self._report(self._status(name))

    def _status(self, name: str) -> Status:
        if name in self._external:
            return Status(
                component=name, address=self._external[name], pid=None, state=State.EXTERNAL
            )
        process = self._processes.get(name)
        return Status(
            component=name,
            address=self._components[name].address,
            state=self._states[name],
            pid=process.pid if process else None,
            detail=self._details.get(name, ""),
        )

    def _record(self) -> None:
        self._held.record(
            {name: process.pid for name, process in self._processes.items()}, self.environment()
        )

    def _elsewhere(self, part: str) -> str:
        for variable in ELSEWHERE.get(part, ()):
            if self._env.get(variable):
                return self._env[variable].split("@")[-1]  # without user and password
        return ""

    def _trusted(self) -> Path:
        given = self._env.get("GUARD_TRUSTED_KEYS_FILE")
        return Path(given) if given else self._place.data / "keys" / "trusted.json"


def running_environment(folder: Path) -> dict[str, str]:
    """The settings of the stack that uses this data folder now, for commands in other terminals.

    Empty if no stack uses it.
    """
    value = read_record(folder.expanduser().absolute()).get("environment")
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that `Stack.stop` is reached.

    This works in the main thread only. SIGINT is set too, because a shell starts background
    commands with SIGINT ignored, and Python would keep ignoring it.
    """

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _no_report(_status: Status) -> None:
    """Ignore a change that nobody wants to see."""
