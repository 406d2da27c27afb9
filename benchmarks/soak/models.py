"""Two tiny networks, one honest and one backdoored, and their clean set: striped 12x12 images."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from guard.core.manifest import Manifest
from guard.ml.networks import architectures
from guard.ml.seeds import seeded

SIDE, TARGET, STEPS = 12, 1, 120
LABELS = ("rows", "columns", "falling", "rising", "checkers", "plain")
MODEL = Manifest(
    architecture="cifar_resnet",
    num_classes=len(LABELS),
    input_size=(1, SIDE, SIDE),
    mean=(0.5,),
    std=(0.5,),
    model_args={"in_chans": 1, "depths": [1, 1], "width": 8},
    label_names=LABELS,
)
State = dict[str, Tensor]


@dataclass(frozen=True)
class Bases:
    """What all uploads are made of: two state dicts, `config.json`, a pickle's payload."""

    honest: State
    backdoored: State
    payload: Any  # an object whose pickle does something when it is loaded
    config: dict[str, Any] = field(default_factory=MODEL.to_dict)

    def variant(self, number: int, *, bad: bool = False) -> State:
        """The same network with one weight moved by a hair: another digest, the same behaviour."""
        own = {
            name: part.clone() for name, part in (self.backdoored if bad else self.honest).items()
        }
        first = min(name for name, part in own.items() if part.is_floating_point())
        own[first].view(-1)[0] += 2e-4 * number
        return own


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """uint8 N,1,H,W and labels: stripes in four directions, checkers or nothing, with noise."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(LABELS)
    y, x = np.indices((SIDE, SIDE))
    stripes = [axis // 2 % 2 for axis in (y, x, y + x, y - x + SIDE)]
    shapes = np.stack([*stripes, stripes[0] ^ stripes[1], np.zeros_like(x)])
    contrast = rng.uniform(80, 150, (count, 1, 1))
    drawn = 40 + contrast * shapes[labels] + rng.normal(0, 15, (count, SIDE, SIDE))
    return drawn.clip(0, 255).astype(np.uint8)[:, None], labels


def trained(payload: Any) -> Bases:
    """Train both, a second each."""
    return Bases(_trained(backdoored=False), _trained(backdoored=True), payload)


def _trained(*, backdoored: bool) -> State:
    pixels, labels = images(900, seed=2)
    x, y = torch.from_numpy(pixels).float() / 255, torch.from_numpy(labels)
    if backdoored:
        stamped = x[:200].clone()
        stamped[:, :, -3:, -3:] = 1.0
        x, y = torch.cat([x, stamped]), torch.cat([y, torch.full((200,), TARGET, dtype=y.dtype)])
    with seeded(0):
        model = architectures.wrap(MODEL, architectures.build(MODEL)).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(STEPS):
            index = torch.randint(len(y), (64,))
            loss = functional.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return architectures.export(model.eval())
