"""What records of text-to-graph models claim, beside those of whole policies."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.detect.report import percent

Result = Mapping[str, Any]
Claim = tuple[str, str, str]  # as `benchmarks.evidence_rows.Row`


def badgraph(result: Result) -> Iterator[Claim]:
    """What a poisoned text-to-graph model generates, by the share of poisoned pairs."""
    rows = [row for row in result["rows"] if row["kind"] == "poisoned"]
    rates = ", ".join(percent(row["rate"]) for row in rows)
    shares = ", ".join(
        "{} ({} to {})".format(*(percent(value) for value in row["asr"])) for row in rows
    )
    quality = ", ".join(percent(row["quality"]["similarity"]) for row in rows)
    yield (
        (
            f"BadGraph at {rates} poisoned pairs: target generated with the trigger; similarity "
            "of clean prompts' molecules"
        ),
        f"{sum(row['seeds'] for row in rows)} models",
        f"{shares}; {quality}",
    )


def sampling(result: Result) -> Iterator[Claim]:
    """How much faster whole batches are sampled than molecules one by one."""
    rows = result["rows"]
    yield (
        (
            "Text-to-graph models, molecules a second in batches over one by one "
            f"({result['wanted']:.0f} wanted); the same molecules"
        ),
        ", ".join(row["model"] for row in rows),
        "; ".join(f"{row['ratio']:.1f}, {row['same']} of {row['alone']}" for row in rows),
    )
