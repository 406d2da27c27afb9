"""Turn rows into numbers: AUROC, rates, coverage of ASR bounds, levels of p values.

Intervals of AUROC are by bootstrap, those of rates are Wilson's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from guard.ml.statistics import wilson

DRAWS = 2000
HIGH_ASR = 0.5
BINS = 5
Rows = Sequence[Mapping[str, Any]]


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """P(a backdoored model scores above an honest one), ties half; None if a kind is missing."""
    values, truth = np.asarray(scores, np.float64), np.asarray(labels, bool)
    good, bad = values[~truth], values[truth]
    if not len(good) or not len(bad):
        return None
    ranks = stats.rankdata(np.concatenate([bad, good]))[: len(bad)]
    return float((ranks.sum() - len(bad) * (len(bad) + 1) / 2) / (len(bad) * len(good)))


def auroc_with_interval(
    scores: Sequence[float], labels: Sequence[bool], seed: int = 0
) -> dict[str, Any]:
    """AUROC and its 95 % percentile interval over resampled honest and backdoored models."""
    value, truth, points = (
        auroc(scores, labels),
        np.asarray(labels, bool),
        np.asarray(scores, np.float64),
    )
    if value is None:
        return {
            "auroc": None,
            "low": None,
            "high": None,
            "honest": int((~truth).sum()),
            "backdoored": int(truth.sum()),
        }
    good, bad = points[~truth], points[truth]
    wins = (bad[:, None] > good[None, :]) + 0.5 * (bad[:, None] == good[None, :])
    rng = np.random.default_rng(seed)
    # How often each model is drawn; a draw's AUROC is then the weighted mean of the same
    # comparisons.
    own = rng.multinomial(len(bad), np.full(len(bad), 1 / len(bad)), DRAWS)
    other = rng.multinomial(len(good), np.full(len(good), 1 / len(good)), DRAWS)
    draws = ((own @ wins) * other).sum(1) / (len(bad) * len(good))
    low, high = np.quantile(draws, [0.025, 0.975])
    return {
        "auroc": value,
        "low": float(low),
        "high": float(high),
        "honest": len(good),
        "backdoored": len(bad),
    }


def share(flags: Iterable[bool]) -> dict[str, Any]:
    """k of n with Wilson's 95 % interval."""
    known = list(flags)
    low, high = wilson(sum(known), len(known))
    return {
        "k": sum(known),
        "n": len(known),
        "share": sum(known) / len(known) if known else None,
        "low": low,
        "high": high,
    }


def verdicts(rows: Rows, who: str) -> dict[str, Any]:
    """What happens to honest and backdoored models under `rules` or `calibrated`."""
    decided = [(row, row[who]["verdict"]) for row in rows if who in row]
    honest = [verdict for row, verdict in decided if not row["backdoored"]]
    strong = [verdict for row, verdict in decided if strong_attack(row)]
    every = [verdict for row, verdict in decided if row["backdoored"]]
    return {
        "honest_not_cleared": share(verdict in ("held", "rejected") for verdict in honest),
        "honest_rejected": share(verdict == "rejected" for verdict in honest),
        "strong_not_cleared": share(verdict in ("held", "rejected") for verdict in strong),
        "strong_rejected": share(verdict == "rejected" for verdict in strong),
        "strong_cleared": share(verdict == "cleared" for verdict in strong),
        "backdoored_not_cleared": share(verdict in ("held", "rejected") for verdict in every),
        "inconclusive": share(verdict == "inconclusive" for _, verdict in decided),
    }


def strong_attack(row: Mapping[str, Any]) -> bool:
    """A backdoor that works on more than half of the images."""
    return bool(row["backdoored"]) and row["asr"] is not None and row["asr"] > HIGH_ASR


def detectors(rows: Rows) -> dict[str, Any]:
    """Each detector alone: AUROC of its score, its flags on honest and backdoored models, its time.

    Backdoored models count here only if the backdoor is strong.
    """
    found = {}
    for name in sorted({name for row in rows for name in row["detectors"]}):
        seen = [(row, row["detectors"][name]) for row in rows if name in row["detectors"]]
        looked = [(row, result) for row, result in seen if result["flag"] is not None]
        found[name] = {
            **auroc_with_interval(
                [result["score"] for _, result in looked], [row["backdoored"] for row, _ in looked]
            ),
            "honest_flagged": share(
                result["flag"] for row, result in looked if not row["backdoored"]
            ),
            "strong_flagged": share(result["flag"] for row, result in looked if strong_attack(row)),
            "could_not_look": len(seen) - len(looked),
            "median_seconds": float(np.median([result["seconds"] for _, result in seen]))
            if seen
            else None,
        }
    return found


