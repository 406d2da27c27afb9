"""A result as Markdown tables, for the record's README and docs/evidence.md."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.purify import published
from benchmarks.purify.numbers import AIM, BASELINE

Line = Mapping[str, Any]
Column = tuple[str, Callable[[Line], str]]


def page(result: Mapping[str, Any]) -> str:
    """Everything that was measured, without a level-1 heading; a dash where a record lacks it."""
    summary = result["summary"]
    parts = [result.get("note", ""), _table(REPAIRS, summary), _steps(result), _ceilings(summary)]
    honest = [line for line in summary if "honest" in line or line.get("honest_runs")]
    if honest:
        parts += ["Honest models, which needed no repair:", _table(HONEST, honest)]
    parts += [
        (
            f"What it costs. Memory: by how much {_whose(summary)} grew, also as a multiple of "
            f"{BASELINE}'s:"
        ),
        _table(COSTS, summary),
    ]
    if result["against"]:
        parts += [
            f"DER minus that of {BASELINE} on the same models:",
            _table(AGAINST, result["against"]),
        ]
    if result.get("tournament"):
        parts += [
            "The tournament minus each defense on the models that both repaired:",
            _table(BESIDE, result["tournament"]),
        ]
    beside_papers = published.table(summary)
    if len(beside_papers) > 2:
        parts += [
            (
                f"Beside published numbers in percent (*reported*: {published.WHERE}; *measured*: "
                "this zoo):"
            ),
            "\n".join(beside_papers),
        ]
    parts += [
        "Mean ASR after the repair, by attack (runs that were repaired):",
        _attacks(result["attacks"]),
    ]
    return "\n\n".join(part for part in parts if part)


def _steps(result: Line) -> str:
    """The defenses behind the policy's step numbers, if any was measured."""
    shown = {line["defense"] for line in result["summary"]}
    rules = enumerate(result.get("policy", {}).get("defenses", []), 1)
    parts = [
        ", ".join(
            [
                f"policy-{place} is {rule['name']}"
                + (f" after {rule['after']}" if rule.get("after") else ""),
                *(f"{key} {value}" for key, value in rule["params"].items()),
            ]
        )
        for place, rule in rules
        if f"policy-{place}" in shown
    ]
    return "; ".join(parts) + "." if parts else ""


def _table(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    rows = [[name for name, _ in columns], *([cell(line) for _, cell in columns] for line in lines)]
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(columns), *body])


def _share_of(key: str) -> Callable[[Line], str]:
    return lambda line: share(line.get(key))


def _number_of(key: str) -> Callable[[Line], str]:
    return lambda line: number(line.get(key))


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def number(value: Mapping[str, float] | None) -> str:
    return (
        "–" if value is None else f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    )


def _with_interval(key: str, interval: str) -> Callable[[Line], str]:
    """A mean in percent with its interval, or alone if an older record has none."""

    def cell(line: Line) -> str:
        ends = line.get(interval)
        return share(line.get(key)) + (
            f" ({share(ends['low'])} to {share(ends['high'])})" if ends else ""
        )

    return cell


def _mean_of(key: str) -> Callable[[Line], str]:
    """The mean in percent of an estimate with its interval."""

    def cell(line: Line) -> str:
        known = line.get(key)
        return (
            f"{share(known['mean'])} ({share(known['low'])} to {share(known['high'])})"
            if known
            else "–"
        )

    return cell


