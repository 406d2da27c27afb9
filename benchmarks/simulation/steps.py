"""What may happen in a schedule: uploads, notices, work, beat, time, changes, faults, people."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks.simulation import jobs, people
from benchmarks.simulation.service import Broker
from benchmarks.simulation.turns import Crash, Worker
from benchmarks.simulation.world import BUCKET, World
from guard.core.errors import GuardError
from guard.flow import dead_letter, nominate, rescan, rescue, sweep
from guard.flow.reconcile import reconcile_guard
from guard.store import cleansets
from guard.store.session import transaction
from workers import relay, tasks

#: Keys that are uploaded to; by the rule `{folder}` most of them ask for one name.
KEYS = (
    "models/team-a/fraud/model.safetensors",
    "models/team-b/fraud/model.safetensors",
    "models/team-b/Fraud/model.safetensors",
    "models/team-c/fraud/model.safetensors",
    "models/team-b/scan/model.safetensors",
)
WORKERS = 4  # most that wait at once
#: What may change what is served: looked at as soon as it stops.
LOOKED_AT = frozenset({"publish", "reconcile"})
HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True)
class Uploaded:
    """One version of a key that the bucket took; `number` counts all uploads of the schedule."""

    number: int
    key: str
    version: str
    kind: str


@dataclass
class Schedule:
    """One run; `seen` notes what happened, for whoever reads why a run failed."""

    world: World
    rng: Random
    keys: tuple[str, ...]
    twice: float = 0.0
    after: Callable[[], None] = lambda: None  # what is called when a worker has stopped
    uploads: list[Uploaded] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    crashed: int = 0
    reconciled: bool = False  # whether the last step was a whole pass of reconcile
    ran: list[Worker] = field(default_factory=list)  # in the last step
    unexpected: list[str] = field(default_factory=list)

    # Uploads and notices of them.

    def upload(self) -> None:
        key = self.rng.choice(self.keys)
        config = f"{key.rpartition('/')[0]}/config.json"
        store = self.world.store
        if self.rng.random() < 0.95 and (BUCKET, config) not in store.objects:
            store.put(BUCKET, config, jobs.CONFIG)
        weights = (6, 4, 2, 2, 3, 1, 3, 1, 1)
        kind = self.rng.choices(jobs.KINDS, weights)[0]
        mine = [one for one in self.uploads if one.key == key]
        if mine and self.rng.random() < 0.4:
            kind = self.rng.choice(mine).kind  # the same bytes again
        made = store.put(BUCKET, key, self.world.models.uploads[kind])
        self.uploads.append(Uploaded(len(self.uploads), key, made.id, kind))
        self.world.events.append(_event(key, made.id))
        self.note(f"upload {key} {kind} {made.id}")

    def notice(self) -> None:
        """A notice arrives, in any order, perhaps twice, perhaps without a version."""
        events = self.world.events
        if not events:
            return
        body = self.rng.choice(events)
        if self.rng.random() < 0.8:
            events.remove(body)
        self.act("notice", lambda: self._accept(body))

    def lose_notice(self) -> None:
        if self.world.events:
            self.world.events.pop(self.rng.randrange(len(self.world.events)))

    def remove_object(self) -> None:
        if self.uploads and self.rng.random() < 0.3:
            self.world.store.put(BUCKET, self.rng.choice(self.uploads).key, None)

    def _accept(self, body: Mapping[str, Any]) -> None:
        world = self.world
        nominate.accept(world.guard.engine, body, world.clock, buckets=(BUCKET,))

    # Work.

    def work(self) -> None:
        """Send what is due, then let workers take some messages, in any order."""
        self.relay()
        for _ in range(self.rng.randint(1, 6)):
            waiting = self.world.turns.waiting
            if waiting and (len(waiting) >= WORKERS or self.rng.random() < 0.3):
                self.settle(self.world.turns.resume(self.rng.choice(waiting)))
            elif self.world.broker:
                self.take(self.rng.randrange(len(self.world.broker)))
            if self.rng.random() < 0.5:
                self.relay()

    def relay(self) -> None:
        world = self.world
        if world.anything_due():
            self.act("relay", lambda: relay.send_due(world.guard, Broker(world)))

    def take(self, number: int) -> None:
        """A worker takes a message; of one that dies it comes back, mostly."""
        task, payload = self.world.broker.pop(number)
        if self.rng.random() < self.twice:
            self.world.broker.append((task, payload))  # delivered twice
        worker = self.act(task, lambda: _deliver(self.world, task, payload), str(payload))
        if isinstance(worker.failed, Crash) and self.rng.random() < 0.7:
            self.world.broker.append((task, payload))

    def go_on(self) -> None:
        if self.world.turns.waiting:
            self.settle(self.world.turns.resume(self.rng.choice(self.world.turns.waiting)))

    def kill(self) -> None:
        if self.world.turns.waiting:
            self.settle(self.world.turns.kill(self.rng.choice(self.world.turns.waiting)))

    def lose_message(self) -> None:
        """The broker restarts without what it held."""
        self.world.broker.clear()

    # Beat.

    def sweep(self) -> None:
        self.act("sweep", lambda: sweep.sweep_guard(self.world.guard))

    def rescue(self) -> None:
        self.act("rescue", lambda: rescue.rescue(self.world.guard))

    def renew(self) -> None:
        self.act("renew", lambda: rescan.renew(self.world.guard))

    def reconcile(self) -> None:
        alone = not self.world.turns.waiting
        worker = self.act("reconcile", lambda: reconcile_guard(self.world.guard))
        self.reconciled = alone and worker.done and worker.failed is None

    # Time.

    def lease_time(self) -> None:
        self.pass_time(31.0)

    def hours(self) -> None:
        self.pass_time(self.rng.choice((1.0, 7.0)) * HOUR)

    def days(self) -> None:
        self.pass_time(self.rng.choice((1, 5, 22, 31)) * DAY)

    def pass_time(self, seconds: float) -> None:
        self.note(f"{seconds:.0f} s pass")
        self.world.pass_time(seconds)

    # Changes of what verdicts rest on, and failures of what the service needs.

    def new_policy(self) -> None:
        number = self.rng.randrange(len(self.world.policies))
        self.note(f"policy {number}")
        self.world.obey(self.world.policies[number])

    def new_detector(self) -> None:
        self.note("new detector")
        self.world.new_detector()

    def new_canary(self) -> None:
        self.world.kit = self.rng.choice("0123")

    def new_cleanset(self) -> None:
        blob, facts = self.world.spare or (b"", None)
        if facts is None:
            return
        self.world.guard.blobs.put_bytes(blob)
        with transaction(self.world.guard.engine) as session:
            cleansets.put(session, facts, self.world.clock)

    def outage(self) -> None:
        """Bucket, serving and jobs fail now and then from now on, or do so no longer."""
        share = self.rng.choice((0.0, 0.05, 0.2))
        self.world.store.away = self.world.jobs.failures = share
        self.world.guard.publisher.away = share  # type: ignore[attr-defined]

    def heal(self) -> None:
        self.world.store.away = self.world.jobs.failures = 0.0
        self.world.guard.publisher.away = 0.0  # type: ignore[attr-defined]

    def person(self) -> None:
        people.act(self)

    # What all of these use.

    def act(self, label: str, work: Callable[[], object], what: str = "") -> Worker:
        """Let a process of its own do something."""
        self.reconciled = False
        self.note(f"{label} {what}".strip())
        return self.settle(self.world.turns.start(label, work))

    def settle(self, worker: Worker) -> Worker:
        """Look at how a worker stopped."""
        self.reconciled = False
        self.ran.append(worker)
        if not worker.done:
            self.note(f"  {worker.label} waits")
        elif isinstance(worker.failed, Crash):
            self.crashed += 1
            self.note(f"  {worker.label} was killed")
        elif isinstance(worker.failed, GuardError):
            self.note(f"  {worker.label}: {worker.failed.sentence}")
        elif worker.failed is not None:
            self.unexpected.append(f"{worker.label}: {worker.failed!r}")
        if worker.label in LOOKED_AT:
            self.after()
        return worker

    def note(self, text: str) -> None:
        self.seen.append(text)


#: Each step with how often it is drawn.
STEPS: Mapping[Callable[[Schedule], None], float] = {
    Schedule.upload: 3.0,
    Schedule.notice: 4.0,
    Schedule.lose_notice: 0.3,
    Schedule.remove_object: 0.2,
    Schedule.work: 9.0,
    Schedule.go_on: 1.0,
    Schedule.kill: 0.7,
    Schedule.lose_message: 0.3,
    Schedule.sweep: 0.7,
    Schedule.rescue: 0.8,
    Schedule.renew: 1.0,
    Schedule.reconcile: 1.5,
    Schedule.lease_time: 1.5,
    Schedule.hours: 0.8,
    Schedule.days: 0.8,
    Schedule.new_policy: 0.4,
    Schedule.new_detector: 0.2,
    Schedule.new_canary: 0.1,
    Schedule.new_cleanset: 0.2,
    Schedule.outage: 0.2,
    Schedule.heal: 0.3,
    Schedule.person: 2.5,
}


@dataclass(frozen=True)
class Theme:
    """What a schedule is mostly about: steps that are drawn more often, and how workers behave."""

    more: Mapping[str, float] = field(default_factory=dict)
    keys: int = 3
    twice: float = 0.05  # how often a message is delivered twice
    wait: float = 0.04  # how often a worker waits at a point
    policy: int = 0  # which of the world's policies is in force at first
    quiet: float = 0.7  # how often what was uploaded first is served before the rest happens


THEMES: Mapping[str, Theme] = {
    "anything": Theme(),
    "aging": Theme({"days": 5.0, "hours": 2.0, "reconcile": 3.0}),
    "overtaking": Theme(
        {"work": 2.0, "lease_time": 1.5, "go_on": 2.0, "rescue": 2.0},
        keys=2,
        twice=0.3,
        wait=0.12,
        quiet=0.1,
    ),
    "people": Theme({"person": 6.0}, 2, policy=2),  # under which everything is held
    "one name": Theme({"upload": 2.0, "notice": 1.5}, 1),
    "changes": Theme({"new_policy": 5.0, "new_detector": 6.0, "renew": 3.0, "hours": 3.0}),
}


def _event(key: str, version: str) -> dict[str, Any]:
    """A notification as S3 writes it."""
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": BUCKET}, "object": {"key": key, "versionId": version}},
            }
        ]
    }


def _deliver(world: World, task: str, payload: Mapping[str, Any]) -> None:
    """What Celery does with a message."""
    run = {"receive": tasks.receive_}.get(task) or getattr(tasks, task)
    try:
        run.run(**payload)
    except GuardError as error:
        # The database is away, or the message names nothing: Celery's signal records it.
        dead_letter.record(world.guard, task, dict(payload), str(error))
