"""The guard's repairs and straightforward ones, timed in turns on the same network.

The straightforward loops are described in `benchmarks.bench_repair_speed`.
"""

import copy
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from guard.core.manifest import Manifest
from guard.defenses._polarizing import halved, inserted, place_for
from guard.defenses.neural_polarizer import NeuralPolarizer
from guard.defenses.sau import Sau
from guard.defenses.tsbd import Tsbd, each
from guard.ml.cleanset import CleanSet, Labelled
from guard.ml.measure import device_of, predict
from guard.ml.networks import architectures
from guard.ml.networks.polarizer import polarizer_of
from guard.ml.seeds import seeded
from guard.ml.suitability import channels_last
from guard.ml.training.shared_adversarial import jensen_shannon, project, suspects, unlearning
from guard.ml.training.sharpness import uphill

CLASSES, SIDE, BATCH, WIDTH = 10, 32, 64, 16

#: A function of images, and of labels or of positions in the data; one term, or several to add up.
Loss = Callable[[Tensor, Tensor], Tensor | Iterable[Tensor]]
Step = Callable[[Tensor, Tensor], None]


def network(width: int = WIDTH, device: str = "cpu") -> nn.Module:
    """The network of all measurements, with fresh weights; 64 channels is its full width."""
    manifest = Manifest(
        architecture="preact_resnet18",
        num_classes=CLASSES,
        input_size=(3, SIDE, SIDE),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        model_args={"width": width},
    )
    with seeded(0):
        return architectures.wrap(manifest, architectures.build(manifest)).eval().to(device)


def straightforward(
    sau: Sau, model: nn.Module, reference: nn.Module, images: Tensor, labels: Tensor
) -> Tensor:
    """SAU's loss on one batch, exactly by its formulas."""
    shift = project(torch.full_like(images, sau.rho), sau.norm, sau.rho)
    for _ in range(sau.steps):
        eps = shift.clone().requires_grad_()
        mine, theirs = model(images).argmax(1), reference(images).argmax(1)
        log_p, log_q = log_softmax(model(images + eps), 1), log_softmax(reference(images + eps), 1)
        moved, moved_ref = log_p.argmax(1) != mine, log_q.argmax(1) != theirs
        shared = moved & moved_ref & (log_p.argmax(1) == log_q.argmax(1))
        fool = (
            nll_loss(log_p, labels, reduction="none") * ~moved
            + nll_loss(log_q, labels, reduction="none") * ~moved_ref
        ).sum() / -2
        agree = (jensen_shannon(log_p, log_q) * ~shared).sum()
        ((sau.lambda_adversarial * fool + sau.lambda_share * agree) / len(images)).backward()
        assert eps.grad is not None
        shift = project(eps.detach() - sau.step * sau.rho * eps.grad.sign(), sau.norm, sau.rho)
    logits = model(images)
    wrong, believed = reference(images + shift).argmax(1), reference(images).argmax(1)
    risk = (
        unlearning(model(images + shift), wrong) * suspects(wrong, labels, believed)
    ).sum() / len(labels)
    return sau.lambda_clean * cross_entropy(logits, labels) + sau.lambda_unlearn * risk


def twice(
    tsbd: Tsbd, model: nn.Module, optimiser: torch.optim.Optimizer, images: Tensor, labels: Tensor
) -> None:
    """A step of TSBD's last stage on one batch, as the authors' code takes it."""
    copied = copy.deepcopy(model)
    weights = dict(copied.named_parameters())

    def slopes() -> dict[str, Tensor]:
        return dict(
            zip(
                weights,
                torch.autograd.grad(cross_entropy(copied(images), labels), list(weights.values())),
                strict=True,
            )
        )

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


def by_turns(
    steps: Mapping[str, Step], data: Labelled, rounds: int, device: str = "cpu"
) -> dict[str, float]:
    """Seconds of `rounds` passes of each, batch by batch in turns, after one uncounted step.

    Seconds are processor time; on a GPU they are wall time until its work is done.
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
    """SAU in the guard and straightforwardly, for positions in `data`."""
    sau, steps, known = Sau(), {}, data.labels.to(device_of(build()))
    for name in ("ours", "plain"):
        model = build().requires_grad_()
        if name == "ours":
            channels_last(model)
        reference = copy.deepcopy(model).requires_grad_(name == "plain")
        believed = predict(reference, data).to(known)  # once for all passes, as in a repair
        optimiser = torch.optim.Adam(model.parameters(), lr=1e-5, amsgrad=True)

        def loss(
            images: Tensor,
            at: Tensor,
            name: str = name,
            model: nn.Module = model,
            reference: nn.Module = reference,
            believed: Tensor = believed,
        ) -> Iterable[Tensor]:
            if name == "plain":
                return [straightforward(sau, model, reference, images, known[at])]
            return sau.terms(model, reference, images, known[at], believed[at])

        steps[name] = descending(loss, optimiser)
    return steps


def npd_ways(
    clean: CleanSet, build: Callable[[], nn.Module] = network, *, conditional: bool
) -> dict[str, Step]:
    """Neural Polarizer with and without reuse of the frozen half's output."""
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
    """TSBD's last stage in the guard and in the authors' code."""
    tsbd, mine, theirs = Tsbd(), build().requires_grad_().train(), build().requires_grad_().train()
    ascent = partial(each, radius=tsbd.radius)
    own, other = (
        torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9) for model in (mine, theirs)
    )
    return {
        "ours": descending(
            lambda images, labels: uphill(mine, images, labels, ascent, share=tsbd.alpha), own
        ),
        "plain": partial(twice, tsbd, theirs, other),
    }
