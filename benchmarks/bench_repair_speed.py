"""What repairs cost, as ratios in one run: ours beside straightforward loops, and each defense's memory.

    python -m benchmarks.bench_repair_speed [--images N] [--rounds N] [--memory-images N] [--device cuda] [--width N]

All on the same network (PreAct-ResNet18 by its depth, a quarter of its width unless `--width` is told) with the same
pictures, batches and steps, by turns; processor time is measured, on a GPU wall time, and there no memory. The
straightforward loops:
    - SAU: the paper's algorithm without the savings of ours: both networks look at the clean pictures in every inner
      step, all pictures take part in every step, gradients of all weights are computed where only that of the
      perturbation is used, and weights lie as torch lays them
    - Neural Polarizer: a pass of the whole network for each answer, where ours runs the half before the polarizer once
      for each change of a batch; both steps of the search are made
    - TSBD's last stage: as in the authors' code two passes of a copy, and a third of the model for its statistics

Memory is by how much a process grew at most over what it had with network and pictures loaded; each defense of the
shelf, at its defaults but with few steps of the same batch (a search sees as many pictures, all classes together), in a
process of its own, beside plain steps of fine-tuning (median of three processes). The network is fresh and pictures are
noise: hardly any leaves SAU's search early, and gates that would end a defense before its work are opened.
"""

import argparse
import copy
import json
import multiprocessing
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from benchmarks import record
from benchmarks.memory import Peak
from benchmarks.speed_words import repairs
from guard.core.errors import MethodFailed
from guard.core.manifest import Manifest
from guard.defenses import DEFENSES
from guard.defenses._polarizing import halved, inserted, place_for
from guard.defenses.neural_polarizer import NeuralPolarizer
from guard.defenses.sau import Sau
from guard.defenses.tsbd import Tsbd, each
from guard.ml import architectures
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of, predict
from guard.ml.polarizer import polarizer_of
from guard.ml.seeds import seeded
from guard.ml.shared_adversarial import jensen_shannon, project, suspects, unlearning
from guard.ml.sharpness import uphill
from guard.ml.suitability import channels_last

CLASSES, SIDE, BATCH, WIDTH = 10, 32, 64, 16
PLAIN = "plain fine-tuning"  # in the record, beside the names of the shelf
SAU_AIM, MEMORY_AIM = 0.5, 2.2  # of the straightforward loop's time; of plain fine-tuning's memory
BASES = 3  # processes whose median is that of plain fine-tuning: every ratio depends on it
SEARCH = 20  # steps for patches: two windows, before which none is found
MEMORY_AIMS = {"i_bau": 3.0}  # other than that of the rest
_ONE: dict[str, Any] = {"fold": 1e9, "far": 0.0, "max_drop": 1.0}  # the class of the smallest patch is accused
_DISTILLED = {"looks": 1, "search_steps": SEARCH, "search_batch": BATCH // CLASSES, "sizes": 2, "size_steps": 2,
              "windows": 1, "steps": 2, "batch": BATCH, "settle_steps": 1, **_ONE}
#: Few steps of each, at the same batch.
PASSES: dict[str, dict[str, Any]] = {
    "anp": {"rounds": 1, "rate": 100.0, "max_drop": 1.0}, "clp": {"u": 0.0, "most_u": 0.5, "max_drop": 1.0},
    "distilled_polarizer": _DISTILLED, "fine_pruning": {"prune_drop": 1.0, "steps": 4, "rounds": 1, "max_drop": 1.0},
    "fine_tune": {"rounds": 1, "tries": 1, "max_drop": 1.0}, "fst": {"rounds": 1, "batch": BATCH, "max_drop": 1.0},
    "ft_sam": {"rounds": 1, "max_drop": 1.0}, "i_bau": {"rounds": 1, "batch": BATCH, "max_drop": 1.0},
    "mesa_removal": {"looks": 1, "search_steps": SEARCH, "search_batch": BATCH // CLASSES, "sizes": 1, "learn_steps": 2,
                     "rounds": 1, "tries": 1, "max_loss": 1.0, **_ONE},
    "nad": {"rounds": 1, "tries": 1, "max_loss": 1.0, "max_drop": 1.0},
    "neural_polarizer": {"rounds": 1, "max_drop": 1.0},
    "patch_unlearning": {"looks": 1, "steps": SEARCH, "batch": BATCH // CLASSES, "sizes": 2, "size_steps": 2,
                         "rounds": 1, **_ONE},
    "sau": {"rounds": 1, "max_drop": 1.0}, "shared_distillation": _DISTILLED,
    "tsbd": {"rounds": 1, "ratios": 1, "unlearn_rate": 1.0, "unlearn_rounds": 2, "max_drop": 1.0},
}

