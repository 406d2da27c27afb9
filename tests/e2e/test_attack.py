"""Uploads that hold every worker which reads files hold nothing else."""

import json
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from guard.core.roles import Act
from guard.core.states import ScanState, Verdict
from guard.flow.reconcile import HEARTBEAT
from guard.store import exhibits, orders, outbox
from guard.store.order_rows import OrderState
from guard.store.session import reading, transaction
from tests.e2e.site import Site
from tests.formats import bombs

#: As many as processes read files: each is at its upload until its time is over.
AT_ONCE = 2


def upload(site: Site, folder: Path, name: str, data: bytes) -> str:
    folder.mkdir()
    config = json.loads((site.models["honest"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.pt").write_bytes(data)
    return site.upload(folder, name)


def last_beat(site: Site) -> datetime | None:
    with reading(site.guard.engine) as session:
        return exhibits.last_beat(session, HEARTBEAT)


def order(site: Site) -> str:
    """An act for the worker of the queue `control`; nobody may do it, which it has to find out."""
    with transaction(site.guard.engine) as session:
        made = orders.add(
            session,
            act=Act.RETRY,
            wanted={"letter": "none"},
            principal="nobody",
            role="",
            token_id="",
            now=site.guard.now(),
        )
        outbox.add(session, "order", {"order_id": made.id}, site.guard.now())
    return made.id


def is_answered(site: Site, order_id: str) -> bool:
    with reading(site.guard.engine) as session:
        return orders.get(session, order_id).state is OrderState.REFUSED


@pytest.mark.threat("C08", "C17")
def test_the_watch_keeps_its_period_while_uploads_hold_every_worker_that_reads_files(
    site: Site, tmp_path: Path
) -> None:
    period = site.guard.settings.reconcile_seconds
    site.until(lambda: last_beat(site), why="the first round of reconcile")
    pickled = (bombs.nested_key(60), bombs.nested_key(61))
    versions = [
        upload(site, tmp_path / str(number), f"bomb{number}", bombs.checkpoint(pickled[number]))
        for number in range(AT_ONCE)
    ]

    def held() -> list[bool]:
        rows = [site.scan_of(version) for version in versions]
        return [row is not None and row.lease_until is not None for row in rows]

    site.until(lambda: all(held()), why="workers at both uploads", pause=0.05)
    begun, beats, asked, waited = time.monotonic(), {last_beat(site)}, order(site), 0.0
    while any(held()):
        beats.add(last_beat(site))
        if not waited and is_answered(site, asked):
            waited = time.monotonic() - begun
        time.sleep(0.05)
    took = time.monotonic() - begun
    site.until(lambda: last_beat(site) not in beats, why="one round more", pause=0.05)
    beats.add(last_beat(site))

    found = sorted(beat for beat in beats if beat is not None)
    gaps = [(after - before).total_seconds() for before, after in pairwise(found)]
    assert took > period, "they held the workers for less than a round"
    assert max(gaps) < 2 * period, gaps
    assert 0 < waited < 2 * period
    for version in versions:
        scan = site.finished(version)
        assert scan.state is ScanState.DONE
        assert [row.verdict for row in site.verdicts(scan.id)] == [Verdict.UNVETTABLE]
