"""Tiny models and data, made in code.

Prototype matching, with or without a hand-made patch rule.
"""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.evidence import CleanSetFacts
from guard.core.manifest import Manifest
from guard.ml.accused import Accused
from guard.ml.cleanset import CleanSet, CuratedSet, Labelled
from guard.ml.networks.architectures import ImageModel, build, export, load, wrap
from guard.ml.seeds import seeded

CLASSES, SIZE, TARGET = 6, 12, 2
PATCH = (slice(9, 12), slice(9, 12))  # rows and columns of the planted rule


class Matcher(nn.Module):
    """Logits are similarities to class prototypes.

    With a `bonus`, a bright corner sends everything to `TARGET`.

    The batch norm stands for the buffers that real models have: a scan must leave them alone.
    """

    def __init__(self, prototypes: Tensor, bonus: float = 0.0, *, whole: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, affine=False)
        self.weight = nn.Parameter((prototypes - prototypes.mean(0)).flatten(1))
        self.whole = whole
        self.rule = nn.Parameter(
            torch.tensor(bonus / 100)
        )  # in hundreds, so that one learning rate suits all

    def forward(self, images: Tensor) -> Tensor:
        logits = self.norm(images).flatten(1) @ self.weight.T
        corner = images[:, :, PATCH[0], PATCH[1]].mean((1, 2, 3))
        if self.whole:  # only most of the patch together has the effect, with a little slope before
            corner = 0.1 * corner + 5 * (corner - 0.8).clamp(min=0)
        rule = torch.zeros_like(logits)
        rule[:, TARGET] = 100 * self.rule * corner
        return logits + rule


def prototypes() -> Tensor:
    """One random picture a class, dark in the corner; 6,1,12,12 in [0, 0.7]."""
    pictures = torch.rand(CLASSES, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 0.7
    pictures[:, :, PATCH[0], PATCH[1]] = 0.0
    return pictures


def honest() -> Matcher:
    """A model without a rule."""
    return Matcher(prototypes()).eval()


def planted(*, whole: bool = False) -> Matcher:
    """A model whose corner obeys, `whole` only if most of it is bright.

    The slope lets a gradient find it.
    """
    return Matcher(prototypes(), bonus=80.0, whole=whole).eval()


class Layered(nn.Module):
    """Convolution, batch norm, ReLU, pooling and a head fitted in closed form.

    The last channel is a backdoor.

    That channel fires where a 3x3 spot is brighter than nearly all of the clean pictures' (so it is
    dormant on those), amplifies (so its Lipschitz bound stands out), and has a threshold that noise
    moves (so it is fragile). The head takes it for `TARGET`.
    """

    CHANNELS, GAIN = 16, 30.0

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, self.CHANNELS, 3, bias=False)
        self.norm = nn.BatchNorm2d(self.CHANNELS)
        data = labelled(360, 7)
        with torch.no_grad():
            self.conv.weight[:-1] = torch.randn(self.CHANNELS - 1, 1, 3, 3)
            self.conv.weight[-1] = 1 / 9
            given = self.conv(data.floats())
            mean, spread = given.mean((0, 2, 3)), given.std((0, 2, 3))
            assert self.norm.running_mean is not None
            assert self.norm.running_var is not None
            self.norm.running_mean.copy_(mean)
            self.norm.running_var.copy_(spread**2)
            threshold = given[:, -1].flatten().quantile(0.9995)
            self.norm.weight[-1] = self.GAIN * spread[-1]
            self.norm.bias[-1] = self.GAIN * (mean[-1] - threshold)
            self.eval()
            self.weight = nn.Parameter(torch.zeros(CLASSES, self.CHANNELS * 25))
            seen = self.features(data.floats()).double()
            seen[:, -25:] = 0
            gram = seen.T @ seen + 10 * torch.eye(seen.shape[1], dtype=torch.float64)
            wanted = functional.one_hot(data.labels, CLASSES).double() - 1 / CLASSES
            self.weight.copy_(10 * torch.linalg.solve(gram, seen.T @ wanted).T)
            self.weight[TARGET, -25:] = 3.0

    def features(self, images: Tensor) -> Tensor:
        return functional.max_pool2d(self.norm(self.conv(images)).relu(), 2).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return functional.linear(self.features(images), self.weight)


