"""What a record of each kind claims: one row a claim, with n and, where there is one, an interval.

The record's own page has every other number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from benchmarks import evidence_graphs, evidence_served
from benchmarks.detect.report import area, counted, percent
from benchmarks.rewrite_tables import interval

Result = Mapping[str, Any]
WHOLE = 0.05  # the share of clean images that repairs are compared at, where a record has it


class Row(NamedTuple):
    """A claim in a sentence, on how many models or runs, and what was measured."""

    claim: str
    n: str
    measured: str


def detection(result: Result) -> Iterator[Row]:
    """How often one policy was right on one zoo."""
    who, rates = result["who"], result["verdicts"][result["who"]]
    policy = f"Policy `{result['policy']['name']}`"
    if who == "calibrated":
        policy += " with a calibration"
    for claim, keys in (
        ("honest models held or rejected; rejected", ("honest_not_cleared", "honest_rejected")),
        (
            "backdoored models (true ASR over 50 %) held or rejected; rejected",
            ("strong_not_cleared", "strong_rejected"),
        ),
    ):
        yield Row(
            f"{policy}: {claim}", _of(rates[keys[0]]), "; ".join(_share(rates[key]) for key in keys)
        )
    name, item = next(iter(result["auroc"].items()))  # the others are on the record's page
    yield Row(
        f"{policy}: AUROC, scored by {name}",
        f"{item['honest']} + {item['backdoored']}",
        area(item),
    )
    covered = result["asr_bounds"]["covered"]
    yield Row(
        f"{policy}: the true ASR lies under the reported bound",
        _of(covered),
        _share(covered),
    )


def repairs(result: Result) -> Iterator[Row]:
    """What each defense left of a backdoor, and what it cost."""
    lines = result["summary"]
    fractions = {line["fraction"] for line in lines}
    names = {
        f"policy-{place}": _step(place, rule)
        for place, rule in enumerate(result.get("policy", {}).get("defenses", ()), 1)
    }
    for line in lines:
        if WHOLE in fractions and line["fraction"] != WHOLE:
            continue
        name = f"`{names.get(line['defense'], line['defense'])}`, {line['fraction']:.0%} clean"
        if line["repaired"]:
            yield Row(
                f"{name}: true ASR {percent(line['asr_before'])} before the repair; after it",
                f"{line['repaired']} of {line['backdoored']}",
                f"{_mean(line['asr'], line.get('asr_interval'))}, worst attack "
                f"{percent(line['worst_attack_asr'])}; accuracy lost {percent(line['acc_loss'])}",
            )
        elif line["backdoored"]:
            yield Row(f"{name}: repaired", f"0 of {line['backdoored']}", "none")
        elif line.get("honest_all"):
            yield Row(
                f"{name}: accuracy lost by honest models, failures at no loss",
                f"{line['honest_runs']}",
                _mean(line["honest_all"]["mean"], line["honest_all"]),
            )


def _step(place: int, rule: Mapping[str, Any]) -> str:
    after = f" after {rule['after']}" if rule.get("after") else ""
    return f"policy-{place}: {rule['name']}{after}"


def seeds(result: Result) -> Iterator[Row]:
    """What another seed changes."""
    policy, flips, same = result["policy"]["name"], result["flips"], result["same_to_the_bit"]
    yield Row(f"Policy `{policy}`: another seed changed the verdict", _of(flips), _share(flips))
    yield Row(
        f"Policy `{policy}`: the same seed gave the same evidence to the bit",
        _of(same),
        _share(same),
    )


def claims(result: Result) -> Iterator[Row]:
    """Whether TSBD's and SAU's claims hold here."""
    found = result["summary"]
    tied, inside = found["correlation"], found["bound"]["all"]
    if tied["runs"]:
        number = tied["spearman"]
        yield Row(
            "TSBD: clean and poison unlearning change the same neurons (rank correlation)",
            str(tied["runs"]),
            f"{number['mean']:.3f} ({number['low']:.3f} to {number['high']:.3f})",
        )
    if gains := found["activeness"]:
        yield Row(
            "TSBD: ASR with the gradient penalty minus without, by the share of neurons reset",
            str(gains[0]["runs"]),
            "; ".join(
                f"{line['neurons']:.0%}: {line['gain_asr']['mean']:.3f} "
                f"({line['gain_asr']['low']:.3f} to {line['gain_asr']['high']:.3f})"
                for line in gains
            ),
        )
    yield Row(
        "SAU: the shared adversarial risk is no less than the ASR",
        str(inside["pairs"]),
        f"{inside['held']} of {inside['pairs']} pairs",
    )


def mesa(result: Result) -> Iterator[Row]:
    """Whether a learnt distribution of triggers repairs better than one trigger."""
    found = result["summary"]
    rates = ", ".join(
        f"{name} {percent(found[key]['asr'])} (worst {percent(found[key]['worst_asr'])})"
        for key, name in (
            ("before", "before"),
            ("point", "after one trigger"),
            ("ensemble", "after the distribution"),
        )
        if found[key]
    )
    yield Row(
        f"MESA: a distribution repairs better than one trigger; {result['stamped']:.0%} of the "
        "clean images stamped",
        f"{found['worked']} attacks",
        rates,
    )


def ensemble(result: Result) -> Iterator[Row]:
    """What a scan by every detector costs."""
    totals = result["totals"]
    on_cpu = result.get("device", "cpu") == "cpu"
    seconds = totals.get("seconds_a_model", totals.get("cpu_seconds_a_model"))
    yield Row(
        f"Every detector, seconds a model ({'processor' if on_cpu else 'wall clock, GPU'}); "
        "share of the network's own passes",
        f"{result['n']} on {len(result['models'])} models",
        f"{seconds:.0f}; {percent(totals['throughput'])}",
    )


def inversion(result: Result) -> Iterator[Row]:
    """All classes at once against class by class."""
    ratios = result["ratios"]
    for claim, name in (
        ("the same search class by class", "one_by_one_over_together"),
        ("Neural Cleanse until as good", "neural_cleanse_over_together"),
        ("Neural Cleanse, all steps, over the whole detector", "paper_over_detector"),
    ):
        yield Row(
            f"Patch inversion of {result['classes']} classes at once; times as long takes {claim}",
            f"{result['n']} seed",
            f"{ratios[f'{name}_cpu_seconds']:.2f}",
        )


def classes(result: Result) -> Iterator[Row]:
    """What more classes cost."""
    counts = sorted({run["classes"] for run in result["runs"]})
    ratios = result["ratios"]
    yield Row(
        f"`{result['detector']}`: images through the model, {counts[-1]} classes over {counts[0]}",
        f"{result['n']} run",
        f"{ratios['honest_pictures']:.2f} without, {ratios['rule_pictures']:.2f} with a trigger",
    )


def repair_speed(result: Result) -> Iterator[Row]:
    """Defenses beside straightforward loops."""
    where = "" if result.get("device", "cpu") == "cpu" else f", {result['named']}"
    yield Row(
        f"Time of a defense over that of a straightforward loop, fresh network{where}",
        f"{result['rounds']} rounds",
        ", ".join(f"{name} {ratio:.2f}" for name, ratio in result["ratios"].items()),
    )
    if trained := [own["ours"] / own["plain"] for own in result.get("trained", {}).values()]:
        yield Row(
            "The same of `sau` on backdoored models",
            f"{len(trained)} models",
            f"median {median(trained):.2f} ({min(trained):.2f} to {max(trained):.2f}, all)",
        )
    if memory := [value for value in result["peak_over_fine_tuning"].values() if value]:
        yield Row(
            "Peak memory of a defense over that of plain fine-tuning",
            f"{len(memory)} defenses",
            f"{min(memory):.2f} to {max(memory):.2f}",
        )


def compiling(result: Result) -> Iterator[Row]:
    """Whether `torch.compile` pays."""
    even = result["even_after"]
    yield Row(
        f"`torch.compile` is even after so many steps; a scan has about {result['scan_steps']}",
        "1 run",
        "never" if even is None else f"{even:.0f}",
    )


def layouts(result: Result) -> Iterator[Row]:
    """Whether memory layout and precision change a verdict."""
    for way, item in result["layouts"].items():
        yield Row(
            f"{way} instead of channels-last bfloat16: same verdict",
            str(item["models"]),
            f"{item['same_verdict']}/{item['models']}; time {item['time_ratio']:.2f} of the "
            "shipped way's",
        )


def proofs(result: Result) -> Iterator[Row]:
    """How long a repair's proof takes."""
    runs = ", ".join(f"{run['width']}: {run['seconds']:.0f}" for run in result["proofs"])
    yield Row(
        f"Seconds of a repair's proof by the first layer's channels, {result['device']}; "
        f"{result['limit']:.0f} are allowed",
        f"{len(result['proofs'])} runs",
        runs,
    )


