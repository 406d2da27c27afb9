"""Quote the newest records in README.md (numbers, what is missed, the demo) and docs/scaling.md.

A test compares.

    python -m benchmarks.quote
"""

import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.detect.report import percent
from benchmarks.purify.running import TOURNAMENT
from benchmarks.record import RECORDS, SUMMARY, load
from benchmarks.scaling import report as scaling

README = Path(__file__).parents[1] / "README.md"
SCALING = README.parent / "docs" / "scaling.md"
DEFAULT = "detect-default"  # the name of the records about the default policy
ENSEMBLE = "detect-ensemble"  # and of those about every detector
REPAIRS = "purify-exam"
SERVED = "served"
DEMO = "demo"
HALF = 0.5
COLUMNS = 118
NOT_YET = "not measured yet on models that nobody had seen"


def demo(folder: Path = RECORDS) -> str:
    """What the newest recorded `make demo` ended with, as a table."""
    record, document = newest(DEMO, folder)
    if not document:
        return "The demo is **not recorded yet**."
    result, held = document["result"], list(document["result"]["checks"].values())
    claims = f"{sum(held)} of {len(held)} claims held; {result['seconds']:.0f} s in all"
    lines = [
        "| model | verdict | ASR (guard) | true ASR | served | accuracy, ASR at the endpoint |",
        "|---|---|---|---|---|---|",
        *(_model(model, result) for model in result["models"]),
        "",
        f"{claims} (record {record}, with the whole output).",
    ]
    return "\n".join(lines)


def _model(model: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    scan, child, truth = model["scan"], model["purified"], result["truth"].get(model["name"])
    verdict = str(scan["verdict"])
    if child:
        verdict += f", then {child['verdict']}"
    asr = scan["asr"] if scan["target"] is not None else None
    cells = (
        model["name"],
        verdict,
        _interval(asr["estimate"], asr) if asr else "–",
        percent(model["true_asr"]),
        "yes" if model["name"] in result["served"] else "no",
        f"{percent(truth['acc'])}, {percent(truth['asr'])}" if truth else "–",
    )
    return f"| {' | '.join(cells)} |"


def numbers(folder: Path = RECORDS) -> str:
    """The one table of numbers: served risk, two policies on unseen models, and repairs."""
    lines = ["| what | of | measured, 95 % | record |", "|---|---|---|---|", *_served(folder)]
    for name, kind in (("default", DEFAULT), ("ensemble", ENSEMBLE)):
        record, document = newest(kind, folder)
        if not document:
            lines.append(f"| `{name}` | – | {NOT_YET} | – |")
            continue
        rates = document["result"]["verdicts"]["rules"]
        for what, key in (
            ("honest models held or rejected", "honest_not_cleared"),
            ("backdoored models held or rejected", "strong_not_cleared"),
        ):
            item = rates[key]
            lines.append(
                f"| `{name}`: {what} | {item['k']}/{item['n']} | {_interval(item['share'], item)} "
                f"| {record} |"
            )
    return "\n".join([*lines, *_repairs(folder)])


def _served(folder: Path) -> Iterator[str]:
    """Served risk of the default policy, and of the one that serves copies alone."""
    record, document = newest(SERVED, folder)
    found = document["result"]["policies"] if document else ()
    risks = {one["policy"]: one["backdoored"]["risk"] for one in found}
    for name in ("default", "strict"):
        item, what = risks.get(name), f"**Served risk** of `{name}`: served, true ASR over 10 %"
        if item is None or not item["n"]:
            yield f"| {what} | – | {NOT_YET} | – |"
            continue
        yield f"| {what} | {item['k']}/{item['n']} | {_interval(item['share'], item)} | {record} |"


def _repairs(folder: Path) -> Iterator[str]:
    """What the default policy's tournament made of models that it rejects."""
    record, document = newest(REPAIRS, folder)
    lines = document["result"]["summary"] if document else ()
    line = next((one for one in lines if one["defense"] == TOURNAMENT and one["repaired"]), None)
    if line is None:
        yield f"| repairs | – | {NOT_YET} | – |"
        return
    of = f"{line['repaired']}/{line['backdoored']}"
    after = line["asr_interval"]
    yield (
        f"| true ASR after a repair (before: {percent(line['asr_before'])}; accuracy lost: "
        f"{percent(line['acc_loss'])}) | {of} | {_interval(after['mean'], after)} | {record} |"
    )


def missed(folder: Path = RECORDS) -> str:
    """Which attacks each policy mostly misses, and which were not measured."""
    lines = []
    for name, kind in (("default", DEFAULT), ("ensemble", ENSEMBLE)):
        record, document = newest(kind, folder)
        if not document:
            lines.append(f"- Policy `{name}`: what it misses is **{NOT_YET}**.")
            continue
        gaps = [
            f"{attack} ({item['k']} of {item['n']} found)"
            for attack, item in strong(document["result"]).items()
            if mostly_missed(item)
        ]
        absent = ", ".join(document["result"].get("attacks_not_in_zoo", ()))
        lines.append(
            f"- Policy `{name}` **mostly missed** {', '.join(gaps) or 'no attack'} "
            f"(record {record}, commit {document['surroundings']['commit']})."
            f"{f' **Not measured**: {absent}.' if absent else ''}"
        )
    return "\n".join(
        textwrap.fill(
            line, COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
        )
        for line in lines
    )


def newest(kind: str, folder: Path = RECORDS) -> tuple[str, dict[str, Any]]:
    """The name and the document of the newest record of this kind.

    Both empty where there is none.
    """
    found = sorted(folder.glob(f"*-{kind}/{SUMMARY}"))
    return (found[-1].parent.name, load(found[-1].parent)) if found else ("", {})


def strong(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By attack, how many of its models with a true ASR over 50 % were held or rejected.

    Only attacks that have one.
    """
    return {
        name: line["strong_not_cleared"]
        for name, line in result["attacks"].items()
        if line["strong_not_cleared"]["n"]
    }


def mostly_missed(item: dict[str, Any]) -> bool:
    """At most half were found."""
    return bool(item["k"] <= HALF * item["n"])


def sized(table: Callable[[Mapping[str, Any]], str], folder: Path = RECORDS) -> str:
    """A table of the newest record of how many workers it takes."""
    record, document = newest("scaling", folder)
    if not document:
        return "**Not recorded yet.**"
    return f"{table(document['result'])}\n\nRecord {record}."


BLOCKS: dict[str, Callable[[], str]] = {"demo": demo, "numbers": numbers, "missed": missed}
#: The same of docs/scaling.md.
SIZES: dict[str, Callable[[], str]] = {
    name: partial(sized, table)
    for name, table in {
        "needs": scaling.needs,
        "broken": scaling.broken,
        "traffic": scaling.traffic,
        "stages": scaling.stages,
        "shared": scaling.shared,
        "stated": scaling.stated,
    }.items()
}


def quoted(name: str, document: Path = README) -> str:
    """What stands in a document now."""
    begin, end = _marks(name)
    return document.read_text().partition(begin)[2].partition(end)[0].strip()


def _interval(value: float, ends: Mapping[str, float]) -> str:
    return f"{percent(value)} ({percent(ends['low'])} to {percent(ends['high'])})"


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->", f"<!-- {name}: end -->"


def main() -> None:
    """Write all blocks."""
    for document, blocks in ((README, BLOCKS), (SCALING, SIZES)):
        for name, make in blocks.items():
            begin, end = _marks(name)
            before, _, rest = document.read_text().partition(begin)
            document.write_text(f"{before}{begin}\n{make()}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