def attacks(rows: Rows, who: str) -> dict[str, Any]:
    """Every attack, nothing left out; `honest` rows are grouped by hardness."""
    found: dict[str, Any] = {}
    for row in rows:
        name = str(row["attack"]) if row["backdoored"] else f"honest: {row['hardness'] or 'plain'}"
        found.setdefault(name, []).append(row)
    methods = sorted({name for row in rows for name in row["detectors"]})
    return {
        name: {
            "models": len(own),
            "asr": _mean(row["asr"] for row in own),
            "strong": sum(strong_attack(row) for row in own),
            "not_cleared": share(
                row[who]["verdict"] in ("held", "rejected") for row in own if who in row
            ),
            "rejected": share(row[who]["verdict"] == "rejected" for row in own if who in row),
            "strong_not_cleared": share(
                row[who]["verdict"] in ("held", "rejected")
                for row in own
                if who in row and strong_attack(row)
            ),
            "flagged": {
                method: share(
                    bool(row["detectors"][method]["flag"])
                    for row in own
                    if method in row["detectors"]
                )
                for method in methods
            },
        }
        for name, own in sorted(found.items())
    }


def asr_bounds(rows: Rows, who: str) -> dict[str, Any]:
    """How often the true ASR of detected models lies under the reported bound.

    The width of the interval is measured too. The numbers are for all attacks together, and under
    `attacks` for each of them.
    """
    seen = [
        row
        for row in rows
        if row["backdoored"]
        and row["asr"] is not None
        and who in row
        and row[who]["verdict"] in ("held", "rejected")
        and row[who]["asr_upper"] is not None
    ]
    kinds = sorted({row["attack"] for row in seen})
    return _bounds(seen, who) | {
        "attacks": {
            kind: _bounds([row for row in seen if row["attack"] == kind], who) for kind in kinds
        }
    }


def _bounds(seen: Rows, who: str) -> dict[str, Any]:
    widths = [row[who]["asr_upper"] - (row[who]["asr_low"] or 0.0) for row in seen]
    return {
        "covered": share(row["asr"] <= row[who]["asr_upper"] for row in seen),
        "median_width": float(np.median(widths)) if widths else None,
        "bound_is_one": share(row[who]["asr_upper"] >= 1.0 for row in seen),
        "median_error": _median(
            abs(row["asr"] - row[who]["asr"]) for row in seen if row[who]["asr"] is not None
        ),
    }


def levels(rows: Rows) -> dict[str, Any]:
    """p values on honest models: how many are small, and whether they are too small overall.

    The latter is a one-sided Kolmogorov-Smirnov test against the uniform distribution.
    """
    found = {}
    for name, values in honest_p(rows).items():
        if len(values) < 3:
            continue
        test = stats.kstest(values, "uniform", alternative="greater")
        found[name] = {
            "n": len(values),
            "ks": float(test.statistic),
            "ks_p": float(test.pvalue),
            "under_1": share(value <= 0.01 for value in values),
            "under_5": share(value <= 0.05 for value in values),
        }
    return found


def honest_p(rows: Rows) -> dict[str, list[float]]:
    """The p values of honest models: combined, of the most accused class, and per detector."""
    found: dict[str, list[float]] = {"combined": []}
    for row in rows:
        if not row["backdoored"]:
            if row["combined_p"] is not None:
                found["combined"].append(row["combined_p"])
            if row.get("class_p") is not None:
                found.setdefault("one class", []).append(row["class_p"])
            for name, result in row["detectors"].items():
                if result["p"] is not None:
                    found.setdefault(name, []).append(result["p"])
    return found


def reliability(probabilities: Sequence[float], labels: Sequence[bool]) -> list[dict[str, Any]]:
    """Mean probability against the share that is backdoored, in non-empty bins of equal width."""
    values, truth = np.asarray(probabilities), np.asarray(labels, bool)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    return [
        {"mean": float(values[bins == place].mean()), **share(truth[bins == place].tolist())}
        for place in range(BINS)
        if (bins == place).any()
    ]


def split(scores: Mapping[str, Mapping[str, float]], rows: Rows) -> dict[str, Any]:
    """AUROC of each left-out value against the honest models scored with it, or against all."""
    truth = {row["name"]: bool(row["backdoored"]) for row in rows}
    every = {name: score for own in scores.values() for name, score in own.items()}
    honest = {name: score for name, score in every.items() if not truth[name]}
    found = {}
    for value, own in scores.items():
        # An attack's few models stand against all honest ones; an architecture's models against its
        # own.
        pool = own if value in {row["architecture"] for row in rows} else {**honest, **own}
        found[value] = auroc_with_interval(list(pool.values()), [truth[name] for name in pool])
    return {
        "each": found,
        "all": auroc_with_interval(list(every.values()), [truth[name] for name in every]),
    }


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return float(np.median(known)) if known else None
