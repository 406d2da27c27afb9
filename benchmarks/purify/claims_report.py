"""The results of a test of TSBD's and SAU's claims, as numbers and Markdown."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from benchmarks.purify.numbers import interval

Row = Mapping[str, Any]
TUNINGS = ("reset", "plain", "active")
INSIDE = "trigger inside the ball"


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Means over all runs, intervals over models, and how often each claim held."""
    tied = [(row["model"], row["correlation"]) for row in rows if "correlation" in row]
    tuned = [(row["model"], item) for row in rows for item in row.get("activeness", [])]
    bounded = [item for row in rows for item in row.get("bound", {}).values()]
    inside = [item for item in bounded if item["within"] == 1]
    kinds = {
        name: [
            row["bound"][name]
            for row in rows
            if row.get("bound", {}).get(name, {}).get("within") == 1
        ]
        for name in dict.fromkeys(name for row in rows for name in row.get("bound", {}))
    }
    return {
        "correlation": {
            "runs": len(tied),
            "positive": sum(item["spearman"] > 0 for _, item in tied),
            **{
                key: _over(tied, lambda item, key=key: item[key])  # type: ignore[misc]
                for key in ("spearman", "pearson", "top_shared", "by_chance")
            },
        },
        "activeness": [
            _tuned([pair for pair in tuned if pair[1]["neurons"] == share])
            for share in sorted({item["neurons"] for _, item in tuned})
        ],
        "bound": {"all": _held(bounded), INSIDE: _held(inside)},
        "bound_by": {
            name: {
                **_held(items),
                **{key: fmean(item[key] for item in items) for key in ("risk", "asr")},
            }
            for name, items in kinds.items()
            if items
        },
    }


def _tuned(pairs: Sequence[tuple[str, Row]]) -> dict[str, Any]:
    """Mean ACC and ASR after each way for one share of reset neurons, and the penalty's gain."""
    items = [item for _, item in pairs]
    means = {
        name: {key: fmean(item[name][key] for item in items) for key in ("acc", "asr")}
        for name in TUNINGS
    }
    gains = {
        f"gain_{key}": _over(pairs, lambda item, key=key: item["active"][key] - item["plain"][key])  # type: ignore[misc]
        for key in ("acc", "asr")
    }
    return {
        "runs": len(items),
        "models": len({model for model, _ in pairs}),
        "neurons": items[0]["neurons"],
        "lower_asr": sum(item["active"]["asr"] < item["plain"]["asr"] for item in items),
        **means,
        **gains,
    }


def _over(
    pairs: Sequence[tuple[str, Row]], value: Callable[[Row], float]
) -> dict[str, float] | None:
    return (
        interval([value(item) for _, item in pairs], [model for model, _ in pairs])
        if pairs
        else None
    )


def _held(items: Sequence[Row]) -> dict[str, int]:
    return {"pairs": len(items), "held": sum(item["risk"] >= item["asr"] for item in items)}


def page(result: Row) -> str:
    """The numbers as Markdown; readers judge for themselves whether a claim holds."""
    found = result["summary"]
    return "\n\n".join(
        filter(
            None,
            [
                result["note"],
                _tied(found["correlation"], result["top"]),
                _penalty(found["activeness"]),
                _bounds(found["bound"]),
                _by(found.get("bound_by", {})),
            ],
        )
    )


def _tied(found: Row, top: float) -> str:
    if not found["runs"]:
        return "(a) No model could be asked."
    return (
        f"(a) Rank correlation {_number(found['spearman'])}, positive in {found['positive']} of "
        f"{found['runs']} "
        f"runs; of the top {top:.0%} of the neurons both orders share "
        f"{found['top_shared']['mean']:.0%} (by chance "
        f"{found['by_chance']['mean']:.0%})."
    )


def _penalty(found: Sequence[Row]) -> str:
    head = (
        "neurons",
        "runs (models)",
        "reset: ACC, ASR",
        "plain: ACC, ASR",
        "with the penalty: ACC, ASR",
        "gain of ACC",
        "gain of ASR (less is better)",
        "lower ASR in",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for line in found:
        ways = " | ".join(f"{line[name]['acc']:.1%}, {line[name]['asr']:.1%}" for name in TUNINGS)
        lines.append(
            f"| {line['neurons']:.0%} | {line['runs']} ({line['models']}) | {ways} | "
            f"{_number(line['gain_acc'])} | {_number(line['gain_asr'])} | "
            f"{line['lower_asr']}/{line['runs']} |"
        )
    return (
        "(b) From the same reset weights, by the share of neurons that were reset; the gain is "
        "that of the penalty "
        "over plain fine-tuning:\n\n"
    ) + "\n".join(lines)


def _bounds(found: Row) -> str:
    return (
        f"(c) The estimated risk was no less than the ASR in {_share(found['all'])} pairs, and in "
        f"{_share(found[INSIDE])} of those whose trigger stays inside the ball on every image."
    )


def _by(found: Mapping[str, Row]) -> str:
    if not found:
        return ""
    head = (
        "what was done to the model",
        "pairs inside the ball",
        "mean risk",
        "mean ASR",
        "risk no less in",
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [
        f"| {name} | {one['pairs']} | {one['risk']:.1%} | {one['asr']:.1%} | {_share(one)} |"
        for name, one in found.items()
    ]
    return "\n".join(lines)


def _share(held: Mapping[str, int]) -> str:
    return f"{held['held']} of {held['pairs']}"


def _number(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