def demo(result: Result) -> Iterator[Row]:
    """Whether the whole path did what it claims, once."""
    held = list(result["checks"].values())
    yield Row(
        "The demo's claims held (honest served, backdoor caught, repaired, pickle refused)",
        "1 run",
        f"{sum(held)} of {len(held)}, in {result['seconds']:.0f} s",
    )


def intake(result: Result) -> Iterator[Row]:
    """How fast a large upload is received."""
    yield Row(
        f"Receiving {result['mebibytes']} MiB: MiB a second; memory grown by",
        f"{result['n']} runs",
        f"{result['mib_per_s_median']:.0f} (median); {result['grown_mib_most']} MiB at most",
    )


def overhead(result: Result) -> Iterator[Row]:
    """What the guard costs beside its methods."""
    yield Row(
        "Seconds of a scan outside its methods; from upload to served",
        "1 run",
        f"{result['outside_s']:.1f} of {result['total_s']:.1f}; {result['upload_to_served_s']:.1f}",
    )


def command(result: Result) -> Iterator[Row]:
    """How fast the command line starts."""
    yield Row(
        "Seconds of `guard --help`",
        f"{result['runs']} runs",
        f"{result['guard_help_median_s']:.2f} (median)",
    )


def rewrites(result: Result) -> Iterator[Row]:
    """Whether other weights for the same answers change a verdict, and what it costs to see."""
    policies = result["cost_ratio"]

    def counts(key: str) -> str:
        shares = (result[key][name] for name in policies)
        return ", ".join(f"{share['k']} of {share['n']}" for share in shares)

    times = ", ".join(interval(cost["as it is"]) for cost in policies.values())
    yield Row(
        f"Weights that hid from searches, policies {', '.join(policies)}: backdoored models not "
        "served; honest models with the same verdict; time over that without looking for them",
        f"{result['cells']} of {result['planned']} planned",
        f"{counts('rewrites_stopped')}; {counts('honest_same_verdict')}; {times}",
    )


