"""One service whose clock stands: its database, blobs, bucket, broker, publisher and people.

The folder and the engine stay for all schedules of a process, since SQLAlchemy compiles each
statement once for an engine; `reset` puts fresh copies of all data into it.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import structlog
from sqlalchemy import event

from benchmarks.simulation import service
from benchmarks.simulation.bucket import Store
from benchmarks.simulation.jobs import DETECTOR, Jobs, Models, build, sleeper_version
from benchmarks.simulation.turns import Odds, Turns
from guard.bootstrap import open_guard, upgrade_database
from guard.cleansets import curate, read_source
from guard.core.evidence import CleanSetFacts
from guard.core.roles import Role
from guard.detectors import DETECTORS
from guard.events.bucket import Bucket
from guard.flow import _observed, tokens
from guard.flow.context import Guard
from guard.flow.keys import signer_of
from guard.flow.principals import Principal, authenticate
from guard.policy import DetectorRule, Policy
from guard.policy.rules import ProofRule
from guard.settings import load_settings
from guard.store import cleansets
from guard.store.session import transaction
from guard.vetting import canary_trial

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)
BUCKET = "models"
#: People, their role, and what of the bucket is theirs. Dora reviews and owns a part of Ann's.
PEOPLE: tuple[tuple[str, Role, tuple[str, ...]], ...] = (
    ("root", Role.OPERATOR, ()),
    ("ann", Role.UPLOADER, ("models/models/team-a",)),
    ("ben", Role.UPLOADER, ("models/models/team-b",)),
    ("bob", Role.REVIEWER, ()),
    ("dora", Role.REVIEWER, ("models/models/team-a/fraud",)),
    ("vic", Role.VIEWER, ()),
)


@dataclass
class World:
    """What a schedule works with; `clock`, `guard` and the settings change as it goes."""

    folder: Path
    models: Models
    turns: Turns = field(default_factory=Turns)
    clock: datetime = NOW
    store: Store = field(init=False)
    jobs: Jobs = field(init=False)
    guard: Guard = field(init=False)
    people: dict[str, Principal] = field(default_factory=dict)
    spare: tuple[bytes, CleanSetFacts] | None = None
    rng: Random = field(default_factory=lambda: Random(0))
    events: list[dict[str, Any]] = field(default_factory=list)
    broker: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    #: Everybody who ever owned a prefix, and since which step.
    owners: dict[str, dict[str, int]] = field(default_factory=dict)
    kit: str = "0"
    ids: Random = field(default_factory=lambda: Random(0))

    def __post_init__(self) -> None:
        self.store, self.jobs = Store(lambda: self.clock), Jobs(self.models)
        self.clean = self.folder / "template"
        self.data = self.folder / "data"
        self.served = self.folder / "served"
        self._settings = load_settings(
            {"GUARD_DATA_DIR": str(self.data), "GUARD_LEASE_SECONDS": "30"}
        )
        self._make_template()
        opened = open_guard(self._settings)
        event.listen(opened.engine, "connect", _fast)
        self._unhook = self.turns.hook(opened.engine)
        self._opened = replace(
            opened, now=lambda: self.clock, make_bucket=lambda name: Bucket(self.store, name)
        )
        self._versions = {
            name: DETECTORS.get(name).version for name in self._opened.policy.detectors
        }
        self.policies = _policies(opened.policy)

    def close(self) -> None:
        self._unhook()
        self._opened.engine.dispose()
        self._restore_versions()

    def reset(self, seed: int) -> None:
        """A service as on its first day, for the schedule of this seed."""
        self.rng, self.ids = Random(seed), Random(seed + 4)
        self._opened.engine.dispose()
        for folder in (self.data, self.served):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.clean, self.data, copy_function=shutil.copyfile)
        (self.data / "keys/signing.pem").chmod(0o600)
        self.clock, self.kit = NOW, "0"
        self.events, self.broker = [], []
        self.owners = {
            f"{prefix.partition('/')[2]}/": {name: -1}
            for name, _, owned in PEOPLE
            for prefix in owned
        }
        self.store.objects, self.store.rng, self.store.away = {}, Random(seed + 1), 0.0
        self.jobs.rng, self.jobs.failures, self.jobs.detected = Random(seed + 2), 0.0, 0
        self._restore_versions()
        self.turns.reset(Random(seed + 3), Odds())
        settings = replace(
            self._settings,
            served_name="{folder}" if self.rng.random() < 0.3 else "{path}",
            checkpoint_bucket="checkpoints" if self.rng.random() < 0.3 else "",
            rescan_limit=self.rng.choice((1, 4)),
        )
        self.guard = replace(
            self._opened,
            settings=settings,
            policy=self.policies[0],
            make_publisher=lambda: service.Serving(self.turns, root=self.served),
        )

    def anything_due(self) -> bool:
        """Whether a message is to be sent; the relay itself would take a millisecond to say no."""
        with contextlib.closing(sqlite3.connect(self.data / "guard.db")) as db:
            return bool(
                db.execute(
                    "SELECT 1 FROM outbox WHERE sent_at IS NULL AND not_before <= ? LIMIT 1",
                    (f"{self.clock:%Y-%m-%d %H:%M:%S.%f}",),
                ).fetchone()
            )

    def obey(self, policy: Policy) -> None:
        self.guard = replace(self.guard, policy=policy)

    def settle(self, **changes: Any) -> None:
        """Other settings from now on, as after a restart; the publisher stays."""
        publisher = self.guard.publisher
        self.guard = replace(
            self.guard,
            settings=replace(self.guard.settings, **changes),
            make_publisher=lambda: publisher,
            make_signer=lambda: signer_of(self.guard),  # by the key that the settings name then
        )

    def pass_time(self, seconds: float) -> None:
        self.clock += timedelta(seconds=seconds)

    def new_detector(self) -> None:
        """The next version of the detector is installed."""
        kind = DETECTORS.get(DETECTOR)
        kind.version = sleeper_version()

    def _restore_versions(self) -> None:
        for name, version in self._versions.items():
            DETECTORS.get(name).version = version

    def _make_template(self) -> None:
        """Schema, keys, people and a clean set, made once."""
        shutil.rmtree(self.data, ignore_errors=True)
        upgrade_database(self._settings)
        guard = replace(open_guard(self._settings), now=lambda: NOW)
        _ = guard.signer  # makes the key
        facts = {}
        for seed in (0, 1):
            blob, facts[seed] = _cleanset(self.folder, seed)
            if seed:
                self.spare = blob, facts[seed]
                continue
            guard.blobs.put_bytes(blob)
            with transaction(guard.engine) as session:
                cleansets.put(session, facts[seed], NOW)
        who = Principal(name="login", role=None)
        for name, role, owned in PEOPLE:
            text = tokens.create(
                guard, who, name, role, days=366, prefixes=owned, first=name == "root"
            ).text
            self.people[name] = authenticate(guard, text)
            who = self.people["root"]
        guard.engine.dispose()  # the last connection writes all into the one file
        shutil.rmtree(self.clean, ignore_errors=True)
        self.data.rename(self.clean)


@contextmanager
def opened(folder: Path) -> Iterator[World]:
    """A world in `folder`, with the service's outside replaced until the block ends."""
    logs = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    world = World(folder, build(folder))
    try:
        with ExitStack() as stack:
            for target, name, value in service.outside(world):
                stack.enter_context(patch.object(target, name, value))
            stack.enter_context(patch.object(canary_trial, "kit_digest", lambda: world.kit * 64))
            # No invariant is about counters, and their transactions would take time and seeds.
            stack.enter_context(patch.object(_observed, "_keep", lambda *_: None))
            yield world
    finally:
        world.close()
        structlog.configure(**logs)


def _policies(shipped: Policy) -> tuple[Policy, ...]:
    """The policy in force at first, and those that may follow it."""
    first = replace(
        shipped,
        detectors={DETECTOR: DetectorRule(), "margin": DetectorRule(required=False)},
        defenses=shipped.defenses[:2],
        proof=ProofRule(),
    )
    return (
        first,
        replace(first, natural="rejected"),
        replace(first, review_always=True),
        replace(first, asr_limit=0.05),
        replace(first, lifetime=replace(first.lifetime, on_expiry="warn")),
        replace(first, lifetime=replace(first.lifetime, on_expiry="review")),
        replace(first, lifetime_days=10.0),
    )


def _cleanset(folder: Path, seed: int) -> tuple[bytes, CleanSetFacts]:
    rng = np.random.default_rng(seed)
    path = folder / "squares.npz"
    images = rng.integers(0, 256, (400, 1, 8, 8), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(400) % 5)
    return curate(read_source(path), "squares")


def _fast(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous=OFF")
