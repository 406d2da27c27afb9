"""Find places in a network that all information about an image passes through.

They are found by experiment; no layer names are assumed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SAME = 1e-4  # the difference between logits that count as equal, in units of their spread


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """A module of the network, and the shape of the features at its entrance or exit.

    `shape` is N,C,H,W of a feature map, or N,T,C of tokens (N,H,W,C of some transformers);
    `channels` their C. `layers_after`: weighted modules that start after this point, the head among
    them.
    """

    name: str
    shape: tuple[int, ...]
    layers_after: int

    @property
    def axis(self) -> int:
        """The dimension of the channels, 1 or -1.

        It is the second of four dimensions, unless the two after the first are the sides.
        """
        sides_first = len(self.shape) == 4 and self.shape[1] == self.shape[2] != self.shape[3]
        return 1 if len(self.shape) == 4 and not sides_first else -1

    @property
    def channels(self) -> int:
        """The number of channels."""
        return self.shape[self.axis]

    @property
    def sides(self) -> tuple[int, ...]:
        """H,W of a feature map, or T of tokens."""
        return self.shape[2:] if self.axis == 1 else self.shape[1:-1]


@torch.no_grad()
def waypoints(
    model: nn.Module, network: nn.Module, images: Tensor, *, exits: bool = False
) -> Iterator[Waypoint]:
    """Waypoints of `network`, which `model` runs, from the last to the first.

    A module is one if it runs once, takes (or returns) one feature map or sequence of tokens, and
    if the logits become the same for all images when these features do: then no path bypasses it.

    Args:
        model: in eval mode; returns logits N,K.
        network: `model` or a part of it; names are relative to it.
        images: float N,C,H,W in [0, 1] on the model's device; as many images of noise are tried
            with them.
        exits: look at what modules return, instead of what they take.
    """
    # Noise beside images: a path around the point may carry the same for all images, as that of a
    # trigger does.
    noise = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)).to(images)
    images = torch.cat([images, noise])
    found = _found(model, network, images, exits=exits)
    logits = model(images)
    spread = float((logits - logits.mean(0)).abs().max())
    for point in reversed(found):
        module = network.get_submodule(point.name)
        handle = _averaging(module, exits=exits)
        try:
            blind = model(images)
        finally:
            handle.remove()
        if float((blind - blind[:1]).abs().max()) <= SAME * spread:
            yield point


def _found(model: nn.Module, network: nn.Module, images: Tensor, *, exits: bool) -> list[Waypoint]:
    """Modules that run once on features of whole images, in the order of their start (or end)."""
    seen: list[tuple[str, tuple[int, ...], int]] = []
    starts = 0
    count = len(images)

    def enter(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            nonlocal starts
            if not exits:
                note(name, args[0] if args else None)
            starts += any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
            if exits:
                note(name, output)

        return hook

    def note(name: str, features: Any) -> None:
        if isinstance(features, Tensor) and features.dim() in (3, 4) and len(features) == count:
            seen.append((name, tuple(features.shape), starts))

    handles = []
    for name, module in network.named_modules():
        if name:
            handles += [
                module.register_forward_pre_hook(enter(name)),
                module.register_forward_hook(leave(name)),
            ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    names = [name for name, _, _ in seen]
    return [
        Waypoint(name=name, shape=shape, layers_after=starts - before)
        for name, shape, before in seen
        if names.count(name) == 1
    ]


def _averaging(module: nn.Module, *, exits: bool) -> torch.utils.hooks.RemovableHandle:
    """Give every image the mean features of all, at a module's entrance or exit."""

    def same(features: Tensor) -> Tensor:
        return features.mean(0, keepdim=True).expand_as(features).contiguous()

    if exits:
        return module.register_forward_hook(lambda _module, _args, output: same(output))
    return module.register_forward_pre_hook(lambda _module, args: (same(args[0]), *args[1:]))
