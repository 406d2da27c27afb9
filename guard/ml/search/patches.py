"""Trigger inversion for patches, with all target classes in one optimisation.

After Neural Cleanse (Wang et al., S&P 2019), for every class t: the smallest ||m||_1 such that (1 -
m) x + m p goes to t for a share `goal` of the images x of other classes. Deviations, and why:

* All classes are optimised together, on the same images; the per-class state never leaves the
  device, and the host looks at it once a window.
* The norm is not a penalty with an adapted weight but a per-class *budget* onto which the mask is
  projected; the budget shrinks while the goal is reached and grows slowly while it is not. This
  finds the same norms, masks are exactly zero elsewhere, and the natural ASR of the other classes
  with as many pixels is the same optimisation with a fixed budget.
* The mask moves along its gradient with momentum, normalised per class: under an L1 projection
  Adam's equal steps for all pixels outweigh the few pixels that matter.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of
from guard.ml.precision import searching
from guard.ml.triggers import PatchTrigger

# The share of the image covered at first. Under a weak mask a backdoor that needs its whole patch
# has no gradient to follow.
FIRST_BUDGET = 0.5
SHRINK = (0.5, 0.9)  # factor of the budget after a success, at the first and at the last window
GROW = 1.1  # factor after a failure
MASK_STEP = 0.3  # in units of sqrt(budget), the L2 norm of a full binary mask of that size
MOMENTUM = 0.8
PATTERN_RATE, BETAS = 0.1, (0.5, 0.9)  # Adam for the pattern, as in the paper's code
LEAST_BUDGET = 0.5  # pixels
PASS_IMAGES = {
    "cpu": 128,
    "cuda": 1024,
}  # per forward pass: what fits caches, or memory for 32 x 32 images


@dataclass(frozen=True, kw_only=True)
class Patches:
    """One patch for each of K target classes, on the model's device.

    `targets` int64 K, `masks` K,1,H,W and `patterns` K,C,H,W in [0, 1]. `norms` float64 K on the
    CPU: the L1 norm in pixels of the smallest mask that reached the goal, H*W if none did
    (censored, `reached` False). `balance` float64 K on the CPU, in pixels: the geometric mean of
    the budgets in the search's second half, which shrink after a success and grow after a failure.
    It varies less from seed to seed than the smallest norm, which is the best of many tries.
    """

    targets: Tensor
    masks: Tensor
    patterns: Tensor
    norms: Tensor
    balance: Tensor
    reached: Tensor

    def trigger(self, row: int) -> PatchTrigger:
        """The patch of the class in this row, on the CPU."""
        return PatchTrigger(self.masks[row].cpu(), self.patterns[row].cpu())

    def pick(self, rows: list[int]) -> "Patches":
        """These rows, in this order; a row may come more than once, and there may be none."""
        index = torch.tensor(rows, dtype=torch.int64)
        here = index.to(self.masks.device)
        return Patches(
            targets=self.targets[here],
            masks=self.masks[here],
            patterns=self.patterns[here],
            norms=self.norms[index],
            balance=self.balance[index],
            reached=self.reached[index],
        )

    def or_smaller(self, other: "Patches") -> "Patches":
        """The smaller patch of each row in two searches for the same targets.

        Of equal patches this search's counts; `balance` is always this search's.
        """
        mine = self.norms <= other.norms
        here = _wide(mine.to(self.masks.device))
        return Patches(
            targets=self.targets,
            masks=torch.where(here, self.masks, other.masks),
            patterns=torch.where(here, self.patterns, other.patterns),
            norms=torch.minimum(self.norms, other.norms),
            balance=self.balance,
            reached=self.reached | other.reached,
        )


@dataclass(frozen=True, kw_only=True)
class PatchEffort:
    """The length of a search: `steps` of `batch` images a class; budgets move every `window` steps.

    `goal` is the share (0..1) of images that must go to the class.
    """

    steps: int
    batch: int
    window: int = 10
    goal: float = 0.95


Watch = Callable[[float], None]


def smallest_patches(
    model: nn.Module, data: Labelled, targets: Tensor, effort: PatchEffort, watch: Watch
) -> Patches:
    """Search for the smallest patch of each target class, with equal effort for each.

    Draws from torch's global CPU generator.

    Args:
        model: in eval mode, its parameters without gradients.
        data: images uint8 N,C,H,W of at least two classes.
        targets: classes, int64 K.
        effort: the length of the search.
        watch: called with the share done, once a window; may raise.

    Raises:
        MethodFailed: a loss is not finite.
    """
    run = _Run(model, data, targets, effort)
    count, pixels = len(targets), run.height * run.width
    mask = FIRST_BUDGET + 0.02 * torch.rand(count, 1, run.height, run.width)
    pattern = torch.rand(count, run.channels, run.height, run.width)
    run.start(mask, pattern, torch.full((count,), FIRST_BUDGET * pixels))
    best = torch.full((count,), float(pixels), device=run.device)
    masks, patterns = run.mask, run.pattern
    reached, logs = torch.zeros(count, dtype=torch.bool, device=run.device), []
    for share, mask, pattern, rates in run.windows():
        good = rates >= effort.goal
        norm = mask.flatten(1).sum(1)
        logs += [run.budget.log()] if share > 0.5 else []
        better = good & (norm < best)
        keep = ~(better | ~reached)  # a class without a success keeps its latest try
        best, reached = torch.where(better, norm, best), reached | good
        masks = torch.where(_wide(keep), masks, mask)
        patterns = torch.where(_wide(keep), patterns, pattern)
        shrunk = torch.minimum(run.budget, norm) * (SHRINK[0] + (SHRINK[1] - SHRINK[0]) * share)
        run.budget = torch.where(good, shrunk, run.budget * GROW).clamp(LEAST_BUDGET, pixels)
        watch(share)
    return Patches(
        targets=run.targets,
        masks=masks,
        patterns=patterns,
        norms=best.double().cpu(),
        balance=torch.stack(logs or [run.budget.log()]).mean(0).exp().double().cpu(),
        reached=reached.cpu(),
    )


def patches_within(
    model: nn.Module,
    data: Labelled,
    start: Patches,
    budget: float | Tensor,
    effort: PatchEffort,
    watch: Watch,
) -> Patches:
    """For each row the patch with ||m||_1 <= `budget` pixels that sends most images to its class.

    Norms of the result are those of the masks; `reached` is as in `start`. Draws and raises as
    `smallest_patches`.

    Args:
        model: in eval mode, its parameters without gradients.
        data: images uint8 N,C,H,W of at least two classes.
        start: the patches to start from; a class may be in several rows.
        budget: pixels; one for all rows, or float K.
        effort: the length of the search.
        watch: called with the share done, once a window; may raise.
    """
    run = _Run(model, data, start.targets, effort, cooling=True)
    run.start(
        start.masks,
        start.patterns,
        torch.as_tensor(budget, dtype=torch.float32).expand(len(start.targets)),
    )
    for share, _, _, _ in run.windows():
        watch(share)
    return replace(
        start, masks=run.mask, patterns=run.pattern, norms=run.mask.flatten(1).sum(1).double().cpu()
    )


def same_start(trigger: PatchTrigger, targets: list[int], device: torch.device) -> Patches:
    """One and the same patch for each of some target classes, from which `patches_within` starts.

    `reached` is False: nobody has asked whether it works.
    """
    count = len(targets)
    norms = torch.full((count,), trigger.norm, dtype=torch.float64)
    return Patches(
        targets=torch.tensor(targets, device=device),
        masks=trigger.mask.to(device).expand(count, -1, -1, -1),
        patterns=trigger.pattern.to(device).expand(count, -1, -1, -1),
        norms=norms,
        balance=norms,
        reached=torch.zeros(count, dtype=torch.bool),
    )


@dataclass(frozen=True, kw_only=True)
class PatchKit:
    """The interface that `guard.ml.search.natural_asr` needs, for patches; budgets are pixels."""

    model: nn.Module
    search: Labelled
    calibration: Labelled
    smallest: Patches
    effort: PatchEffort

    @property
    def largest(self) -> float:
        """The number of pixels of an image."""
        return float(self.smallest.masks[0].numel())

    def within(self, start: Patches, budget: float | Tensor, watch: Watch) -> Patches:
        """Call `patches_within` on the search part; `budget` is one for all rows, or float K."""
        return patches_within(self.model, self.search, start, budget, self.effort, watch)

    def successes(self, found: Patches, data: Labelled) -> tuple[Tensor, Tensor]:
        """Call the function `successes`; int64 K, K."""
        return successes(self.model, data, found)


@torch.no_grad()
def successes(model: nn.Module, data: Labelled, patches: Patches) -> tuple[Tensor, Tensor]:
    """Hits and trials of each patch on the images of other classes, int64 K, K on the CPU.

    A hit is an image that the patch sends to its class.
    """
    device, most = patches.masks.device, _pass_images(patches.masks.device)
    hits, trials = [], []
    for row, target in enumerate(patches.targets.tolist()):
        others = data.pick(data.labels != target)
        mask, pattern = patches.masks[row], patches.patterns[row]
        found = torch.zeros((), dtype=torch.int64, device=device)
        for images, _ in others.batches(most, device=device):
            found += (model(_stamp(images, mask, pattern)).argmax(1) == target).sum()
        hits.append(found)
        trials.append(len(others))
    return torch.stack(hits).cpu(), torch.tensor(trials)


def project(mask: Tensor, budget: Tensor) -> Tensor:
    """The nearest masks K,1,H,W in [0, 1] with L1 norms of at most `budget` (float K, pixels)."""
    flat = mask.flatten(1)
    low, high = torch.zeros_like(budget), flat.amax(1).clamp(min=0)
    for _ in range(30):  # halving the threshold's interval; 2^-30 is beneath float32's resolution
        middle = (low + high) / 2
        over = (flat - middle[:, None]).clamp(0, 1).sum(1) > budget
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    fits = flat.clamp(0, 1).sum(1) <= budget
    return (flat - torch.where(fits, 0.0, high)[:, None]).clamp(0, 1).view_as(mask)


class _Run:
    """The state of one optimisation, everything with a leading class dimension."""

    def __init__(
        self,
        model: nn.Module,
        data: Labelled,
        targets: Tensor,
        effort: PatchEffort,
        *,
        cooling: bool = False,
    ) -> None:
        self.model, self.effort, self.cooling = model, effort, cooling
        self.device = device_of(model)
        self.targets = targets.to(self.device)
        self.images, self.labels = data.images.to(self.device), data.labels.to(self.device)
        self.channels, self.height, self.width = (int(side) for side in data.images.shape[1:])
        # All draws at once, on the CPU: the device never waits for the host inside a window.
        wanted = effort.steps * effort.batch
        passes = -(-wanted // len(data))
        self.order = torch.cat([torch.randperm(len(data)) for _ in range(passes)])[:wanted].to(
            self.device
        )

    def start(self, mask: Tensor, pattern: Tensor, budget: Tensor) -> None:
        self.budget = budget.to(self.device)
        self.mask = project(mask.to(self.device), self.budget)
        self.pattern = pattern.to(self.device).clone()
        self.velocity = torch.zeros_like(self.mask)
        self.first, self.second = torch.zeros_like(self.pattern), torch.zeros_like(self.pattern)

    def windows(self) -> Iterator[tuple[float, Tensor, Tensor, Tensor]]:
        """Optimise, and yield after each window.

        Yields the share done, the mask and the pattern before their last update, and the ASR in the
        window.
        """
        effort = self.effort
        hits = torch.zeros(len(self.targets), device=self.device)
        trials, total = torch.zeros_like(hits), torch.zeros_like(hits)
        for step in range(effort.steps):
            index = self.order[step * effort.batch : (step + 1) * effort.batch]
            losses, good, valid, mask_gradient, pattern_gradient = self._look(index)
            hits, trials, total = hits + good, trials + valid, total + losses
            before = self.mask, self.pattern
            if (step + 1) % effort.window == 0:
                if not bool(torch.isfinite(total).all()):
                    raise MethodFailed(
                        "The model gives logits that are not finite; no patch can be searched for.",
                        code="non_finite",
                    )
                yield (step + 1) / effort.steps, *before, hits / trials.clamp(min=1)
                hits, trials = torch.zeros_like(hits), torch.zeros_like(trials)
            self._move(step, mask_gradient, pattern_gradient)

    def _look(self, index: Tensor) -> tuple[Tensor, ...]:
        """Loss, successes, trials and gradients of mask and pattern per class, for some images."""
        images = self.images[index].float() / 255
        rows = max(1, _pass_images(self.device) // len(index))
        parts = [
            self._look_at(slice(first, first + rows), images, self.labels[index])
            for first in range(0, len(self.targets), rows)
        ]
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _look_at(self, rows: slice, images: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        mask, pattern = (
            self.mask[rows].detach().requires_grad_(),
            self.pattern[rows].detach().requires_grad_(),
        )
        targets = self.targets[rows]
        weight = (
            labels[None] != targets[:, None]
        ).float()  # images of the target class carry no information
        with torch.enable_grad():
            stamped = _stamp(images[None], mask[:, None], pattern[:, None]).flatten(0, 1)
            wanted = targets.repeat_interleave(len(images))
            with searching(self.device):
                logits = self.model(stamped).float()
            losses = (
                functional.cross_entropy(logits, wanted, reduction="none").view_as(weight) * weight
            )
            loss = losses.sum(1) / weight.sum(1).clamp(min=1)
            gradients = torch.autograd.grad(loss.sum(), (mask, pattern))
        good = ((logits.argmax(1) == wanted).view_as(weight) * weight).sum(1)
        return loss.detach(), good, weight.sum(1), *gradients

    def _move(self, step: int, mask_gradient: Tensor, pattern_gradient: Tensor) -> None:
        self.velocity = MOMENTUM * self.velocity + mask_gradient
        length = self.velocity.flatten(1).norm(dim=1).clamp(min=1e-12)
        size = (
            MASK_STEP * self.budget.sqrt() * (1 - step / self.effort.steps if self.cooling else 1.0)
        )
        self.mask = project(self.mask - _wide(size / length) * self.velocity, self.budget)
        self.first = BETAS[0] * self.first + (1 - BETAS[0]) * pattern_gradient
        self.second = BETAS[1] * self.second + (1 - BETAS[1]) * pattern_gradient**2
        first, second = (
            self.first / (1 - BETAS[0] ** (step + 1)),
            self.second / (1 - BETAS[1] ** (step + 1)),
        )
        self.pattern = (self.pattern - PATTERN_RATE * first / (second.sqrt() + 1e-8)).clamp(0, 1)


def _stamp(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    return images + mask * (pattern - images)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _pass_images(device: torch.device) -> int:
    return PASS_IMAGES.get(device.type, 256)
