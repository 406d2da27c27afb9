"""A discrete-event simulation of the service: uploads, queues, workers, leases, rescue.

A scan is a row of stages. A message of a stage waits in its queue until a worker takes it; while a
scan waits for longer than a lease, rescue announces it again, and whichever of its messages comes
first does the work. A worker that dies loses its message, and its scan waits for its lease to end.
"""

import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

DAY, HOUR = 86_400.0, 3600.0
MAX_CRASHES = 3  # as guard.flow.run_stage has it

Draw = Callable[[random.Random], float]
Steps = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, kw_only=True)
class Load:
    """Uploads: how many a day, how they spread over it, and what they are.

    Attributes:
        per_day: uploads in a day, at all hours together.
        swing: how far the rate goes up and down about its mean, 0..1; the day begins at the lowest.
        bursts: share of uploads that come many at once.
        burst: how many these are.
        kinds: share of each kind of upload, and the stages that it goes through.
    """

    per_day: float
    swing: float = 0.0
    bursts: float = 0.0
    burst: int = 1
    kinds: Mapping[str, tuple[float, Sequence[str]]]

    def rate(self, now: float) -> float:
        """Uploads a second at a time of the day."""
        return self.per_day / DAY * (1 - self.swing * math.cos(2 * math.pi * now / DAY))

    @property
    def peak(self) -> float:
        """The most uploads a second, bursts aside."""
        return self.per_day / DAY * (1 + self.swing)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """What works on them.

    Attributes:
        queue_of: the queue of each stage.
        workers: processes that take messages, by queue.
        seconds: how long a stage takes, by stage.
        duplicate: seconds that a message takes whose work is done already.
        lease: seconds of `GUARD_LEASE_SECONDS`; infinite: nothing is announced twice.
        life: mean seconds until a worker dies; infinite: never.
        restart: seconds until another stands in its place.
        hop: seconds from a commit to its message.
    """

    queue_of: Mapping[str, str]
    workers: Mapping[str, int]
    seconds: Mapping[str, Draw]
    duplicate: float = 0.0
    lease: float = math.inf
    life: float = math.inf
    restart: float = 0.0
    hop: float = 0.0


@dataclass
class Scan:
    """One upload on its way."""

    stages: Sequence[str]
    arrived: float
    place: int = 0
    asked: float = 0.0  # since when it waits for its stage
    waited: float = 0.0
    attempts: int = 0
    held: bool = False
    ended: float | None = None
    failed: bool = False


@dataclass
class Seen:
    """What happened in a simulation.

    Attributes:
        scans: all uploads.
        messages: sent, by queue; with those of rescue.
        duplicates: messages of rescue, by queue.
        busy: seconds that workers worked, by queue.
        most_waiting: the most scans that waited at once.
        renewals: writes that kept leases.
        deaths: workers that died.
        cut_short: too many waited for too long, and the rest was not simulated.
    """

    scans: list[Scan] = field(default_factory=list)
    messages: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    most_waiting: int = 0
    renewals: float = 0.0
    deaths: int = 0
    cut_short: bool = False

    @property
    def done(self) -> list[Scan]:
        """Scans that came to their end."""
        return [scan for scan in self.scans if scan.ended is not None and not scan.failed]

    @property
    def failed(self) -> list[Scan]:
        """Scans that were given up, whose workers died too often."""
        return [scan for scan in self.scans if scan.failed]

    @property
    def open(self) -> list[Scan]:
        """Scans that wait or are worked on."""
        return [scan for scan in self.scans if scan.ended is None]

    def wait(self, quantile: float) -> float:
        """A quantile of the seconds that uploads waited; of those still open, without an end."""
        waits = sorted(math.inf if scan.ended is None else scan.waited for scan in self.scans) or [
            0.0
        ]
        return waits[min(math.ceil(quantile * len(waits)), len(waits)) - 1]


@dataclass(frozen=True)
class Patience:
    """A simulation ends early once more than `most` scans have waited for over `seconds`."""

    seconds: float = math.inf
    most: float = math.inf


def simulate(
    load: Load,
    plant: Plant,
    *,
    seed: int,
    days: float = 1.0,
    after: float = 0.0,
    patience: Patience = Patience(),
) -> Seen:
    """Simulate some days of uploads, and `after` seconds more without any."""
    service = _Service(load, plant, random.Random(seed), patience)
    service.run(days * DAY, after)
    return service.seen


