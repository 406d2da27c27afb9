"""Whether the claims of two papers hold at our scale, on working backdoored models of a zoo.

    python -m benchmarks.bench_claims --zoo DIR [--data-dir DIR] [--only TEXT] [--within] [--sample
        N] [--seeds 0] [--jobs N]

TSBD (Lin et al., NeurIPS 2024): (a) the neurons that clean unlearning changes most are those that
poison unlearning changes most, measured by the rank correlation of neuron weight change (NWC) over
all hidden neurons; (b) fine-tuning with the gradient penalty restores the backdoor less than plain
fine-tuning from the same reset weights, for several shares of reset neurons. SAU (Wei et al.,
NeurIPS 2023): (c) the shared adversarial risk of a model and its reference is no less than the ASR:
for the model itself, after plain fine-tuning, and after SAU. The risk is estimated by SAU's own
search in its L-infinity ball, so it is a lower bound of the true one. The paper promises nothing
for triggers that leave the ball, so these pairs are counted separately. Poison and the true trigger
belong to the evaluator; the defenses' own steps see clean images only.
"""

import argparse
import copy
import json
import multiprocessing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import guard
from benchmarks import record, zoo
from benchmarks.attacks._base import Attack
from benchmarks.bench_purify import drawn
from benchmarks.purify.claims_report import page, summary
from benchmarks.purify.running import fraction_of, one_thread
from benchmarks.training import accuracy
from benchmarks.zoo import ZooModel, make, sets, spec
from guard.core.errors import MethodFailed
from guard.core.progress import silent
from guard.defenses import DEFENSES
from guard.defenses.sau import Sau
from guard.defenses.tsbd import Tsbd, changes, each, planned, reset
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.networks.neurons import flow_on, hidden_layers
from guard.ml.seeds import seeded
from guard.ml.training.fit import fit
from guard.ml.training.shared_adversarial import risk
from guard.ml.training.sharpness import uphill
from guard.vetting import population

FRACTION = 0.05
# Shares for claim (b), the same for all models, in the range that the authors' code scans.
NEURONS, WEIGHTS = (0.05, 0.15, 0.4), 0.7
TOP = 0.15  # the share of neurons at the top of both orders of (a) that are compared
RISK_IMAGES = 200


def poison_unlearnt(model: nn.Module, clean: CleanSet, attack: Attack, method: Tsbd) -> nn.Module:
    """A copy that has unlearnt the trigger, by ascent on the loss of stamped images."""
    copied = copy.deepcopy(model).train()
    victims = clean.search.pick(attack.victims(clean.search.labels))
    data = Labelled(attack.stamp(victims.images), attack.relabel(victims.labels))
    optimiser = torch.optim.SGD(copied.parameters(), lr=method.unlearn_rate, momentum=0.9)

    def forgotten(finished: int) -> bool:
        if finished % method.patience == 0:
            optimiser.param_groups[0]["lr"] *= 2
        return accuracy(copied, data) <= 1 / clean.classes

    fit(
        copied,
        data,
        lambda images, labels: -cross_entropy(copied(images), labels),
        optimiser,
        rounds=method.unlearn_rounds,
        batch=method.batch,
        progress=silent,
        after_round=forgotten,
    )
    return copied


def correlation(model: nn.Module, clean: CleanSet, attack: Attack) -> dict[str, float]:
    """Claim (a): Spearman's and Pearson's correlation of both NWCs, and the overlap of the tops."""
    method = Tsbd()
    names = [
        hidden.layer.weight_name for hidden in hidden_layers(model, flow_on(model, clean.search))
    ]
    ours, theirs = (
        torch.cat([change.sum(1) for change in changes(model, other, names).values()])
        for other in (
            method.unlearn(model, clean, silent),
            poison_unlearnt(model, clean, attack, method),
        )
    )
    top = max(1, round(TOP * len(ours)))
    both = set(ours.topk(top).indices.tolist()) & set(theirs.topk(top).indices.tolist())
    return {
        "spearman": float(stats.spearmanr(ours, theirs).statistic),
        "pearson": float(stats.pearsonr(ours, theirs).statistic),
        "top_shared": len(both) / top,
        "by_chance": top / len(ours),
        "neurons": len(ours),
    }


def activeness(
    model: nn.Module, clean: CleanSet, attack: Attack, test: Labelled
) -> list[dict[str, Any]]:
    """Claim (b): ACC and ASR after fine-tuning from the same reset weights, by penalty."""
    method = Tsbd()
    names = [
        hidden.layer.weight_name for hidden in hidden_layers(model, flow_on(model, clean.search))
    ]
    moved = changes(model, method.unlearn(model, clean, silent), names)
    return [
        tuned_twice(model, planned(moved, neurons=share, weights=WEIGHTS), clean, attack, test)
        | {"neurons": share}
        for share in NEURONS
    ]