def _of_at_most(key: str, ceiling: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        most = line.get(ceiling)
        return number(line.get(key)) + (f" of {most:.3f}" if most is not None else "")

    return cell


def _seeds(line: Line) -> str:
    return ", ".join(map(str, line["seeds"])) if "seeds" in line else "–"


def _repaired(line: Line) -> str:
    models = line.get("models")
    more = f", {models} models" if models is not None and models != line["backdoored"] else ""
    return f"{line['repaired']}/{line['backdoored']}{more}"


def _ends(line: Line) -> str:
    ends = line["failed"] | line.get("verdicts", {})
    return ", ".join(f"{name} {count}" for name, count in ends.items()) or "–"


def _changed(line: Line) -> str:
    """How many honest models were repaired, of how many runs; older records lack the latter."""
    runs, models = line.get("honest_runs"), line.get("honest_models")
    changed = line.get("honest", 0)
    if runs is None:
        return str(changed) if changed else "–"
    return f"{changed}/{runs}{f', {models} models' if models != runs else ''}"


def _over_aim(line: Line) -> str:
    return f"{line['honest_over_aim']}/{line['honest']}" if "honest_over_aim" in line else "–"


def _peak(line: Line) -> str:
    found = line.get("memory")
    return "–" if not found else f"{found['mib']:.0f}"


def _multiple(line: Line) -> str:
    found = line.get("memory")
    return (
        "–"
        if not found or found["over_baseline"] is None
        else f"{found['over_baseline']:.1f} ({found['runs']})"
    )


def _plain(key: str, form: str = "{}") -> Callable[[Line], str]:
    return lambda line: "–" if line.get(key) is None else form.format(line[key])


def _pairs(line: Line) -> str:
    runs = line.get("runs", line["models"])
    return f"{line['models']}{f', {runs} runs' if runs != line['models'] else ''}"


def _whose(summary: Sequence[Line]) -> str:
    of = {line["memory"]["of"] for line in summary if line.get("memory")}
    return "the device's allocated memory" if of == {"device"} else "the process"


def _ceilings(summary: Sequence[Line]) -> str:
    """The largest possible DER; no repair of these models can meet an aim above it."""
    known = sorted(
        {round(line["ceiling_all"], 3) for line in summary if line.get("ceiling_all") is not None}
    )
    if not known:
        return ""
    most = f"{known[0]:.3f}" if len(known) == 1 else f"{known[0]:.3f} to {known[-1]:.3f}, by line"
    return (
        'Intervals are 95 % (bootstrap over models). After "of": the DER that the same models '
        "allow, (1 + ASR "
        "before) / 2 on average, with no ASR left and no accuracy lost; over all backdoored "
        f"models {most}. "
        "An aim above it is out of reach for any repair."
    )


_WHO: list[Column] = [
    ("defense", lambda line: str(line["defense"])),
    ("clean", lambda line: f"{line['fraction']:.0%}"),
]
REPAIRS: list[Column] = [
    *_WHO,
    ("seeds", _seeds),
    ("repaired", _repaired),
    ("ASR before", _share_of("asr_before")),
    ("ASR", _with_interval("asr", "asr_interval")),
    ("worst attack", _share_of("worst_attack_asr")),
    ("RA before", _share_of("ra_before")),
    ("RA", _share_of("ra_after")),
    ("ACC loss", _share_of("acc_loss")),
    ("worst class", _share_of("worst_class_loss")),
    ("DER", _of_at_most("der", "ceiling")),
    ("DER, unrepaired too", _of_at_most("der_all", "ceiling_all")),
    ("failed, or verdict", _ends),
]
HONEST: list[Column] = [
    *_WHO,
    ("seeds", _seeds),
    ("changed", _changed),
    ("ACC loss", _with_interval("honest_loss", "honest_interval")),
    ("unchanged too", _mean_of("honest_all")),
    ("worst model", _share_of("honest_worst_loss")),
    (f"over {100 * AIM:g} point", _over_aim),
    ("worst class", _share_of("honest_worst_class_loss")),
    ("seconds", _plain("honest_seconds", "{:.1f}")),
]
COSTS: list[Column] = [
    *_WHO,
    ("seeds", _seeds),
    ("repaired", _repaired),
    ("seconds", _plain("seconds", "{:.1f}")),
    ("time over the winner's alone", _plain("time_over_winner", "{:.2f}")),
    ("peak MiB", _peak),
    (f"over {BASELINE} (runs)", _multiple),
]
AGAINST: list[Column] = [*_WHO, ("models", _pairs), ("gain", _number_of("der_gain"))]
BESIDE: list[Column] = [
    *_WHO,
    ("models", _pairs),
    ("DER", _number_of("der")),
    ("ASR", _number_of("asr")),
    ("ACC loss", _number_of("loss")),
    ("worst class", _number_of("worst_class_loss")),
]


def _attacks(lines: Sequence[Line]) -> str:
    names = sorted({name for line in lines for name in line.get("n", line["asr"])})
    return _table([*_WHO, *((name, _attack(name)) for name in names)], lines)


def _attack(name: str) -> Callable[[Line], str]:
    def cell(line: Line) -> str:
        counts = line.get("n", {}).get(name)
        return share(line["asr"].get(name)) + (f" ({counts[0]}/{counts[1]})" if counts else "")

    return cell
