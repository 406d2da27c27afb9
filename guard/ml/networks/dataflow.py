"""Record which weights a network computes with, in one forward pass of any architecture.

Functions such as `linear`, `conv2d` and `batch_norm` are intercepted with the tensors they get. So
a norm is paired with the convolution whose output it really takes, and the head is the last
weighted layer on the path to the logits, in whatever order layers were registered. (CLP's published
code pairs each norm with the convolution registered before it, which is wrong for pre-activation
networks and for shortcuts.)
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from guard.core.errors import MethodFailed

_LAYERS = {"linear": "linear", "conv1d": "conv", "conv2d": "conv", "conv3d": "conv"}
_CONVOLUTIONS = {name for name, kind in _LAYERS.items() if kind == "conv"}
_PRODUCTS = {
    "matmul",
    "__matmul__",
    "mm",
}  # a head written by hand: features times a (transposed) parameter
#: Norms, with the positions of weight and bias among their arguments.
_NORMS = {
    "batch_norm": (3, 4),
    "instance_norm": (3, 4),
    "layer_norm": (2, 3),
    "group_norm": (2, 3),
    "rms_norm": (2, None),
}
#: Functions that only move values, so that a norm after them still has the same channels.
_MOVES = {
    "permute",
    "transpose",
    "contiguous",
    "view",
    "reshape",
    "flatten",
    "movedim",
    "dropout",
    "dropout2d",
    "to",
    "clone",
    "unsqueeze",
    "squeeze",
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One call of a weighted function.

    `kind` is "linear", "conv" or "norm". `weight` is the tensor as it was used, outputs first for
    layers. `weight_name` and `bias_name` are the parameters' names, "" where the tensor is not a
    parameter of the model (computed, or absent). `follows` is the position, in `Flow.layers`, of
    the layer whose output this norm takes directly; None otherwise. `variance` (float C) and
    `epsilon` are those of a batch norm.
    """

    kind: str
    weight: Tensor | None
    weight_name: str
    bias_name: str
    follows: int | None = None
    variance: Tensor | None = None
    epsilon: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Flow:
    """The weighted calls of one forward pass in the order of execution.

    `head` is the position of the last layer.
    """

    layers: tuple[Layer, ...]
    head: int | None


@dataclass(frozen=True, kw_only=True)
class Call:
    """One torch function that ran: its name, and the positions of the calls that made its inputs.

    `layer` is its position in `Record.layers`, None where it has no weights; `groups` are those of
    a convolution; `output`, of any shape, is what it returned, as it was left when the pass ended.
    """

    name: str
    parents: tuple[int, ...]
    layer: int | None
    groups: int
    output: Tensor

    @property
    def moves(self) -> bool:
        """Whether it only moves values."""
        return self.name in _MOVES


@dataclass
class Record:
    """One forward pass: calls and weighted layers in their order, `alive` tensors of any shape."""

    calls: list[Call] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    makers: dict[int, int] = field(
        default_factory=dict
    )  # id of a tensor: position of the call that made it
    alive: list[Tensor] = field(default_factory=list)  # an id is unique only while its tensor lives


class _Recorder(TorchFunctionMode):
    """Records every torch function that runs inside the block."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {parameter.data_ptr(): name for name, parameter in model.named_parameters()}
        self.record = Record()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        record = self.record
        parents = [
            record.makers[id(tensor)]
            for tensor in _tensors((args, kwargs))
            if id(tensor) in record.makers
        ]
        name = getattr(func, "__name__", "")
        layer = self._layer(name, args, kwargs)
        result = func(*args, **kwargs)
        outputs = list(_tensors(result))
        if outputs:
            position = len(record.layers) if layer is not None else None
            if layer is not None:
                record.layers.append(layer)
            groups = int(_argument(args, kwargs, 6, "groups") or 1) if name in _CONVOLUTIONS else 1
            record.calls.append(
                Call(
                    name=name,
                    parents=tuple(parents),
                    layer=position,
                    groups=groups,
                    output=outputs[0],
                )
            )
            for tensor in outputs:
                record.makers[id(tensor)] = len(record.calls) - 1
                record.alive.append(tensor)
        return result

    def _layer(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Layer | None:
        if name in _LAYERS:
            weight, bias = _argument(args, kwargs, 1, "weight"), _argument(args, kwargs, 2, "bias")
            return self._made(_LAYERS[name], weight, bias)
        if name in _PRODUCTS and len(args) == 2:
            matrix = args[1]
            known = (
                isinstance(matrix, Tensor) and matrix.dim() == 2 and matrix.data_ptr() in self.names
            )
            return self._made("linear", matrix.T, None) if known else None
        if name in _NORMS:
            at_weight, at_bias = _NORMS[name]
            weight = _argument(args, kwargs, at_weight, "weight")
            bias = None if at_bias is None else _argument(args, kwargs, at_bias, "bias")
            source = self._source(_argument(args, kwargs, 0, "input"))
            if name != "batch_norm":
                return self._made("norm", weight, bias, source)
            epsilon = _argument(args, kwargs, 7, "eps")
            return self._made(
                "norm", weight, bias, source, _argument(args, kwargs, 2, "running_var"), epsilon
            )
        return None

    def _made(
        self,
        kind: str,
        weight: Tensor | None,
        bias: Tensor | None,
        follows: int | None = None,
        variance: Tensor | None = None,
        epsilon: float | None = None,
    ) -> Layer:
        return Layer(
            kind=kind,
            weight=weight,
            weight_name=self._name(weight),
            bias_name=self._name(bias),
            follows=follows,
            variance=variance,
            epsilon=1e-5 if epsilon is None else float(epsilon),
        )

    def _name(self, tensor: Tensor | None) -> str:
        return "" if tensor is None else self.names.get(tensor.data_ptr(), "")

    def _source(self, tensor: Tensor) -> int | None:
        """The layer whose output this is, apart from calls that only move values."""
        position = self.record.makers.get(id(tensor))
        while position is not None:
            call = self.record.calls[position]
            if call.layer is not None:
                return call.layer if self.record.layers[call.layer].kind != "norm" else None
            if not call.moves or not call.parents:
                return None
            position = call.parents[0]
        return None


@torch.no_grad()
def flow_of(model: nn.Module, images: Tensor) -> Flow:
    """Run float images N,C,H,W in [0, 1] on the model's device, and record the weighted calls."""
    record, logits = record_of(model, images)
    return Flow(layers=tuple(record.layers), head=_head(record, logits))


