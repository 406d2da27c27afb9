"""A neural polarizer: an affine map of the channels in front of one layer of a network.

Source: Zhu et al., "Neural Polarizer", NeurIPS 2023, arXiv 2306.16697; the conditional form after
its follow-up CNPD, arXiv 2502.18520. Deviations: CNPD's embedding of the class is a row of scales
and shifts (the paper's own form is not known to us); the polarizer starts as the identity. A
published polarizer is a 1x1 convolution and a batch norm whose statistics are frozen; the two
together are this map.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import ManifestRejected
from guard.core.manifest import PolarizerPlace
from guard.ml.networks.cut_points import SAME


class Polarizer(nn.Module):
    """The map y = scale[k] * (W h) + shift[k] of features N,C,H,W, or with C in the last place.

    `weight` C,C; `scale` and `shift` R,C with one row, or one for each class if R > 1. Then k is
    the image's entry in `predicted` (int64 N), which `Conditioned` sets for one pass; while it is
    None, the features are returned unchanged.
    """

    def __init__(self, channels: int, rows: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels))
        self.scale = nn.Parameter(torch.ones(rows, channels))
        self.shift = nn.Parameter(torch.zeros(rows, channels))
        self.predicted: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        rows, channels = self.scale.shape
        if rows > 1 and self.predicted is None:
            return features
        index = (
            self.predicted
            if rows > 1 and self.predicted is not None
            else features.new_zeros(1, dtype=torch.int64)
        )
        scale, shift = self.scale[index], self.shift[index]
        if features.dim() == 4 and features.shape[1] == channels:
            mapped = functional.conv2d(features, self.weight[:, :, None, None])
            return mapped * scale[:, :, None, None] + shift[:, :, None, None]
        between = [1] * (features.dim() - 2)
        mapped = functional.linear(features, self.weight)
        # `shape[0]` and not `len`, which would fix the batch's size when the network is exported.
        shape = (scale.shape[0], *between, channels)
        return mapped * scale.view(shape) + shift.view(shape)


class Polarized(nn.Module):
    """A layer with a polarizer in front of it; takes features of any shape that both accept."""

    def __init__(self, layer: nn.Module, polarizer: Polarizer) -> None:
        super().__init__()
        self.polarizer = polarizer
        self.layer = layer

    def forward(self, features: Tensor, *args: object, **kwargs: object) -> object:
        return self.layer(self.polarizer(features), *args, **kwargs)


class Conditioned(nn.Module):
    """A network whose polarizer depends on the class that the network predicts without it.

    Takes float images N,C,H,W and returns logits N,K, in two passes.
    """

    def __init__(self, network: nn.Module, before: str) -> None:
        super().__init__()
        self.network = network
        self.before = before

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            bare: Tensor = self.network(images)
        return self.conditioned(images, bare.argmax(1))

    def conditioned(self, images: Tensor, predicted: Tensor) -> Tensor:
        """Logits N,K of float images N,C,H,W, the polarizer conditioned on classes int64 N."""
        polarizer = polarizer_of(self)
        polarizer.predicted = predicted
        try:
            logits: Tensor = self.network(images)
        finally:
            polarizer.predicted = None
        return logits


def attach(network: nn.Module, place: PolarizerPlace, classes: int) -> nn.Module:
    """Put a fresh polarizer at `place` of the network, and wrap the network if it is conditional.

    The network is changed in place.

    Raises:
        ManifestRejected: `manifest_bad_polarizer`: there is no such layer.
    """
    parent_name, _, name = place.before.rpartition(".")
    try:
        parent = network.get_submodule(parent_name)
        layer = parent.get_submodule(name)
    except AttributeError as error:
        raise ManifestRejected(
            f"The network has no layer {place.before!r} to put a polarizer before; correct "
            "guard.polarizer in config.json.",
            code="manifest_bad_polarizer",
        ) from error
    setattr(
        parent,
        name,
        Polarized(layer, Polarizer(place.channels, classes if place.conditional else 1)),
    )
    return Conditioned(network, place.before) if place.conditional else network


def polarizer_of(model: nn.Module) -> Polarizer:
    """The polarizer inside a model.

    Raises:
        LookupError: there is none.
    """
    return polarized_in(model).polarizer


def polarized_in(model: nn.Module) -> Polarized:
    """The layer inside a model that has a polarizer in front of it.

    Raises:
        LookupError: there is none.
    """
    for module in model.modules():
        if isinstance(module, Polarized):
            return module
    raise LookupError("The model has no polarizer.")


class Halves:
    """A network cut into the frozen part before the polarizer and the rest, to run separately.

    The rest runs the network's own code, in which the modules that finish before the polarizer
    return zeros of the right shape without computing, and the features enter at the polarizer. That
    is correct if no path bypasses it, as at every place that `guard.ml.networks.cut_points` finds.
    It is tried on `probe`; if the logits differ, the network is left in one piece (`whole`): then
    `trunk` returns the images, and `rest` runs everything.

    Args:
        network: in eval mode, with a polarizer; frozen up to there.
        run: images to logits, through `network`, once.
        probe: float images N,C,H,W in [0, 1], as `run` takes them.
    """

    def __init__(self, network: nn.Module, run: Callable[[Tensor], Tensor], probe: Tensor) -> None:
        self.whole = False
        self._network, self._run = network, run
        self._polarized = polarized_in(network)
        self._shape = probe.shape
        self._outlines: dict[torch.Size, dict[nn.Module, list[Tensor]]] = {}
        with torch.no_grad():
            expected = run(probe)
            found = self.rest(self.trunk(probe))
        spread = float((expected - expected.mean(0)).abs().max())
        self.whole = not float((found - expected).abs().max()) <= SAME * spread

    def trunk(self, images: Tensor) -> Tensor:
        """The polarizer's input for float images N,C,H,W in [0, 1]; differentiable in the images.

        Nothing after the polarizer is computed.
        """
        self._shape = images.shape
        if self.whole:
            return images
        if images.shape not in self._outlines:
            self._outlines[images.shape] = self._outline(images)
        return self._entering(images)

    def rest(self, features: Tensor, predicted: Tensor | None = None) -> Tensor:
        """Logits N,K of the features that `trunk` returned last.

        Args:
            features: shape and dtype as `trunk` returned them.
            predicted: classes int64 N, as in `Polarizer`.
        """
        polarizer = self._polarized.polarizer
        polarizer.predicted = predicted
        try:
            if self.whole:
                return self._run(features)
            with self._idle(features):
                return self._run(features.new_zeros(self._shape))
        finally:
            polarizer.predicted = None

    def _entering(self, images: Tensor) -> Tensor:
        handle = self._polarized.register_forward_pre_hook(_reached)
        try:
            self._run(images)
        except _Reached as reached:
            return reached.features
        finally:
            handle.remove()
        raise LookupError("The network does not run its polarizer.")

    @torch.no_grad()
    def _outline(self, images: Tensor) -> dict[nn.Module, list[Tensor]]:
        """The outputs of each outermost module that runs before the polarizer, without data.

        A module that runs several times has several outputs. One that returns anything but a tensor
        is left out.
        """
        depth = 0
        finished: list[tuple[int, nn.Module, Any]] = []

        def enter(_module: nn.Module, _args: Any) -> None:
            nonlocal depth
            depth += 1

        def leave(module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal depth
            depth -= 1
            while finished and finished[-1][0] > depth:  # what ran inside this one
                finished.pop()
            finished.append(
                (depth, module, output.to("meta") if isinstance(output, Tensor) else None)
            )

        with ExitStack() as hooks:
            for module in self._network.modules():
                if module is not self._polarized and module is not self._network:
                    hooks.callback(module.register_forward_pre_hook(enter).remove)
                    hooks.callback(module.register_forward_hook(leave).remove)
            self._entering(images)
        found: dict[nn.Module, list[Any]] = {}
        for _, module, output in finished:
            found.setdefault(module, []).append(output)
        return {
            module: outputs
            for module, outputs in found.items()
            if all(one is not None for one in outputs)
        }

    @contextmanager
    def _idle(self, features: Tensor) -> Iterator[None]:
        """Inside the block, the trunk's modules compute nothing; the polarizer gets `features`."""
        passed = False

        def give(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            nonlocal passed
            passed = True
            return (features, *args[1:])

        def idle(module: nn.Module, outputs: list[Tensor]) -> Callable[..., Any]:
            own, turn = module.forward, iter(outputs)
            # A module may run again after the polarizer, as one ReLU of many layers; there it
            # computes.
            return lambda *args, **kwargs: (
                own(*args, **kwargs)
                if passed
                else torch.zeros_like(next(turn), device=features.device)
            )

        with ExitStack() as undo:
            undo.callback(self._polarized.register_forward_pre_hook(give).remove)
            for module, outputs in self._outlines[self._shape].items():
                working = idle(module, outputs)  # made before its own `forward` is hidden
                undo.callback(_restored, module, vars(module).get("forward"))
                vars(module)["forward"] = working
            yield


class _Reached(Exception):
    """Carries the polarizer's input out of a pass."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


def _reached(_module: nn.Module, args: tuple[Any, ...]) -> None:
    raise _Reached(args[0])


def _restored(module: nn.Module, own: Callable[..., Any] | None) -> None:
    """Undo a replaced `forward`; `own` is the instance's, None if it was the class's."""
    del vars(module)["forward"]
    if own is not None:
        vars(module)["forward"] = own
