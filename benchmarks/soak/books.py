"""What the database says, read by plain SQL: the guard's own queries are under test."""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, text

from guard.attest import dsse

SERVABLE = frozenset({"cleared", "purified"})
RESTING = frozenset({"done", "failed"})
LONGEST = 700  # characters of a sentence
#: What people cannot read: tracebacks, reprs, SQL, source lines, errors by their class.
_UNREADABLE = re.compile(
    r"Traceback|File \"|<class|<[a-z_.]+ object|0x[0-9a-f]{6}|\\[nx]|\n|psycopg|sqlalchemy"
    r"|sqlite3|botocore|^\w*(Error|Exception)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Books:
    """All rows that answers rest on; `verdicts` in the order of the ledger."""

    nominations: dict[str, list[Mapping[str, Any]]]  # by key
    scans: dict[str, list[Mapping[str, Any]]]  # first scans, by key
    all_scans: list[Mapping[str, Any]]
    verdicts: list[Mapping[str, Any]]
    publications: list[Mapping[str, Any]]
    alarms: list[Mapping[str, Any]]
    letters: list[Mapping[str, Any]]
    unsent: int

    def newest(self, digest: str) -> str:
        """The verdict on a digest that counts: the newest that decided something."""
        kinds = [row["verdict"] for row in self.verdicts if row["artifact_digest"] == digest]
        decided = [kind for kind in kinds if kind != "inconclusive"]
        return str((decided or kinds or [""])[-1])


def read(engine: Engine) -> Books:
    """Read everything in one snapshot's worth of queries."""
    with engine.connect() as connection:

        def rows(sql: str) -> list[Mapping[str, Any]]:
            return [dict(row) for row in connection.execute(text(sql)).mappings()]

        scans = rows("SELECT * FROM scans ORDER BY created_at, id")
        nominations = rows("SELECT * FROM nominations ORDER BY received_at, id")
        return Books(
            nominations=_by_key(nominations),
            scans=_by_key([row for row in scans if row["parent_scan_id"] is None]),
            all_scans=scans,
            verdicts=rows("SELECT * FROM verdicts ORDER BY seq"),
            publications=rows("SELECT * FROM publications ORDER BY at, id"),
            alarms=rows("SELECT * FROM alarms ORDER BY at"),
            letters=rows("SELECT * FROM dead_letters ORDER BY at"),
            unsent=int(rows("SELECT count(*) AS n FROM outbox WHERE sent_at IS NULL")[0]["n"]),
        )


def _by_key(rows: list[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["key"]].append(row)
    return found


def open_work(books: Books) -> list[str]:
    """What is not at rest yet."""
    found = [f"scan {row['id']} {row['state']}" for row in books.all_scans
             if row["state"] not in RESTING]  # fmt: skip
    found += [f"nomination of {key}" for key, rows in books.nominations.items()
              for row in rows if row["state"] == "new"]  # fmt: skip
    return found + ([f"{books.unsent} messages"] if books.unsent else [])


@dataclass(frozen=True)
class Answer:
    """What an uploader learns: a verdict, `refused`, `ignored`, `failed`, `open` or `none`.

    `seconds` passed from the guard's first notice of it to the answer.
    """

    kind: str
    reason: str
    scans: int = 0
    seconds: float | None = None


def answer_to(books: Books, key: str, version: str) -> Answer:
    """The answer about one object version."""
    mine = [row for row in books.scans.get(key, []) if _pin(row["version_id"]) == version]
    if mine:
        return _of_scans(books, mine)
    shown = key if key.isprintable() else repr(key)[1:-1]
    found = [
        row
        for row in books.nominations.get(shown, [])
        if row["version_id"] in (version, None) or not key.isprintable()
    ]
    for state in ("new", "refused", "ignored", "accepted"):
        for row in found:
            if row["state"] == state:
                kind = "open" if state == "new" else "ignored" if state == "accepted" else state
                return Answer(kind, str(row["reason"]))
    return Answer("none", "")


def _of_scans(books: Books, mine: list[Mapping[str, Any]]) -> Answer:
    last = mine[-1]
    verdict = next((row for row in books.verdicts if row["id"] == last["verdict_id"]), None)
    seconds = _seconds(last["created_at"], last["updated_at"])
    if last["state"] not in RESTING:
        return Answer("open", last["state"], len(mine))
    if verdict is None:
        return Answer("failed", str(last["error"] or ""), len(mine), seconds)
    return Answer(str(verdict["verdict"]), reason_of(verdict), len(mine), seconds)


def reason_of(verdict: Mapping[str, Any]) -> str:
    """The reasons in the signed statement, as one text."""
    return " ".join(_find(dsse.payload(json.loads(verdict["envelope"])), "reasons") or [])


def _find(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        if name in value:
            return value[name]
        return next((found for part in value.values() if (found := _find(part, name))), None)
    return None


def _pin(version: str | None) -> str:
    return str(version).partition("#")[0]


def _seconds(start: Any, end: Any) -> float:
    return (moment(end) - moment(start)).total_seconds()


def moment(value: Any) -> datetime:
    """A time as SQLite or PostgreSQL gives it."""
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def readable(sentence: str) -> bool:
    """Whether a person can read why: something that ends, and nothing that a program wrote."""
    return (
        bool(sentence.strip())
        and len(sentence) <= LONGEST
        and sentence.rstrip()[-1] in ".!?)"
        and _UNREADABLE.search(sentence) is None
    )
