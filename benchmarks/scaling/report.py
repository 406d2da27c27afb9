"""The page of the record, and the blocks that docs/scaling.md quotes."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.scaling import HONEST, STAGES

GIB = 2**30
Result = Mapping[str, Any]


def page(result: Result) -> str:
    """The record's page."""
    parts = [
        "# How many workers, how much database, broker and storage",
        result["about"],
        f"The machine of the counting run: {result['note']}",
        "## What it comes to",
        needs(result),
        "## What breaks first",
        broken(result),
        "## Database, broker, storage",
        traffic(result),
        "## What a stage costs",
        stages(result),
        "## What a scan writes",
        counted(result),
        "## What is done for all scans together",
        shared(result),
        "## Checks of the simulation",
        checks(result),
        "## What is stated and not measured",
        stated(result),
    ]
    return "\n\n".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *rows))


def needs(result: Result) -> str:
    """Workers by size and volume."""
    rows = [
        [
            case["size"],
            f"{case['per_day']:,}",
            f"{case['workers']['scan']:,}",
            f"{case['workers']['inspect']:,}",
            f"{case['workers']['control']:,}",
            f"{case['workers']['publish']:,}",
            _time(case["wait_p50"]),
            _time(case["wait_p95"]),
        ]
        for case in result["cases"]
    ]
    head = ["models", "a day", "scan", "inspect", "control", "publish", "wait p50", "wait p95"]
    return _table(head, rows)


def broken(result: Result) -> str:
    """The part that falls behind first, for each size and volume."""
    rows = [
        [
            case["size"],
            f"{case['per_day']:,}",
            "; ".join(_use(part) for part in case["breaks"] if part["use"] >= 1)
            or f"nothing; fullest: {_use(case['breaks'][0])}",
        ]
        for case in result["cases"]
    ]
    return _table(["models", "a day", "over what it can, the worst first"], rows)


def _use(part: Mapping[str, Any]) -> str:
    use = part["use"]
    return f"{part['part']}: {_number(use)} times what it can"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def traffic(result: Result) -> str:
    """Writes, messages and bytes."""
    rows = [
        [
            case["size"],
            f"{case['per_day']:,}",
            _number(case["rows_written_a_second"]),
            _number(case["rows_written_at_peak"]),
            _number(case["commits_a_second"]),
            _number(case["messages_a_second"]),
            _number(case["announced_again_a_scan"]),
            _number(case["storage"]["rows"] / GIB),
            _number(case["storage"]["weights"] / GIB),
        ]
        for case in result["cases"]
    ]
    head = [
        "models",
        "a day",
        "rows written/s",
        "at the peak",
        "commits/s",
        "messages/s",
        "of these again, a scan",
        "rows, GiB a day",
        "weights, GiB a day",
    ]
    return _table(head, rows)


def stages(result: Result) -> str:
    """Mean seconds of each stage, and where they are from."""
    rows = []
    for size in result["sizes"]:
        means = size["means"]
        rows.append(
            [
                size["name"],
                size["machine"],
                *(_time(means[name]) for name in STAGES),
                size["source"],
            ]
        )
    return _table(["models", "a scan worker is", *STAGES, "detect and purify from"], rows)


def counted(result: Result) -> str:
    """Statements, rows, commits and messages of the stages of one cleared model."""
    measured = result["measured"]
    names = list(measured[HONEST]["detect"])
    heads = [name.replace("_", " ") for name in names]
    heads[names.index("seconds")] = "processor seconds"
    rows = [
        [stage, *(f"{found[name]:,.3g}" for name in names)]
        for stage, found in measured[HONEST].items()
    ]
    table = _table(["stage", *heads], rows)
    kept = ", ".join(f"{rows:g} of {name}" for name, rows in measured["rows_a_scan"].items())
    return (
        f"{table}\n\nMedians of {measured['uploads']} uploads. Rows that stay: {kept}; "
        f"{measured['row_bytes_a_scan']:,.0f} bytes without indices. Beside, a lease is renewed "
        "after each third of it."
    )


def shared(result: Result) -> str:
    """Seconds of the parts that there is one of."""
    parts = result["measured"]["parts"]
    rows = [
        ["reconcile, a round", f"{1e3 * parts['reconcile']:,.3g}", f"{parts['served']:.0f} served"],
        ["a message whose work is done", f"{1e3 * parts['duplicate']:,.3g}", ""],
        ["rescue, a scan that waits", f"{1e3 * parts['rescue_a_scan']:,.3g}", "300 at once"],
        ["relay, a message", f"{1e3 * parts['relay_a_message']:,.3g}", "100 at once"],
        ["sweep, an object listed", f"{1e3 * parts['sweep_an_object']:,.3g}", "SeaweedFS"],
        ["commit of one row", f"{1e3 * parts['commit']:,.3g}", "one connection"],
    ]
    text = _table(["what", "processor ms", "with"], rows)
    size = parts["scans_bytes_with_indices"]
    return f"{text}\n\nA row of `scans` takes {size:,.0f} bytes with its indices."


def checks(result: Result) -> str:
    """Theory, conservation and the small service in place of the large one."""
    found = result["checks"]
    rows = [
        [
            f"M/M/{line['workers']} at {100 * line['use']:.0f} %",
            f"{line['theory']:.3g} s",
            f"{line['simulated']:.3g} s",
        ]
        for line in found["theory"]
    ]
    text = _table(["mean waiting time", "Erlang C", "simulated"], rows)
    kept, whole = found["conservation"], found["whole"]
    return (
        f"{text}\n\nArrivals {kept['arrived']:,} = done {kept['done']:,} + open {kept['open']:,} + "
        f"given up {kept['given_up']:,} over the {found['runs']} runs of the table. "
        f"{whole['per_day']:,} models a day ({whole['size']}) with the workers of the table, "
        f"simulated with {whole['simulated']:,} uploads: p95 {_time(whole['wait_p95'])}; with as "
        f"many as for the table {_time(whole['in_small'])}."
    )


def stated(result: Result) -> str:
    """Assumptions, each in a line."""
    return "\n".join(f"- {line}" for line in result["assumptions"])


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{1e3 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"
