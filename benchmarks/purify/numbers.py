"""Turn rows into numbers: means by defense and clean fraction, by attack, paired differences.

`report` presents them. Intervals are 95 % bootstrap intervals over models: the rows of one model,
one per seed, are drawn together.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, median
from typing import Any

import numpy as np

DRAWS = 2000
BASELINE = "fine_tune"
UNREPAIRED = 0.5  # DER where neither ASR nor ACC has changed
# Growth of the process, and of a CUDA device's allocated memory.
PROCESS_PEAK, DEVICE_PEAK = "peak_mib", "peak_device_mib"
AIM = 0.01  # ACC that a repair may cost an honest model
ROUNDING = 1e-9  # of a difference of two shares
Row = Mapping[str, Any]
Rows = Sequence[Row]


def repaired(row: Row) -> bool:
    """Whether a defense changed this row's model; a tournament may clear a model unchanged."""
    return bool(row.get("after")) and ("verdict" not in row or row.get("winner") is not None)


def summary(rows: Rows) -> list[dict[str, Any]]:
    """One line for each defense and fraction.

    Means are over the runs that it repaired; the line also counts the other runs. `der_all` is over
    all runs on backdoored models, where a run without a repair counts as 0.5, the DER of an
    unchanged model. `ceiling` and `ceiling_all` are the DER with no ASR left and no accuracy lost.
    """
    asr_before = {
        row["model"]: row["before"]["asr"]
        for row in rows
        if row.get("before") and row["backdoored"]
    }
    found = []
    for fraction, name in sorted({(row["fraction"], row["defense"]) for row in rows}):
        own = [row for row in rows if (row["fraction"], row["defense"]) == (fraction, name)]
        bad = [row for row in own if row["backdoored"]]
        line: dict[str, Any] = {
            "defense": name,
            "fraction": fraction,
            "seeds": sorted({row["seed"] for row in own}),
            "models": len({row["model"] for row in bad}),
            "backdoored": len(bad),
            "repaired": sum(map(repaired, bad)),
            "failed": _counts(row.get("failed") for row in own),
            "memory": memory(own, rows),
        }
        if bad:
            known = [asr_before[row["model"]] for row in bad if row["model"] in asr_before]
            line |= {
                "der_all": _over(bad, lambda row: row["der"] if repaired(row) else UNREPAIRED),
                "ceiling_all": _ceiling(known) if len(known) == len(bad) else None,
            }
        line |= _of_repaired([row for row in bad if repaired(row)])
        line |= _of_honest([row for row in own if not row["backdoored"]])
        if any("verdict" in row for row in own):
            line |= {
                "verdicts": _counts(row.get("verdict") for row in own),
                "winners": _counts(row.get("winner") for row in own),
                "time_over_winner": _over_winner(own),
            }
        found.append(line)
    return found


def _of_repaired(done: Rows) -> dict[str, Any]:
    if not done:
        return {}
    asr = _over(done, lambda row: row["after"]["asr"])
    return {
        "asr_before": fmean(row["before"]["asr"] for row in done),
        "asr": asr["mean"],
        "asr_interval": asr,
        "worst_attack_asr": max(by_attack(done).values()),
        **{
            f"ra_{when}": _mean(row[when].get("ra") for row in done) for when in ("before", "after")
        },
        "acc_loss": fmean(row["loss"] for row in done),
        "worst_class_loss": max(row["worst_class_loss"] for row in done),
        "der": _over(done, lambda row: row["der"]),
        "ceiling": _ceiling([row["before"]["asr"] for row in done]),
        "seconds": median(row["seconds"] for row in done),
    }


def _of_honest(own: Rows) -> dict[str, Any]:
    """What a repair costs models that needed none.

    `honest` counts those that were changed, of `honest_runs`. In `honest_all`, a run that left its
    model unchanged counts as one without loss.
    """
    changed = [row for row in own if repaired(row)]
    found: dict[str, Any] = {}
    if own:
        found = {"honest_runs": len(own), "honest_models": len({row["model"] for row in own})}
    if changed:
        loss = _over(changed, lambda row: row["loss"])
        found |= {
            "honest": len(changed),
            "honest_loss": loss["mean"],
            "honest_interval": loss,
            "honest_all": _over(own, lambda row: row["loss"] if repaired(row) else 0.0),
            "honest_worst_loss": max(row["loss"] for row in changed),
            "honest_over_aim": sum(row["loss"] > AIM + ROUNDING for row in changed),
            "honest_worst_class_loss": max(row["worst_class_loss"] for row in changed),
            "honest_seconds": median(row["seconds"] for row in changed),
        }
    return found


def memory(own: Rows, rows: Rows) -> dict[str, Any] | None:
    """The largest peak in MiB, and the peaks' sum over that of `BASELINE` in the same `runs`.

    None if it was not measured. Single ratios would mean little, because an allocator's rounding
    hides the peak of a small network.
    """
    key = DEVICE_PEAK if any(DEVICE_PEAK in row for row in own) else PROCESS_PEAK
    peaks = {_place(row): float(row[key]) for row in own if row.get(key) is not None}
    if not peaks:
        return None
    base = {
        _place(row): float(row[key])
        for row in rows
        if row["defense"] == BASELINE and row.get(key) is not None
    }
    shared = peaks.keys() & base.keys()
    below = sum(base[place] for place in shared)
    return {
        "of": "device" if key == DEVICE_PEAK else "process",
        "mib": max(peaks.values()),
        "runs": len(shared),
        "over_baseline": sum(peaks[place] for place in shared) / below if below else None,
    }


