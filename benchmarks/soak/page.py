"""The numbers of a soak, and their tables."""

import argparse
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.soak.books import Answer, Books
from benchmarks.soak.sender import Sent
from benchmarks.soak.watch import Watch


def result(
    given: argparse.Namespace,
    watch: Watch,
    sent: Sequence[Sent],
    answers: Mapping[str, Answer],
    found: Books,
    killed: Sequence[Mapping[str, Any]],
    *,
    seconds: float,
) -> dict[str, Any]:
    """Everything that a record keeps; `rows` is one line for each upload."""
    rows = [_row(one, answers) for one in sent]
    times = sorted(row["seconds"] for row in rows if row["seconds"] is not None)
    return {
        "uploads": len(sent),
        "versions": sum(len(one.versions) for one in sent),
        "wanted": given.uploads,
        "not_sent": [one.upload.number for one in sent if one.failed or not one.versions],
        "seed": given.seed,
        "minutes": round(seconds / 60, 1),
        "kinds": _kinds(rows),
        "killed": dict(sorted(Counter(one["part"] for one in killed).items())),
        "violations": [f"{at} s: {text}" for text, at in watch.violations.items()],
        "died": watch.ground.died,
        "open": watch.open,
        "looks": watch.looks,
        "looks_missed": watch.missed,
        "scans": len(found.all_scans),
        "verdicts": dict(sorted(Counter(row["verdict"] for row in found.verdicts).items())),
        "publications": len(found.publications),
        "served_at_the_end": sum(row["state"] == "active" for row in found.publications),
        "answer_seconds": {
            "median": statistics.median(times) if times else None,
            "p95": times[int(len(times) * 0.95)] if times else None,
            "most": times[-1] if times else None,
        },
        "dead_letters": _counted((row["task"], row["error"]) for row in found.letters),
        "alarms": _counted((row["kind"], row["detail"]) for row in found.alarms),
        "memory_mib": _memory(watch),
        "database": watch.ground.guard.engine.dialect.name,
        "rows": rows,
    }


def _row(one: Sent, answers: Mapping[str, Answer]) -> dict[str, Any]:
    mine = [answers[place] for key, version in one.versions
            if (place := f"{key} {version}") in answers]  # fmt: skip
    last = mine[-1] if mine else None
    return {
        "number": one.upload.number,
        "kind": one.upload.kind.name,
        "folder": one.upload.folder,
        "answers": [answer.kind for answer in mine],
        "reason": last.reason[:300] if last else "",
        "seconds": round(last.seconds, 1) if last and last.seconds is not None else None,
        "failed": one.failed,
    }


def _kinds(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        mine = found.setdefault(row["kind"], {"uploads": 0, "answers": {}, "reason": ""})
        mine["uploads"] += 1
        for kind in row["answers"]:
            mine["answers"][kind] = mine["answers"].get(kind, 0) + 1
        mine["reason"] = mine["reason"] or row["reason"]
    return found


def _counted(pairs: Any) -> list[list[Any]]:
    return [[task, error[:300], count] for (task, error), count in Counter(pairs).most_common(20)]


def _memory(watch: Watch) -> dict[str, dict[str, int]]:
    """Of each part's longest life: first, last and most MiB of its main process; most of all."""
    found = {}
    for part, lives in sorted(watch.sizes.items()):
        longest = max(lives.values(), key=len)
        own = [size for size, _ in longest]
        found[part] = {
            "looks": len(own),
            "first": statistics.median_low(own[:3]),
            "last": statistics.median_low(own[-3:]),
            "most": max(own),
            "most_with_children": max(whole for life in lives.values() for _, whole in life),
        }
    return found


def page(some: Mapping[str, Any]) -> str:
    """All numbers as tables."""
    times = some["answer_seconds"]
    head = [
        ("uploads that were sent, of which versions need an answer",
         f"{some['uploads']}, {some['versions']}"),
        ("minutes, seed, database", f"{some['minutes']}, {some['seed']}, {some['database']}"),
        ("processes killed", sum(some["killed"].values())),
        ("scans, publications, served at the end",
         f"{some['scans']}, {some['publications']}, {some['served_at_the_end']}"),
        ("still open when the time ended", len(some["open"])),
        ("verdicts", ", ".join(f"{count} {kind}" for kind, count in some["verdicts"].items())),
        ("seconds from scan to answer: median, 95 %, most",
         f"{times['median']}, {times['p95']}, {times['most']}"),
        ("comparisons while it ran, with something away",
         f"{some['looks']}, {some['looks_missed']}"),
    ]  # fmt: skip
    tables = (
        ("", ("", ""), head),
        ("What did not hold", ("",), [(text,) for text in some["violations"] + some["died"]]),
        (
            "Kinds of upload",
            ("kind", "uploads", "answers", "for example"),
            [
                (name, one["uploads"], _listed(one["answers"]), one["reason"])
                for name, one in some["kinds"].items()
            ],
        ),
        ("Killed", ("part", "times"), list(some["killed"].items())),
        (
            "Resident memory, MiB, in the longest life of each part's main process",
            ("part", "looks", "first", "last", "most", "most, with children"),
            [(name, *one.values()) for name, one in some["memory_mib"].items()],
        ),
        ("Dead letters", ("task", "error", "times"), some["dead_letters"]),
        ("Alarms, open or over", ("kind", "detail", "times"), some["alarms"]),
    )
    return "\n\n".join(_table(*one) for one in tables)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    head = f"## {title}\n\n" if title else ""
    if not rows:
        return f"{head}None."
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return head + "\n".join(lines)


def _cell(value: Any) -> str:
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)