#: Of images, and of labels or of positions in the data; one term, or several that are added up.
Loss = Callable[[Tensor, Tensor], Tensor | Iterable[Tensor]]
Step = Callable[[Tensor, Tensor], None]


def network(width: int = WIDTH, device: str = "cpu") -> nn.Module:
    """The network that all are measured on, with fresh weights; 64 channels wide is full width."""
    manifest = Manifest(architecture="preact_resnet18", num_classes=CLASSES, input_size=(3, SIDE, SIDE),
                        mean=(0.5,) * 3, std=(0.25,) * 3, model_args={"width": width})
    with seeded(0):
        return architectures.wrap(manifest, architectures.build(manifest)).eval().to(device)


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


def twice(tsbd: Tsbd, model: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    """A step of TSBD's last stage on one batch, as the authors' code takes it."""
    copied = copy.deepcopy(model)
    weights = dict(copied.named_parameters())

    def slopes() -> dict[str, Tensor]:
        return dict(zip(weights, torch.autograd.grad(cross_entropy(copied(images), labels), list(weights.values())),
                        strict=True))

    here = slopes()
    with torch.no_grad():
        for name, shift in each(weights, here, radius=tsbd.radius).items():
            weights[name].add_(shift)
    there = slopes()
    for name, weight in model.named_parameters():
        weight.grad = (1 - tsbd.alpha) * here[name] + tsbd.alpha * there[name]
    optimiser.step()
    with torch.no_grad():
        model(images)


def descending(loss: Loss, optimiser: torch.optim.Optimizer) -> Step:
    """A step down a loss."""
    def step(images: Tensor, truth: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        terms = loss(images, truth)
        for term in (terms,) if isinstance(terms, Tensor) else terms:
            term.backward()
        optimiser.step()

    return step


def by_turns(steps: Mapping[str, Step], data: Labelled, rounds: int, device: str = "cpu") -> dict[str, float]:
    """Seconds of `rounds` passes of each, after one step that is not counted; batch by batch in turn.

    Of the processor; on a GPU by the clock, until its work is done.
    """
    spent, now = dict.fromkeys(steps, 0.0), time.process_time if device == "cpu" else _when_done
    for turn in range(rounds + 1):
        for images, labels in data.batches(BATCH, device=device):
            for name, step in steps.items():
                started = now()
                step(images, labels)
                spent[name] += (now() - started) * bool(turn)
            if not turn:
                break
    return spent


def _when_done() -> float:
    torch.cuda.synchronize()
    return time.perf_counter()


def sau_ways(data: Labelled, build: Callable[[], nn.Module] = network) -> dict[str, Step]:
    """Ours and the straightforward one; for positions in `data`."""
    sau, steps, known = Sau(), {}, data.labels.to(device_of(build()))
    for name in ("ours", "plain"):
        model = build().requires_grad_()
        if name == "ours":
            channels_last(model)
        reference = copy.deepcopy(model).requires_grad_(name == "plain")
        believed = predict(reference, data).to(known)  # once for all passes, as in a repair
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-5, amsgrad=True)

        def loss(images: Tensor, at: Tensor, name: str = name, model: nn.Module = model,
                 reference: nn.Module = reference, believed: Tensor = believed) -> Iterable[Tensor]:
            if name == "plain":
                return [straightforward(sau, model, reference, images, known[at])]
            return sau.terms(model, reference, images, known[at], believed[at])

        steps[name] = descending(loss, optimiser)
    return steps


def npd_ways(clean: CleanSet, build: Callable[[], nn.Module] = network, *, conditional: bool) -> dict[str, Step]:
    """With and without reuse of what the frozen half gives."""
    steps = {}
    for name in ("ours", "plain"):
        model = build().requires_grad_(requires_grad=False)
        polarized = inserted(model, place_for(model, clean, conditional=conditional), CLASSES)
        halves = halved(polarized, clean)
        halves.whole = halves.whole or name == "plain"
        loss = partial(NeuralPolarizer(conditional=conditional, enough=1.0).loss, halves)
        weights = polarizer_of(polarized).requires_grad_().parameters()
        steps[name] = descending(loss, torch.optim.SGD(weights, lr=1e-5))
    return steps


def tsbd_ways(build: Callable[[], nn.Module] = network) -> dict[str, Step]:
    """Ours and the authors'."""
    tsbd, mine, theirs = Tsbd(), build().requires_grad_().train(), build().requires_grad_().train()
    ascent = partial(each, radius=tsbd.radius)
    own, other = (torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9) for model in (mine, theirs))
    return {"ours": descending(lambda images, labels: uphill(mine, images, labels, ascent, share=tsbd.alpha), own),
            "plain": partial(twice, tsbd, theirs, other)}