def tuned_twice(
    model: nn.Module, masks: dict[str, Tensor], clean: CleanSet, attack: Attack, test: Labelled
) -> dict[str, Any]:
    """Reset the masked weights and fine-tune in both ways."""
    method, start = Tsbd(), copy.deepcopy(model)
    reset(start, masks)
    found: dict[str, Any] = {"reset": both(start.eval(), attack, test)}
    for name, share in (("plain", 0.0), ("active", method.alpha)):
        tuned = copy.deepcopy(start).train()
        optimiser = torch.optim.SGD(tuned.parameters(), lr=method.rate, momentum=0.9)
        objective = partial(_loss, tuned, share, method.radius)
        fit(
            tuned,
            clean.search,
            objective,
            optimiser,
            rounds=method.rounds,
            batch=method.batch,
            progress=silent,
        )
        found[name] = both(tuned.eval(), attack, test)
    return found


def _loss(model: nn.Module, share: float, radius: float, images: Tensor, labels: Tensor) -> Tensor:
    if not share:
        return cross_entropy(model(images), labels)
    return uphill(model, images, labels, partial(each, radius=radius), share=share)


def bound(
    model: nn.Module, clean: CleanSet, attack: Attack, test: Labelled, seed: int
) -> dict[str, Any]:
    """Claim (c): shared adversarial risk beside ASR, by the treatment of the model."""
    frozen = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    # A finer search than the defense's own, since it is done only once.
    ball = replace(Sau().ball, steps=20, step=0.25)
    data = few(clean.calibration)
    children: dict[str, nn.Module] = {"as it is": frozen}
    for name in ("fine_tune", "sau"):
        try:
            children[name] = DEFENSES.get(name)()(model, clean, seed=seed).requires_grad_(
                requires_grad=False
            )
        except MethodFailed:
            continue
    inside = within(attack, data)
    return {
        name: both(child, attack, test)
        | {"risk": risk(child, frozen, data, ball), "within": inside}
        for name, child in children.items()
    }


def within(attack: Attack, data: Labelled) -> float:
    """Share (0..1) of the attack's victims in `data` whose stamped image stays in SAU's ball."""
    victims = data.pick(attack.victims(data.labels))
    change = (attack.stamp(victims.images).float() - victims.images.float()).flatten(1).abs().amax(
        1
    ) / 255
    return float((change <= Sau().ball.rho).double().mean())


def few(data: Labelled) -> Labelled:
    return data.pick(torch.arange(min(RISK_IMAGES, len(data))))


def asked_of(options: argparse.Namespace) -> list[ZooModel]:
    """The models that the options name, before any is drawn."""
    found = [
        model
        for model in zoo.load(options.zoo)
        if model.truth["backdoored"] and model.truth["works"] and options.only in model.name
    ]
    if not options.within:
        return found
    return [
        model
        for model in found
        if (attack := model.attack()) is not None
        and within(attack, few(population.read_cleanset(model.cleanset).calibration)) == 1
    ]


def both(model: nn.Module, attack: Attack, test: Labelled) -> dict[str, float]:
    asr, _, _ = make.measure(model, attack, test)
    return {"acc": accuracy(model, test), "asr": asr}


def looked_at(model: ZooModel, data_dir: Path | None, seed: int) -> dict[str, Any]:
    """All claims on one model; a step that fails is reported and its claim left out."""
    source = json.loads((model.folder.parent / "zoo.json").read_text())["spec"]
    data = sets.load(spec.parse(source).sets[str(model.truth["data"])], data_dir)
    curated = population.read_cleanset(model.cleanset)
    clean = fraction_of(curated, round(FRACTION * len(data.train)), seed).visible()
    attack, network = model.attack(), guard.load_model(model.folder)
    assert attack is not None
    row: dict[str, Any] = {"model": model.name, "attack": model.truth["attack"], "seed": seed}
    for name, ask in (
        ("correlation", partial(correlation, network, clean, attack)),
        ("activeness", partial(activeness, network, clean, attack, data.test)),
        ("bound", partial(bound, network, clean, attack, data.test, seed)),
    ):
        try:
            with seeded(seed):
                row[name] = ask()
        except MethodFailed as error:
            row[name + "_failed"] = error.sentence
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument(
        "--within", action="store_true", help="only models whose trigger stays inside SAU's ball"
    )
    parser.add_argument(
        "--sample", type=int, help="take this many of the models, drawn by a fixed seed"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--name", default="claims")
    parser.add_argument("--note", default="", help="what a reader of the record must know")
    options = parser.parse_args()
    models = drawn(asked_of(options), options.sample)
    rows = []
    with multiprocessing.get_context("spawn").Pool(
        options.jobs, one_thread, (options.jobs,)
    ) as pool:
        for row in pool.imap(
            _asked, [(model, options.data_dir, seed) for model in models for seed in options.seeds]
        ):
            rows.append(row)
            print(json.dumps(row), flush=True)
    result = {
        "zoo": options.zoo.resolve().name,
        "only": options.only,
        "within": options.within,
        "sample": options.sample,
        "clean_fraction": FRACTION,
        "neurons": NEURONS,
        "weights": WEIGHTS,
        "top": TOP,
        "note": options.note,
        "summary": summary(rows),
        "rows": rows,
    }
    print(
        record.write(options.name, result, f"# Two papers' claims\n\n{__doc__}\n{page(result)}\n")
    )


def _asked(task: tuple[ZooModel, Path | None, int]) -> dict[str, Any]:
    return looked_at(*task)


if __name__ == "__main__":
    main()
