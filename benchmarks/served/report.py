"""What policies serve as Markdown tables, for the README, the record and docs/evidence.md."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.detect.report import counted, percent

Line = Mapping[str, Any]


def page(result: Mapping[str, Any]) -> str:
    """Everything that was measured, without a headline of level 1."""
    parts = [str(result.get("note", "")), headline(result["policies"])]
    for one in result["policies"]:
        parts += [f"### {one['policy']}", _detail(one), _by_attack(one["attacks"], "attack")]
        parts += [_by_attack(one["architectures"], "architecture"), _failed(one["failed"])]
    return "\n\n".join(part for part in parts if part)


def headline(policies: Sequence[Line]) -> str:
    """The table by policy: served risk first."""
    head = (
        "policy",
        "backdoored: served risk",
        "beyond an honest network's",
        "held",
        "never served",
        "honest: held",
        "rejected",
        "ACC lost: mean (most)",
        "s a model: median (most)",
    )
    return _table(head, [_line(one) for one in policies])


def _line(one: Line) -> list[str]:
    bad, honest, loss = one["backdoored"], one["honest"], one["honest"]["loss"]
    return [
        one["policy"],
        counted(bad["risk"]),
        _known(bad.get("beyond_nature")),
        counted(bad["held"]),
        counted(bad["never_served"]),
        counted(honest["held"]),
        counted(honest["rejected"]),
        f"{percent(loss['mean'])} ({percent(loss['most'])})" if loss else "–",
        _time(one["seconds"]["whole"]),
    ]


def _detail(one: Line) -> str:
    models, repairs, bound = one["models"], one["repairs"], one["asr_bound"]
    bad, seconds = one["backdoored"], one["seconds"]
    rates = {
        "held or rejected": bad["caught"],
        "rejected": bad["rejected"],
        "rejected, with the right class": bad["right_class"],
        "of models with a repair tried, served with a true ASR of at most 5 %": repairs["served"],
        "of candidates with a true ASR of at most 5 %, refused": repairs["good_refused"],
        "of candidates with a true ASR over 10 %, passed": repairs["bad_passed"],
        "true ASR under the stated bound": bound["covered"],
        "honest models that lose over a point of accuracy": one["honest"]["over_a_point"],
    }
    if "natural" in one:  # records before 2026-12-01 did not try the triggers on honest networks
        rates["triggers that an honest network obeys with an ASR over 10 %"] = one["natural"]
    return "\n".join(
        [
            (
                f"{models['honest']} honest models, {models['working']} backdoored ones that work "
                f"(true ASR over 50 %), {models['weak']} that do not, which are in no rate. "
                "Intervals are 95 %."
            ),
            "",
            *(f"- {name}: {counted(item)}" for name, item in rates.items()),
            f"- median of the bounds: {percent(bound['median'])}",
            (
                f"- seconds (median, most): scan {_time(seconds['scan'])}, repair "
                f"{_time(seconds['repair'])}, processor {_time(seconds['cpu'])}"
            ),
        ]
    )


def _by_attack(groups: Sequence[Line], key: str) -> str:
    head = (
        key,
        "served risk",
        "beyond",
        "held or rejected",
        "held",
        "never served",
        "served repaired",
    )
    rows = [
        [
            one["name"],
            counted(one["risk"]),
            _brief(one["beyond_nature"]) if "beyond_nature" in one else "–",
            counted(one["caught"]),
            _brief(one["held"]),
            _brief(one["never_served"]),
            _brief(one["repaired"]),
        ]
        for one in groups
    ]
    return _table(head, rows) if rows else ""


def _failed(failed: Mapping[str, str]) -> str:
    return "\n".join(f"- not measured: {name}: {why}" for name, why in sorted(failed.items()))


def _known(item: Line | None) -> str:
    return "–" if item is None else counted(item)


def _brief(item: Line) -> str:
    return f"{item['k']}/{item['n']}"


def _time(item: Line | None) -> str:
    return "–" if item is None else f"{item['median']:.0f} ({item['most']:.0f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