def memory(name: str, images: int) -> float | None:
    """MiB by which the process grew; None where the defense gave up."""
    torch.set_num_threads(1)
    model, clean = network(), pictures(images)
    with torch.no_grad():
        model(clean.search.pick(torch.arange(2)).floats())
    with Peak() as peak:
        if name == PLAIN:
            fine_tuned(model, clean.search)
        else:
            try:
                DEFENSES.get(name)(**PASSES[name])(model, clean, seed=0)
            except MethodFailed as error:
                if error.code not in ("accuracy_collapsed", "not_unlearnt"):  # these come after the work was done
                    return None
    return peak.mib


def apart(name: str, images: int) -> float | None:
    """`memory` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(memory, (name, images))


def fine_tuned(model: nn.Module, data: Labelled) -> None:
    """Plain steps, in place."""
    model.requires_grad_().train()
    step = descending(lambda images, labels: cross_entropy(model(images), labels),
                      torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9))
    by_turns({PLAIN: step}, data, 1)


def aims(sau_ratio: float, over: Mapping[str, float | None]) -> list[dict[str, Any]]:
    """Each aim of issue 4 with what was measured; unmeasured is not reached."""
    rows: list[dict[str, Any]] = [{"aim": "SAU's pass over a straightforward one", "limit": SAU_AIM,
                                   "value": sau_ratio, "reached": sau_ratio <= SAU_AIM}]
    for name, value in over.items():
        limit = MEMORY_AIMS.get(name, MEMORY_AIM)
        rows.append({"aim": f"memory of {name} over plain fine-tuning", "limit": limit, "value": value,
                     "reached": value is not None and value <= limit})
    return rows


def words(result: dict[str, Any]) -> str:
    """The record's page: ratios, and whether each aim is reached."""
    lines = [f"| {row['aim']} | {'–' if row['value'] is None else format(row['value'], '.2f')} | {row['limit']:g} | "
             f"{'yes' if row['reached'] else 'no'} |" for row in result["aims"]]
    return f"{repairs(result)}\n\n| aim | measured | at most | reached |\n|---|---|---|---|\n" + "\n".join(lines)


def timed(images: int, rounds: int, width: int, device: str) -> dict[str, dict[str, float]]:
    """Seconds of each way of each defense."""
    clean, build = pictures(images), partial(network, width, device)
    numbered = Labelled(clean.search.images, torch.arange(len(clean.search)))
    seconds = {"sau": by_turns(sau_ways(clean.search, build), numbered, rounds, device)}
    for name, ways in (("neural_polarizer", npd_ways(clean, build, conditional=False)),
                       ("conditional_polarizer", npd_ways(clean, build, conditional=True)), ("tsbd", tsbd_ways(build))):
        seconds[name] = by_turns(ways, clean.search, rounds, device)
        print(json.dumps({name: seconds[name]}), flush=True)
    return seconds


def held(images: int) -> tuple[float, dict[str, float | None]]:
    """MiB of plain fine-tuning, and of each defense."""
    grown = {}
    for name in DEFENSES.names():
        grown[name] = apart(name, images)
        print(json.dumps({name: grown[name]}), flush=True)
    return median(apart(PLAIN, images) or 0.0 for _ in range(BASES)), grown


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=2 * BATCH, help="pictures of a timed pass")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--memory-images", type=int, default=2 * BATCH)
    parser.add_argument("--width", type=int, default=WIDTH, help="channels of the timed network's first layers")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="repair-speed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds = timed(options.images, options.rounds, options.width, options.device)
    base, grown = held(options.memory_images) if options.device == "cpu" else (0.0, {})
    ratios = {name: spent["ours"] / spent["plain"] for name, spent in seconds.items()}
    over = {name: None if value is None or not base else value / base for name, value in grown.items()}
    result = {"images": options.images, "rounds": options.rounds, "batch": BATCH, "width": options.width,
              "device": options.device, "seconds": seconds, "ratios": ratios, "sau_ratio": ratios["sau"],
              "peak_over_fine_tuning": over, "aims": aims(ratios["sau"], over)}
    if options.device == "cpu":
        result |= {"memory_images": options.memory_images, "peak_mib": {PLAIN: base, **grown}}
    else:
        result["named"] = torch.cuda.get_device_name()
    print(record.write(options.name, result, f"# What repairs cost\n\n{__doc__}\n{words(result)}\n"))


if __name__ == "__main__":
    main()
