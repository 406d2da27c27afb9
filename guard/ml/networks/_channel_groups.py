"""Whose scale is one scale: the layers that make a channel and the layers that read it.

A ReLU, a pooling or a sum passes a factor on, so that whatever makes and reads a channel on its way
can be rescaled together and the network computes the same.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from guard.ml.networks.dataflow import Call, Layer, Record

#: Channel by channel and positively homogeneous: f(s x) = s f(x) for s > 0.
_HOMOGENEOUS = frozenset({
    "relu", "relu_", "leaky_relu", "leaky_relu_", "prelu", "max_pool2d", "avg_pool2d",
    "adaptive_avg_pool2d", "adaptive_max_pool2d", "boolean_dispatch", "_max_pool2d", "mean", "amax",
    "flatten", "view", "reshape", "contiguous", "clone", "dropout", "dropout_", "dropout2d",
    "squeeze", "to", "detach",
})  # fmt: skip
_SUMS = frozenset({"add", "add_", "__add__", "__radd__", "__iadd__", "iadd"})


@dataclass
class Group:
    """Channels with one scale: what makes them and what reads them, as layers with `spread`.

    `spread` is how many neighbouring inputs of a reader belong to one channel: a flattened map has
    its positions side by side.
    """

    channels: int
    makers: list[Layer] = field(default_factory=list)
    readers: list[tuple[Layer, int, bool]] = field(default_factory=list)  # layer, spread, depthwise
    fixed: bool = False


def readers_of(record: Record) -> dict[int, list[int]]:
    readers = defaultdict(list)
    for position, call in enumerate(record.calls):
        for parent in call.parents:
            readers[parent].append(position)
    return readers


def only_leads_to(readers: dict[int, list[int]], record: Record, start: int, end: int) -> bool:
    """Whether the output of call `start` reaches nothing but call `end`, and is only moved."""
    at = start
    while True:
        following = readers.get(at, [])
        if len(set(following)) != 1:
            return False
        at = following[0]
        if at == end:
            return True
        if not record.calls[at].moves:
            return False


def groups_of(record: Record, names: frozenset[str]) -> Iterator[Group]:
    """Follow every channel's scale from the layers that make it to the layers that read it."""
    once = Counter(layer.weight_name for layer in record.layers)
    names = frozenset(name for name in names if once[name] == 1)  # a shared weight is not free
    found: dict[int, Group] = {}
    owner: dict[int, int] = {}  # call -> group, by number; united groups share one

    def group_at(position: int) -> Group:
        return found[_root(owner, position)]

    for position, call in enumerate(record.calls):
        layer = None if call.layer is None else record.layers[call.layer]
        shape = call.output.shape
        channels = int(shape[1]) if call.output.dim() > 1 else 0
        if layer is not None:
            for parent in call.parents:
                _read(group_at(parent), layer, call, record.calls[parent], names)
            own = Group(channels=channels)
            if _makes(layer, call, names):
                own.makers.append(layer)
            else:
                own.fixed = True
            owner[position], found[position] = position, own
            continue
        parents = [_root(owner, parent) for parent in call.parents]
        passes = call.name in _HOMOGENEOUS and len(set(call.parents)) == 1
        sums = call.name in _SUMS and len(call.parents) == 2
        alike = all(_alike(found[one].channels, call) for one in parents)
        if parents and (passes or sums) and alike:
            first = parents[0]
            for other in parents[1:]:
                _unite(owner, found, first, other)
            owner[position] = _root(owner, first)
            continue
        for one in parents:
            found[_root(owner, one)].fixed = True
        owner[position], found[position] = position, Group(channels=channels, fixed=True)
    if record.calls:
        group_at(len(record.calls) - 1).fixed = True  # logits keep their scale here
    roots = {_root(owner, position) for position in owner}
    yield from (found[root] for root in sorted(roots))


def _root(owner: dict[int, int], position: int) -> int:
    while owner[position] != position:
        position = owner[position]
    return position


def _unite(owner: dict[int, int], found: dict[int, Group], one: int, other: int) -> None:
    one, other = _root(owner, one), _root(owner, other)
    if one == other:
        return
    kept, gone = found[one], found.pop(other)
    kept.makers += gone.makers
    kept.readers += gone.readers
    kept.fixed |= gone.fixed or kept.channels != gone.channels
    owner[other] = one


def _alike(channels: int, call: Call) -> bool:
    """Whether the output of a call still has these channels in its second place."""
    if call.output.dim() < 2 or channels == 0:
        return False
    here = int(call.output.shape[1])
    return here == channels or (call.output.dim() == 2 and here % channels == 0)


def _makes(layer: Layer, call: Call, names: frozenset[str]) -> bool:
    """Whether scaling this layer's own parameters scales its output channel by channel."""
    if layer.weight_name not in names or (layer.kind == "norm" and layer.variance is None):
        return False
    in_place = call.output.dim() == 4 or (call.output.dim() == 2 and layer.kind == "linear")
    outputs = 0 if layer.weight is None else len(layer.weight)
    return in_place and outputs == call.output.shape[1]


def _read(group: Group, layer: Layer, call: Call, given: Call, names: frozenset[str]) -> None:
    """Add a reader to the group whose channels it reads; what cannot be rescaled fixes it."""
    weight = layer.weight
    if layer.kind == "norm" or weight is None or layer.weight_name not in names:
        group.fixed = True
        return
    inputs = int(given.output.shape[1])
    depthwise = call.groups > 1
    if depthwise and (call.groups != inputs or weight.shape[0] % inputs):
        group.fixed = True
        return
    if not depthwise and (weight.dim() < 2 or weight.shape[1] != inputs):
        group.fixed = True
        return
    if inputs % group.channels:
        group.fixed = True
        return
    group.readers.append((layer, inputs // group.channels, depthwise))
