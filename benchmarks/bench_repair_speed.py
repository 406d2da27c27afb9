"""What repairs cost, as ratios in one run: SAU beside a straightforward loop, and each defense's memory.

    python -m benchmarks.bench_repair_speed [--images N] [--rounds N]

The straightforward SAU is the paper's algorithm without the savings of ours: both networks look at the clean pictures
in every inner step, all pictures take part in every step, and gradients of all weights are computed where only that of
the perturbation is used. Both get the same pictures, steps and batches on the same network (PreAct-ResNet18 by its
depth, a quarter of its width), and processor time is measured.

Memory is by how much a process grew at most over what it had with network and pictures loaded; each
defense, at its defaults but with one pass, in a process of its own, beside plain fine-tuning at the same batch.
"""

import argparse
import copy
import json
import multiprocessing
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from benchmarks import record
from benchmarks.memory import Peak
from benchmarks.speed_words import repairs
from guard.core.contracts import silent
from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.defenses import DEFENSES
from guard.defenses.sau import Sau
from guard.ml import architectures
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.seeds import seeded
from guard.ml.shared_adversarial import jensen_shannon, project, suspects, unlearning
from guard.ml.train import fit

CLASSES, SIDE, BATCH = 10, 32, 64
#: One pass of each, at the same batch; what is not named here has neither.
PASSES: dict[str, dict[str, Any]] = {
    "fine_tune": {"rounds": 1, "tries": 1, "max_drop": 1.0}, "sau": {"rounds": 1, "max_drop": 1.0},
    "neural_polarizer": {"rounds": 1, "max_drop": 1.0}, "i_bau": {"rounds": 1, "batch": BATCH, "max_drop": 1.0},
    "ft_sam": {"rounds": 1, "max_drop": 1.0}, "fst": {"rounds": 1, "batch": BATCH, "max_drop": 1.0},
    "tsbd": {"rounds": 1, "ratios": 1, "unlearn_rate": 1.0, "max_drop": 1.0},
    "shared_distillation": {"looks": 1, "search_steps": 2, "steps": 4, "settle_steps": 1, "batch": BATCH,
                            "max_drop": 1.0},
}


def network() -> nn.Module:
    """The network that all are measured on, with fresh weights."""
    manifest = Manifest(architecture="preact_resnet18", num_classes=CLASSES, input_size=(3, SIDE, SIDE),
                        mean=(0.5,) * 3, std=(0.25,) * 3, model_args={"width": 16})
    with seeded(0):
        return architectures.wrap(manifest, architectures.build(manifest)).eval()


def pictures(count: int) -> CleanSet:
    """Noise: time and memory do not depend on what is in the pictures."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    data = Labelled(images, torch.arange(count) % CLASSES)
    return CleanSet("noise", "0" * 64, CLASSES, data, data.pick(torch.arange(min(count, 10 * CLASSES))))


def straightforward(sau: Sau, model: nn.Module, reference: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """SAU's loss on one batch, as its formulas say it."""
    shift = project(torch.full_like(images, sau.rho), sau.norm, sau.rho)
    for _ in range(sau.steps):
        eps = shift.clone().requires_grad_()
        mine, theirs = model(images).argmax(1), reference(images).argmax(1)
        log_p, log_q = log_softmax(model(images + eps), 1), log_softmax(reference(images + eps), 1)
        moved, moved_ref = log_p.argmax(1) != mine, log_q.argmax(1) != theirs
        shared = moved & moved_ref & (log_p.argmax(1) == log_q.argmax(1))
        fool = (nll_loss(log_p, labels, reduction="none") * ~moved
                + nll_loss(log_q, labels, reduction="none") * ~moved_ref).sum() / -2
        agree = (jensen_shannon(log_p, log_q) * ~shared).sum()
        ((sau.lambda_adversarial * fool + sau.lambda_share * agree) / len(images)).backward()
        assert eps.grad is not None
        shift = project(eps.detach() - sau.step * sau.rho * eps.grad.sign(), sau.norm, sau.rho)
    logits = model(images)
    wrong, believed = reference(images + shift).argmax(1), reference(images).argmax(1)
    risk = (unlearning(model(images + shift), wrong) * suspects(wrong, labels, believed)).sum() / len(labels)
    return sau.lambda_clean * cross_entropy(logits, labels) + sau.lambda_unlearn * risk


def sau_seconds(clean: CleanSet, rounds: int, *, ours: bool) -> float:
    """Processor seconds of `rounds` passes."""
    model, sau = network().requires_grad_(), Sau()
    reference = copy.deepcopy(model).requires_grad_(not ours)
    loss = partial(sau.loss if ours else partial(straightforward, sau), model, reference)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-5, amsgrad=True)
    started = time.process_time()
    fit(model, clean.search, loss, optimiser, rounds=rounds, batch=BATCH, progress=silent)
    return time.process_time() - started


def memory(name: str, images: int) -> float | None:
    """MiB by which the process grew; None where the defense gave up."""
    torch.set_num_threads(1)
    model, clean = network(), pictures(images)
    with torch.no_grad():
        model(clean.search.pick(torch.arange(2)).floats())
    with Peak() as peak:
        try:
            DEFENSES.get(name)(**PASSES[name])(model, clean, seed=0)
        except MethodFailed as error:
            if error.code not in ("accuracy_collapsed", "not_unlearnt"):  # these come after the work was done
                return None
    return peak.mib


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--name", default="repair-speed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clean = pictures(options.images)
    sau_seconds(pictures(BATCH), 1, ours=True)  # warm
    times = {name: sau_seconds(clean, options.rounds, ours=ours) for name, ours in (("ours", True), ("plain", False))}
    context, grown = multiprocessing.get_context("spawn"), {}
    for name in PASSES:
        with context.Pool(1) as pool:
            grown[name] = pool.apply(memory, (name, options.images))
        print(json.dumps({name: grown[name]}), flush=True)
    base = grown["fine_tune"]
    result = {"images": options.images, "rounds": options.rounds, "batch": BATCH, "sau_seconds": times,
              "sau_ratio": times["ours"] / times["plain"], "peak_mib": grown,
              "peak_over_fine_tuning": {name: None if value is None or not base else value / base
                                        for name, value in grown.items()}}
    print(record.write(options.name, result, f"# What repairs cost\n\n{__doc__}\n{repairs(result)}\n"))


if __name__ == "__main__":
    main()