class _Service:
    def __init__(self, load: Load, plant: Plant, rng: random.Random, patience: Patience) -> None:
        self.load, self.plant, self.rng, self.patience = load, plant, rng, patience
        self.late: set[int] = set()
        self.env = simpy.Environment()
        self.queues = {name: simpy.Store(self.env) for name in plant.workers}
        self.seen = Seen()
        # Who waits, by when it was last touched; entries whose scan has gone on are passed over.
        self.untouched: deque[tuple[float, Scan, int]] = deque()
        self.waiting = 0

    def run(self, seconds: float, after: float) -> None:
        self.env.process(self._arrive(seconds))
        for queue, count in self.plant.workers.items():
            for _ in range(count):
                self.env.process(self._work(queue))
        if math.isfinite(self.plant.lease):
            self.env.process(self._rescue())
        self.over = self.env.event()
        self.env.run(until=self.over | self.env.timeout(seconds + after))

    def _arrive(self, seconds: float) -> Steps:
        kinds = list(self.load.kinds.values())
        shares = [share for share, _ in kinds]
        # A burst is one arrival of many; both together make the rate.
        alone = 1 - self.load.bursts
        groups = alone + self.load.bursts / self.load.burst
        while True:
            yield self.env.timeout(self.rng.expovariate(self.load.peak * groups))
            if self.env.now >= seconds:
                return
            if self.rng.random() * self.load.peak > self.load.rate(self.env.now):
                continue
            many = 1 if self.rng.random() * groups < alone else self.load.burst
            for _ in range(many):
                _, stages = self.rng.choices(kinds, shares)[0]
                scan = Scan(stages=stages, arrived=self.env.now)
                self.seen.scans.append(scan)
                self._ask(scan)

    def _ask(self, scan: Scan) -> None:
        """A scan waits for its next stage from now on."""
        scan.asked, scan.attempts, scan.held = self.env.now, 0, False
        self._count(1)
        self._send(scan)

    def _send(self, scan: Scan) -> None:
        self.untouched.append((self.env.now, scan, scan.place))
        queue = self.plant.queue_of[scan.stages[scan.place]]
        self.seen.messages[queue] += 1
        self.queues[queue].put((scan, scan.place, self.env.now + self.plant.hop))

    def _count(self, change: int) -> None:
        self.waiting += change
        self.seen.most_waiting = max(self.seen.most_waiting, self.waiting)

    def _rescue(self) -> Steps:
        while True:
            yield self.env.timeout(self.plant.lease / 3)
            while self.untouched and self.untouched[0][0] <= self.env.now - self.plant.lease:
                _, scan, place = self.untouched.popleft()
                if scan.ended is None and not scan.held and scan.place == place:
                    self.seen.duplicates[self.plant.queue_of[scan.stages[place]]] += 1
                    self._send(scan)

    def _work(self, queue: str) -> Steps:
        dies = self._next_death()
        while True:
            message: tuple[Scan, int, float] = yield self.queues[queue].get()
            scan, place, sent = message
            if sent > self.env.now:
                yield self.env.timeout(sent - self.env.now)
            if scan.ended is not None or scan.held or scan.place != place:
                self.seen.busy[queue] += self.plant.duplicate
                yield self.env.timeout(self.plant.duplicate)
                continue
            scan.held = True
            scan.attempts += 1
            scan.waited += self.env.now - scan.asked
            self._count(-1)
            self._look(scan)
            seconds = self.plant.seconds[scan.stages[place]](self.rng)
            dies = max(dies, self.env.now)  # one that died idle stands again by now
            spent = min(seconds, dies - self.env.now)
            yield self.env.timeout(spent)
            self.seen.busy[queue] += spent
            self.seen.renewals += 3 * spent // self.plant.lease
            if spent < seconds:
                self.env.process(self._lapse(scan))
                self.seen.deaths += 1
                yield self.env.timeout(self.plant.restart)
                dies = self._next_death()
            else:
                self._go_on(scan)

    def _look(self, scan: Scan) -> None:
        if scan.waited > self.patience.seconds:
            self.late.add(id(scan))
            if len(self.late) > self.patience.most and not self.over.triggered:
                self.seen.cut_short = True
                self.over.succeed()

    def _next_death(self) -> float:
        if math.isinf(self.plant.life):
            return math.inf
        return self.env.now + self.rng.expovariate(1 / self.plant.life)

    def _lapse(self, scan: Scan) -> Steps:
        """Nobody renews the lease of a dead worker; rescue finds it once it has ended."""
        scan.asked = self.env.now
        self._count(1)
        yield self.env.timeout(self.plant.lease)
        if scan.attempts >= MAX_CRASHES:
            self._count(-1)
            scan.ended, scan.failed = self.env.now, True
            return
        scan.held = False
        self.untouched.appendleft((self.env.now - self.plant.lease, scan, scan.place))

    def _go_on(self, scan: Scan) -> None:
        scan.place += 1
        if scan.place == len(scan.stages):
            scan.ended = self.env.now
        else:
            self._ask(scan)


def erlang_wait(rate: float, seconds: float, workers: int) -> float:
    """Mean seconds of waiting in a queue M/M/c (Erlang C); infinite where it never empties."""
    offered = rate * seconds
    if offered >= workers:
        return math.inf
    blocked = 1.0  # Erlang B by its recursion, which has no large factorials
    for count in range(1, workers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    waits = blocked / (1 - offered / workers * (1 - blocked))
    return waits * seconds / (workers - offered)