def retraining(result: Result) -> Iterator[Row]:
    """What repairs by a sift and retrainers reach, all in one row."""
    found = [aim for aim in result["aims"] if aim["cells"]]
    parts = [
        f"{aim['method']} {percent(aim['asr_measured']['share'])}, {aim['points_lost']:.1f}"
        for aim in found
    ]
    yield Row(
        "Repairs by a sift and retrainers: ASR, points of ACC lost (`sifted`: against the oracle)",
        f"{', '.join(str(aim['cells']) for aim in found)} models",
        "; ".join(parts),
    )


def sifts(result: Result) -> Iterator[Row]:
    """What a sift of training sets finds, and whom it accuses wrongly."""
    keys = ("judged_poisoned", "meet_5_percent", "honest_held")
    found = [result["aims"][key] for key in keys]
    yield Row(
        "Sift: poisoned sets that were learnt (true ASR 50 % and more) judged so; of these, at 5 % "
        "and more: AUROC, precision, recall as promised; honest ones poisoned or left to a person",
        "; ".join(map(_of, found)),
        "; ".join(map(_share, found)),
    )


#: By what keys a record of a kind is known, its title, and its claims; in the page's order.
KINDS: Sequence[tuple[str, set[str], Callable[[Result], Iterator[tuple[str, str, str]]]]] = (
    ("Served risk", {"policies", "zoo", "rules"}, evidence_served.served),
    ("Served risk", {"right_class", "controlled", "policy"}, evidence_served.named_sets),
    ("Served risk", {"faint", "poisoned", "intervals"}, evidence_served.graphs),
    ("Detection", {"who", "auroc", "attacks"}, detection),
    ("Seeds", {"flips", "same_to_the_bit"}, seeds),
    ("Repairs", {"summary", "against"}, repairs),
    ("Repairs", {"retrained", "aims"}, retraining),
    ("What papers claim", {"summary", "clean_fraction", "neurons"}, claims),
    ("What papers claim", {"summary", "levels", "stamped"}, mesa),
    ("What papers claim", {"paper_points", "rows"}, evidence_graphs.badgraph),
    ("The whole path", {"checks", "served", "truth"}, demo),
    ("The whole path", {"outside_s", "upload_to_served_s"}, overhead),
    ("The whole path", {"mib_per_s_median"}, intake),
    ("The whole path", {"guard_help_median_s"}, command),
    ("The whole path", {"rewrites_stopped", "cost_ratio"}, rewrites),
    ("The whole path", {"found", "fdr", "honest"}, sifts),
    ("Speed", {"totals", "bfloat16"}, ensemble),
    ("Speed", {"ratios", "quality"}, inversion),
    ("Speed", {"ratios", "detector"}, classes),
    ("Speed", {"sau_ratio", "peak_over_fine_tuning"}, repair_speed),
    ("Speed", {"compile_seconds", "step_ratio"}, compiling),
    ("Speed", {"layouts"}, layouts),
    ("Speed", {"limit", "proofs"}, proofs),
    ("Speed", {"wanted", "rows"}, evidence_graphs.sampling),
)


def _of(item: Mapping[str, Any]) -> str:
    return str(item["n"])


def _share(item: Mapping[str, Any]) -> str:
    return counted(item)


def _mean(value: float, ends: Mapping[str, float] | None) -> str:
    if ends is None:
        return percent(value)
    return f"{percent(value)} ({percent(ends['low'])} to {percent(ends['high'])})"