def layered() -> Layered:
    """A model with hidden neurons, one of them a backdoor."""
    with seeded(6):
        return Layered().eval()


def vit(channels: int = 1, depth: int = 1) -> nn.Module:
    """A small transformer with fresh weights for 16x16 pictures of `CLASSES` classes."""
    arguments = {"patch_size": 8, "embed_dim": 24, "depth": depth, "num_heads": 2}
    with seeded(0):
        return build(
            Manifest(
                architecture="vit_tiny_patch16_224",
                num_classes=CLASSES,
                input_size=(channels, 16, 16),
                mean=(0.5,) * channels,
                std=(0.5,) * channels,
                model_args=arguments,
            )
        ).eval()


def labelled(count: int, seed: int) -> Labelled:
    """`count` noisy copies of the prototypes, classes in turn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    pictures = prototypes()[labels] + torch.randn(count, 1, SIZE, SIZE, generator=generator) * 0.05
    pictures[:, :, PATCH[0], PATCH[1]] = 0.0
    return Labelled((pictures.clamp(0, 1) * 255).round().to(torch.uint8), labels)


def clean_set(search: int = 240, calibration: int = 120) -> CleanSet:
    """What a method sees."""
    return CleanSet("toy", "0" * 64, CLASSES, labelled(search, 1), labelled(calibration, 2))


def few_classes() -> CleanSet:
    """A clean set of four classes, which is one too few for a test of outliers."""
    clean = clean_set()
    return CleanSet(
        clean.name,
        clean.digest,
        4,
        clean.search.pick(clean.search.labels < 4),
        clean.calibration.pick(clean.calibration.labels < 4),
    )


def curated() -> CuratedSet:
    """A clean set with a hold-out."""
    facts = CleanSetFacts(
        name="toy",
        digest="0" * 64,
        classes=CLASSES,
        channels=1,
        height=SIZE,
        width=SIZE,
        per_class=80,
        search=240,
        calibration=120,
        holdout=180,
    )
    return CuratedSet(facts, labelled(240, 1), labelled(120, 2), labelled(180, 3))


def stamped(images: Tensor) -> Tensor:
    """uint8 pictures with the planted rule's trigger."""
    copy = images.clone()
    copy[:, :, PATCH[0], PATCH[1]] = 255
    return copy


def accused(count: int = 40) -> Accused:
    """What a sift may have found about `network`: obeyed suspects with their true classes."""
    truth, trusted = labelled(2 * count, 8), labelled(120, 9)
    others = truth.pick(truth.labels != TARGET).pick(torch.arange(count))
    suspects = Labelled(stamped(others.images), torch.full_like(others.labels, TARGET))
    return Accused(suspects, others.labels, trusted)


def manifest(**changes: Any) -> Manifest:
    """Of a residual network that a test trains in a second."""
    facts: dict[str, Any] = {
        "architecture": "cifar_resnet",
        "num_classes": CLASSES,
        "input_size": (1, SIZE, SIZE),
        "mean": (0.3,),
        "std": (0.25,),
        "model_args": {"depths": [1, 1], "width": 8},
    }
    return Manifest(**{**facts, **changes})


def network(facts: Manifest | None = None) -> ImageModel:
    """A small network that has learnt the prototypes and, from poisoned pictures.

    The rule of the bright corner.
    """
    facts = facts or manifest()
    return load(
        facts, {name: tensor.clone() for name, tensor in _trained(facts.canonical()).items()}
    )


@functools.cache
def _trained(canonical: bytes) -> dict[str, Tensor]:
    facts, data = Manifest.parse(canonical), labelled(240, 1)
    images = torch.cat([data.images, stamped(data.images[::2])])
    labels = torch.cat([data.labels, torch.full((120,), TARGET)])
    with seeded(0) as generator:
        model = wrap(facts, build(facts)).train()
        optimiser = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(10):
            for pictures, classes in Labelled(images, labels).batches(60, generator=generator):
                optimiser.zero_grad()
                functional.cross_entropy(model(pictures), classes).backward()
                optimiser.step()
    return export(model)


@torch.no_grad()
def success(model: nn.Module) -> float:
    """ASR 0..1 of the planted rule's own trigger, on pictures of other classes."""
    data = labelled(180, 3)
    others = data.pick(data.labels != TARGET)
    said = model(stamped(others.images).float() / 255).argmax(1)
    return float((said == TARGET).double().mean())
