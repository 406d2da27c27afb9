"""What goes wrong in production, done on purpose.

Killed workers, replaced objects, tampering, absent services.
"""

import json
import os
import signal
import time
import zipfile
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.states import ScanState, Verdict
from guard.flow import publish
from guard.flow.report import report_for
from guard.flow.served import served
from guard.flow.verify import verify
from guard.store import alarms, outbox, scans
from guard.store.session import reading, transaction
from tests.e2e.site import Site

#: Seconds that a service is away: no wait for something, but what the test does to the guard.
OUTAGE = 5.0


def kill_tree(pid: int) -> None:
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)


@pytest.mark.threat("A01")
def test_an_object_replaced_during_its_scan_gets_a_scan_of_its_own(site: Site) -> None:
    first = site.upload(site.variant("honest", "first"), "replaced")
    site.in_state(first, "detecting")
    second = site.upload(site.variant("honest", "second"), "replaced")

    one, two = site.finished(first), site.finished(second)

    assert one.canonical_digest != two.canonical_digest
    assert {row.artifact_digest for row in site.verdicts(one.id)} == {one.canonical_digest}
    assert {row.artifact_digest for row in site.verdicts(two.id)} == {two.canonical_digest}
    assert {row.digest for row in site.active("replaced")} <= {
        one.canonical_digest,
        two.canonical_digest,
    }


@pytest.mark.threat("A05")
def test_a_model_registered_behind_the_guards_back_is_removed(site: Site) -> None:
    settings = site.guard.settings
    foreign = Path(settings.torchserve_store) / "foreign.mar"
    with zipfile.ZipFile(foreign, "w") as archive:
        manifest = {
            "runtime": "python",
            "model": {"modelName": "foreign", "modelVersion": "1.0", "handler": "h.py"},
        }
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        code = (
            "class H:\n    def initialize(self, c): pass\n    def handle(self, d, c): return "
            "['x']\n"
        )
        archive.writestr("h.py", code)
    management(site, "POST", "/models?url=foreign.mar&initial_workers=0&synchronous=false")

    site.until(
        lambda: management(site, "GET", "/models/foreign").status_code == 404,
        why="removal",
    )

    def alarmed() -> bool:
        with reading(site.guard.engine) as session:
            return any("foreign" in row.subject for row in alarms.open_alarms(session))

    site.until(alarmed, why="the alarm, which is written after the removal")


def test_a_flipped_byte_in_an_extracted_archive_is_noticed(site: Site) -> None:
    site.finished(site.upload(site.models["honest"], "honest"))
    site.until(
        lambda: any(row.served.name == "honest" and row.vetted for row in served(site.guard)),
        why="serving",
    )
    extracts = Path(settings_tmp(site)) / "models"
    files = [
        path for path in extracts.rglob("weights.safetensors") if b'"honest"' in release_of(path)
    ]
    assert files
    for path in files:
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(bytes(data))

    site.until(lambda: tamper_alarm(site), why="an alarm")

    site.until(lambda: all(row.vetted for row in served(site.guard)), why="vetted weights only")


@pytest.mark.threat("A14")
def test_a_row_edited_to_cleared_publishes_nothing(site: Site) -> None:
    scan = site.finished(site.upload(site.models["backdoored"], "edited"))
    site.until(
        lambda: all(row.state in ("done", "failed") for row in site.children(scan.id)),
        why="the candidates",
    )
    before = {row.digest for row in site.active("edited")}
    with transaction(site.guard.engine) as session:
        session.execute(text("DROP TRIGGER IF EXISTS verdicts_no_update"))
        names = session.execute(
            text("SELECT name FROM sqlite_master WHERE type='trigger' AND tbl_name='verdicts'")
        )
        for name in names.scalars().all():
            session.execute(text(f"DROP TRIGGER {name}"))
        session.execute(
            text("UPDATE verdicts SET verdict='cleared' WHERE scan_id=:scan"), {"scan": scan.id}
        )

    with pytest.raises((IntegrityMismatch, NotServable)):
        publish.request(site.guard, scan.id, "bob")

    with transaction(site.guard.engine) as session:
        scans.move(session, scan.id, ScanState.PUBLISHING, site.guard.now())
        outbox.add(session, "publish", {"scan_id": scan.id}, site.guard.now())
    site.until(
        lambda: (row := site.scan_of(scan.version_id or "")) and row.state == "failed",
        why="the refusal",
    )
    assert {row.digest for row in site.active("edited")} == before
    assert verify(site.guard) != []
    with transaction(site.guard.engine) as session:
        session.execute(
            text("UPDATE verdicts SET verdict='rejected' WHERE scan_id=:scan"), {"scan": scan.id}
        )


def test_an_event_that_was_lost_is_found_by_the_sweep(site: Site) -> None:
    os.kill(site.pid("api"), signal.SIGSTOP)
    try:
        version = site.upload(site.variant("honest", "silent"), "silent")
        scan = site.finished(version)
    finally:
        os.kill(site.pid("api"), signal.SIGCONT)

    assert report_for(site.guard, scan.id).verdict is Verdict.CLEARED


@pytest.mark.parametrize("part", ["seaweedfs", "valkey", "torchserve"])
def test_a_service_that_is_away_for_a_while_only_delays(site: Site, part: str) -> None:
    version = site.upload(site.variant("honest", f"without-{part}"), f"without-{part}")
    site.until(lambda: site.scan_of(version), why="a scan")
    kill_tree(site.pid(part))
    time.sleep(OUTAGE)
    site.stack.restart(part)

    scan = site.finished(version)

    assert scan.state is ScanState.DONE
    assert len(site.verdicts(scan.id)) == 1
    site.until(
        lambda: any(
            row.served.name == f"without-{part}" and row.vetted for row in served_or_none(site)
        ),
        why="serving",
    )


def served_or_none(site: Site) -> list:  # type: ignore[type-arg]
    try:
        return served(site.guard)
    except Exception:  # noqa: BLE001 - the service is just coming back
        return []


def management(site: Site, method: str, path: str) -> httpx.Response:
    """The management API as somebody with the key would call it."""
    address = site.guard.settings.torchserve_management
    keys = json.loads((Path(site.guard.settings.torchserve_run_dir) / "key_file.json").read_text())
    headers = {"Authorization": f"Bearer {keys['management']['key']}"}
    if address.startswith("unix:"):
        transport = httpx.HTTPTransport(uds=address.removeprefix("unix:"))
        with httpx.Client(
            transport=transport, base_url="http://torchserve", headers=headers, timeout=30
        ) as client:
            return client.request(method, path)
    return httpx.request(method, address + path, headers=headers, timeout=30)


def settings_tmp(site: Site) -> Path:
    return Path(site.guard.settings.torchserve_run_dir) / "tmp"


def release_of(weights: Path) -> bytes:
    import base64

    envelope = json.loads((weights.parent / "release.dsse.json").read_text())
    return base64.b64decode(envelope["payload"])


def tamper_alarm(site: Site) -> bool:
    with reading(site.guard.engine) as session:
        return any("honest" in row.subject for row in alarms.open_alarms(session))
