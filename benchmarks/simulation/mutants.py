"""Faults of the service that a simulation must find; one that it missed would show it blind.

Each switches one safeguard off, as a careless change would.
"""

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from unittest.mock import patch

from sqlalchemy import true

from benchmarks.simulation.world import World
from guard.attest import gate
from guard.core.errors import NotServable
from guard.core.states import SERVABLE_VERDICTS, Verdict
from guard.flow import (
    _reuse,
    _seal,
    _standing,
    _turn,
    _verdict,
    publish,
    reconcile,
    review,
    sweep,
)
from guard.publishers import folder
from guard.store import _leases, claims, ledger, publications, scans, uploaders


@dataclass(frozen=True)
class Mutant:
    """One fault: what is replaced by what (`where`), and the invariants that may show it.

    `theme` is that of the schedules in which it is looked for. `shown` is one that has shown it;
    None where only the record's many schedules do, or where a second check stands behind it.
    """

    numbers: frozenset[int]
    where: tuple[tuple[Any, str, Any], ...]
    theme: str
    prepare: Callable[[World], None] = lambda _world: None
    shown: int | None = 0

    def patches(self) -> list[AbstractContextManager[Any]]:
        return [patch.object(owner, name, value) for owner, name, value in self.where]


def _timeless(*given: Any, now: Any, **more: Any) -> Any:
    """The gate without its look at the time."""
    try:
        return _servable(*given, now=now, **more)
    except NotServable as error:
        if "expired" not in error.sentence:
            raise
        return _servable(*given, now=more["ledger_row"].issued_at, **more)


_servable = gate.servable
_check = _turn.check
_compare = _standing.compare
_standing_of = _standing.standing
_move = scans.move
_insert = scans.insert
_write: Any = _verdict.write
_append = ledger.append


def _any_order(session: Any, scan: Any, now: Any) -> Any:
    """Whose turn it is, without the order of uploads."""
    try:
        return _check(session, scan, now)
    except _turn.Superseded:
        return claims.get(session, scan.name)


def _unrevoked(*given: Any, **more: Any) -> Any:
    return replace(_standing_of(*given, **more), revoked=frozenset())


def _unfenced(s: Any, scan_id: str, new: Any, now: Any, *, lease: Any = None, **more: Any) -> Any:
    del lease
    return _move(s, scan_id, new, now, **more)


def _longer(*given: Any, **more: Any) -> Any:
    terms = given[5]
    until = terms.until and terms.until + timedelta(days=20)
    return _write(*given[:5], replace(terms, until=until), *given[6:], **more)


def _no_trigger(world: World) -> None:
    with sqlite3.connect(world.data / "guard.db") as db:
        db.execute("DROP TRIGGER reviews_four_eyes")


def _rewritten(s: Any, **values: Any) -> Any:
    """A ledger that keeps another name of the verdict than was signed."""
    other = next(iter(SERVABLE_VERDICTS - {values["verdict"]}))
    return _append(s, **{**values, "verdict": other})


def _any_bytes(weights: Any, sink: Any, _digest: str) -> None:
    weights.seek(0)
    data = weights.read()
    sink.write(data[:-1] + bytes([data[-1] ^ 1]))


def _reused_version(s: Any, name: str, _digest: str) -> str:
    del s, name
    return "1.0"


MUTANTS: Mapping[str, Mutant] = {
    "the gate takes verdicts that have expired": Mutant(
        frozenset({1, 2}), ((gate, "servable", _timeless),), "aging", shown=9
    ),
    "the gate takes every verdict": Mutant(
        frozenset({1, 2}), ((gate, "SERVABLE_VERDICTS", frozenset(Verdict)),), "changes", shown=None
    ),
    "publishing asks for no order of uploads": Mutant(
        frozenset({4, 13}), ((_turn, "check", _any_order),), "one name", shown=10
    ),
    "names belong to nobody": Mutant(
        frozenset({3}), ((claims, "allowed", lambda claim, *_: claim),), "anything", shown=8
    ),
    "leases hold and fence nothing": Mutant(
        frozenset({9, 11}),
        (
            (_leases, "free", lambda *_: true()),
            (scans, "check", lambda *_: None),
            (scans, "move", _unfenced),
        ),
        "overtaking",
        shown=218,
    ),
    "revocations are not read": Mutant(
        frozenset({1, 2}),
        ((publish, "standing", _unrevoked), (reconcile, "standing", _unrevoked)),
        "people",
        shown=None,
    ),
    "whoever uploaded may approve": Mutant(
        frozenset({10}),
        (
            (review, "_check_approval", lambda *_: None),
            (uploaders, "of_scan", lambda *_: frozenset()),
        ),
        "people",
        _no_trigger,
        shown=8,
    ),
    "anybody may act": Mutant(
        frozenset({10}),
        ((review, "permit", lambda _guard, _session, who, _act: who),),
        "people",
        shown=10,
    ),
    "nobody is woken": Mutant(
        frozenset({11}), ((scans, "stuck", lambda *_, **__: []),), "overtaking", shown=5
    ),
    "reconcile does nothing": Mutant(
        frozenset({2, 13}), ((reconcile, "_look", lambda *_: []),), "aging", shown=9
    ),
    "a reused verdict lasts longer": Mutant(
        frozenset({7}), ((_reuse, "write", _longer),), "one name", shown=1
    ),
    "the ledger keeps another verdict than was signed": Mutant(
        frozenset({6}), ((ledger, "append", _rewritten),), "anything"
    ),
    "other bytes are served": Mutant(
        frozenset({1}), ((folder, "copy_verified", _any_bytes),), "anything", shown=None
    ),
    "versions are used twice": Mutant(
        frozenset({5, 11, 13}),
        ((publications, "version_for", _reused_version),),
        "one name",
        shown=5,
    ),
    "no checkpoint is written": Mutant(
        frozenset({6}),
        ((_seal, "write_checkpoint", lambda *_, **__: None),),
        "anything",
    ),
    "a lost event is lost": Mutant(
        frozenset({11}), ((sweep, "sweep", lambda *_, **__: 0),), "one name", shown=46
    ),
}
