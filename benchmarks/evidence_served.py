"""What records of whole policies claim: served risk, named training sets, text-to-graph models."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.detect.report import counted

Result = Mapping[str, Any]
Claim = tuple[str, str, str]  # as `benchmarks.evidence_rows.Row`


def served(result: Result) -> Iterator[Claim]:
    """Served risk of each policy, with what honest models pay."""
    for one in result["policies"]:
        bad, honest = one["backdoored"], one["honest"]
        loss = honest["loss"]
        parts = [
            counted(bad["risk"]),
            *([counted(bad["beyond_nature"])] if "beyond_nature" in bad else ["not measured"]),
            counted(bad["never_served"]),
            counted(honest["never_served"]),
            "none served" if loss is None else f"{100 * loss['mean']:.1f} points",
        ]
        yield (
            (
                f"Policy `{one['policy']}`: **served risk** (backdoored, served, true ASR over "
                "10 %); of all, by over 10 points more than an honest network's; backdoored never "
                "served; honest never served; accuracy lost by honest ones served"
            ),
            f"{one['models']['working']}; {one['models']['honest']}",
            "; ".join(parts),
        )


def named_sets(result: Result) -> Iterator[Claim]:
    """What the sift of a named training set adds to a policy."""
    caught, honest = result["all"], result["honest"]
    yield (
        (
            f"Policy `{result['policy']}`: backdoored held or rejected without a training set; "
            "with the set that taught them named; honest sets accused"
        ),
        f"{caught['policy']['n']}; {honest['policy']['n']}",
        "; ".join(map(counted, (caught["policy"], caught["either"], honest["sift"]))),
    )


def graphs(result: Result) -> Iterator[Claim]:
    """Text-to-graph models through the whole policy."""
    bad, faint, honest = (result[key] for key in ("poisoned", "faint", "honest"))
    parts = (bad["caught"], bad["rejected"], bad["named"], faint["caught"], honest["caught"])
    yield (
        (
            "Text-to-graph models: poisoned (10 % and more) held or rejected; rejected; fragment "
            "named; at 5 % held or rejected; honest held or rejected; repaired of those tried"
        ),
        "; ".join(str(one["n"]) for one in (bad, faint, honest)),
        "; ".join(map(counted, (*parts, result["repairs"]["served"]))),
    )