def _place(row: Row) -> tuple[Any, ...]:
    return row["fraction"], row["model"], row["seed"]


def _ceiling(asr_before: Sequence[float]) -> float:
    return (1 + fmean(asr_before)) / 2


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _over(rows: Rows, value: Callable[[Row], float]) -> dict[str, float]:
    return interval([value(row) for row in rows], [row["model"] for row in rows])


def by_attack(rows: Rows) -> dict[str, float]:
    """Mean ASR after the repair, by attack."""
    attacks = sorted({str(row["attack"]) for row in rows})
    return {
        name: fmean(row["after"]["asr"] for row in rows if row["attack"] == name)
        for name in attacks
    }


def attacks(rows: Rows) -> list[dict[str, Any]]:
    """Mean ASR after the repair of each attack's models, by defense and fraction.

    `n` is the number of runs on them: [repaired, all].
    """
    found = []
    bad = [row for row in rows if row["backdoored"]]
    for name, fraction in sorted({(row["defense"], row["fraction"]) for row in bad}):
        own = [row for row in bad if (row["defense"], row["fraction"]) == (name, fraction)]
        done = [row for row in own if repaired(row)]
        counts = {
            attack: [sum(row["attack"] == attack for row in some) for some in (done, own)]
            for attack in sorted({str(row["attack"]) for row in own})
        }
        found.append({"defense": name, "fraction": fraction, "asr": by_attack(done), "n": counts})
    return found


def against(rows: Rows, baseline: str = BASELINE) -> list[dict[str, Any]]:
    """DER of each defense minus that of the baseline on the same models, with a paired interval."""
    known = {
        (row["fraction"], row["defense"], row["model"], row["seed"]): row["der"]
        for row in rows
        if row["backdoored"] and repaired(row)
    }
    found = []
    for fraction, name in sorted({key[:2] for key in known}):
        pairs = {
            key[2:]: der - known[fraction, baseline, *key[2:]]
            for key, der in known.items()
            if key[:2] == (fraction, name) and (fraction, baseline, *key[2:]) in known
        }
        if name != baseline and pairs:
            models = [model for model, _seed in pairs]
            found.append(
                {
                    "defense": name,
                    "fraction": fraction,
                    "models": len(set(models)),
                    "runs": len(pairs),
                    "der_gain": interval(list(pairs.values()), models),
                }
            )
    return found


def beside(rows: Rows, champion: str) -> list[dict[str, Any]]:
    """Paired differences of `champion` and each other defense on the models that both repaired.

    They are of DER (more is better), and of ASR, loss of accuracy and the worst class's loss of
    recall (less is better).
    """
    done = {
        (row["fraction"], row["defense"], row["model"], row["seed"]): row
        for row in rows
        if row["backdoored"] and repaired(row)
    }
    found = []
    for fraction, name in sorted({key[:2] for key in done if key[1] != champion}):
        pairs = [
            (done[fraction, champion, *key[2:]], row)
            for key, row in done.items()
            if key[:2] == (fraction, name) and (fraction, champion, *key[2:]) in done
        ]
        if pairs:
            models = [one["model"] for one, _ in pairs]
            gaps = {
                "der": [one["der"] - other["der"] for one, other in pairs],
                "asr": [one["after"]["asr"] - other["after"]["asr"] for one, other in pairs],
                **{
                    key: [one[key] - other[key] for one, other in pairs]
                    for key in ("loss", "worst_class_loss")
                },
            }
            found.append(
                {
                    "defense": name,
                    "fraction": fraction,
                    "models": len(set(models)),
                    "runs": len(pairs),
                    **{key: interval(values, models) for key, values in gaps.items()},
                }
            )
    return found


def interval(
    values: Sequence[float], models: Sequence[str] | None = None, seed: int = 0
) -> dict[str, float]:
    """Mean and its 95 % percentile bootstrap interval over models.

    Args:
        models: the model of each value, by default a different one each. A model is drawn with all
            of its values, because another seed on the same model is not another model.
    """
    points = np.asarray(values, np.float64)
    owner = (
        np.unique(models, return_inverse=True)[1] if models is not None else np.arange(len(points))
    )
    sums, counts = np.bincount(owner, points), np.bincount(owner)
    drawn = np.random.default_rng(seed).choice(len(sums), (DRAWS, len(sums)))
    draws = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"mean": float(points.mean()), "low": float(low), "high": float(high)}


def _over_winner(rows: Rows) -> float | None:
    """Median, over won tournaments, of all candidates' repair time over the winner's alone."""
    ratios = []
    for row in rows:
        tried = row.get("candidates", [])
        # Found by its verdict: a policy may try a defense twice, on the parent and on the result of
        # another defense.
        places = [place for place, item in enumerate(tried) if item.get("verdict") == "purified"]
        if places and (alone := sum(item["seconds"] for item in _links(tried, places[0]))):
            ratios.append(sum(item.get("seconds") or 0 for item in tried) / alone)
    return median(ratios) if ratios else None


def _links(tried: Rows, place: int) -> list[Row]:
    """A candidate and those that it builds on: a chain that runs alone makes each of its links."""
    item = tried[place]
    if not (after := item.get("after")):
        return [item]
    start = max(
        earlier
        for earlier in range(place)
        if [*tried[earlier].get("after", ()), tried[earlier]["defense"]] == after
    )
    return [*_links(tried, start), item]


def _counts(values: Any) -> dict[str, int]:
    known = [str(value) for value in values if value is not None]
    return {name: known.count(name) for name in sorted(set(known))}