@torch.no_grad()
def record_of(model: nn.Module, images: Tensor) -> tuple[Record, Tensor]:
    """Every call of one pass over float images N,C,H,W in [0, 1], and the logits N,K."""
    with _Recorder(model) as recorder:
        logits: Tensor = model(images)
    return recorder.record, logits


def _head(record: Record, logits: Tensor) -> int | None:
    """The last layer with one output per class that the logits depend on through no other layer."""
    classes = logits.shape[-1]
    todo, seen = [record.makers.get(id(logits))], set()
    found: list[int] = []
    while todo:
        position = todo.pop()
        if position is None or position in seen:
            continue
        seen.add(position)
        call = record.calls[position]
        layer = None if call.layer is None else record.layers[call.layer]
        if layer is None:
            todo += call.parents
        elif layer.kind != "norm" and layer.weight is not None and layer.weight.shape[0] == classes:
            found.append(call.layer if call.layer is not None else 0)
    return max(found, default=None)


Edit = Callable[[Tensor], Tensor]


class _Watcher(TorchFunctionMode):
    """Records the input of the head, and adds to it if `edit` is given."""

    def __init__(self, head: Layer, edit: Edit | None) -> None:
        super().__init__()
        self.address = head.weight.data_ptr() if head.weight is not None else 0
        self.edit = edit
        self.features: Tensor | None = None

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kind = _LAYERS.get(
            name := getattr(func, "__name__", ""), "linear" if name in _PRODUCTS else ""
        )
        if (
            kind
            and len(args) > 1
            and isinstance(args[1], Tensor)
            and args[1].data_ptr() == self.address
        ):
            self.features = _flat(args[0], conv=kind == "conv")
            if self.edit is not None:
                shift = self.edit(self.features)
                shape = [len(shift), *[1] * (args[0].dim() - 2)]
                shape.insert(1 if kind == "conv" else len(shape), shift.shape[1])
                args = (args[0] + shift.view(shape), *args[1:])
        return func(*args, **(kwargs or {}))


def with_features(
    model: nn.Module, head: Layer, images: Tensor, edit: Edit | None = None
) -> tuple[Tensor, Tensor]:
    """Logits N,K and the head's input features N,D (averaged over positions); differentiable.

    Args:
        model: takes `images`.
        head: the layer whose input is wanted.
        images: float N,C,H,W in [0, 1] on the model's device.
        edit: takes the features N,D and returns what is added to them, N,D, before the head runs.

    Raises:
        MethodFailed: the head did not run; the network chooses its layers by the image.
    """
    with _Watcher(head, edit) as watcher:
        logits = model(images)
    if watcher.features is None:
        raise MethodFailed("The network's last layer does not run for every image.", code="no_head")
    return logits, watcher.features


def _flat(features: Tensor, *, conv: bool) -> Tensor:
    if features.dim() <= 2:
        return features
    return features.flatten(2).mean(2) if conv else features.flatten(1, -2).mean(1)


def _argument(args: tuple[Any, ...], kwargs: Mapping[str, Any], position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs.get(name)


def _tensors(value: Any) -> Iterable[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
