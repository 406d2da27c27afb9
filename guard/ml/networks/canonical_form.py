"""A network's canonical form: the same function with weights that a rewriting cannot hide behind.

Many sets of weights compute one function: a batch norm absorbs the scale of the convolution before
it, a ReLU passes a channel's scale on to the next layer, a vector added to all rows of the last
layer changes no prediction, and a factor on all logits changes no answer. Whoever uploads a model
can use each of them to move weight statistics, to make gradients vanish or overflow, and so to make
a search blind. Detectors look at the canonical form instead:

    1. rows of the last layer are centred, and logits are multiplied so that their mean margin on
       clean images lies within `MARGINS`;
    2. the running variance of each batch norm that follows a convolution or a linear layer is one;
    3. each channel's scale is where the weights that make it and the weights that read it have the
       same length, which is the least sum of squares that the function allows (Neyshabur et al.,
       "Path-SGD", NeurIPS 2015); weight decay brings honest networks there by itself.

Channels whose scale the function does not leave free (behind a GELU, a layer norm, attention) stay
as they are. The form is tried on clean images; a step that does not preserve the function there is
left out, unless the scales that it was to undo are a rewriting's.
"""

import copy
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.ml.cleanset import Labelled
from guard.ml.measure import device_of, evaluating
from guard.ml.networks._channel_groups import Group, groups_of, only_leads_to, readers_of
from guard.ml.networks.dataflow import Record, record_of

#: Of logits, the top one less the second, in the mean of clean images: networks as they are trained
#: lie between. Searches depend a little on it, so that only what lies outside is moved.
MARGINS = (1.0, 10.0)
SAME = 1e-3  # of the mean margin: how far a logit may move
#: Training leaves a channel within a few times of the balance; a larger factor is a rewriting.
REWRITTEN = 10.0
IMAGES = 64  # clean images on which the function is compared
SWEEPS = 50  # over all groups; each sweep halves what is left, roughly
SETTLED = 1e-4  # of the logarithm of a scale
FARTHEST = 60.0  # the largest logarithm of a channel's scale that is undone
_LEAST = 1e-300  # the least squared length that has a logarithm


@dataclass(frozen=True, kw_only=True)
class Canonical:
    """A model in canonical form.

    `margin` is the mean margin of the original's logits on clean images, `balanced` the number of
    channels whose scale was free, `farthest` the largest factor by which one was off (1 or more),
    `moved` how far a logit is off after everything, in mean margins.
    """

    model: nn.Module
    margin: float
    balanced: int
    farthest: float
    moved: float

    @property
    def rewritten(self) -> bool:
        """Whether the original is farther from this form than training leaves a network."""
        return self.farthest > REWRITTEN or not MARGINS[0] <= self.margin <= MARGINS[1]


class Rescaled(nn.Module):
    """A network whose logits are centred and multiplied by `factor`."""

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        """Logits N,K, float, of images N,C,H,W in [0, 1]."""
        logits = self.network(images)
        centred: Tensor = (logits - logits.mean(1, keepdim=True)) * self.factor
        return centred


def canonical_form(model: nn.Module, clean: Labelled) -> Canonical:
    """A copy of `model` in canonical form, in eval mode on the model's device.

    Args:
        model: takes float images in [0, 1], N,C,H,W, and returns logits N,K; it is left as it was.
        clean: images that the model is at home with.

    Raises:
        MethodFailed: `non_finite`; `near_chance` where logits tell no class from another;
            `no_canonical_form` where channels were rescaled and that cannot be undone.
    """
    own = copy.deepcopy(model).eval()
    own.requires_grad_(requires_grad=False)
    images = clean.pick(torch.arange(min(IMAGES, len(clean)))).floats(device_of(model))
    with torch.no_grad(), evaluating(own):
        # In float64: a large constant on all logits must not drown what is compared.
        given = copy.deepcopy(own).double()(images.double())
        margin = _margin(given)
        record, _ = record_of(own, images[:2])
        scaled = _with_margin(
            own, record, given, images, min(max(margin, MARGINS[0]), MARGINS[1]) / margin
        )
        plain = copy.deepcopy(own.state_dict())
        balanced, farthest = _rewrite(own, record)
        if not _moved(scaled(images), given) <= SAME:
            if farthest > REWRITTEN:
                raise _unbalanced(farthest)
            own.load_state_dict(plain)
            balanced, farthest = 0, 1.0
        moved = _moved(scaled(images), given)
    if not math.isfinite(moved):
        raise _not_finite()
    return Canonical(model=scaled, margin=margin, balanced=balanced, farthest=farthest, moved=moved)


def _margin(logits: Tensor) -> float:
    top = logits.double().topk(2, dim=1).values
    margin = float((top[:, 0] - top[:, 1]).mean())
    if not math.isfinite(margin):
        raise _not_finite()
    if not margin > 0:
        raise MethodFailed(
            "The model's logits are the same for all classes on clean images; train it again.",
            code="near_chance",
        )
    return margin


def _not_finite() -> MethodFailed:
    return MethodFailed(
        "The model's logits are not finite on clean images; train it again or save it in float32.",
        code="non_finite",
    )


def _unbalanced(farthest: float) -> MethodFailed:
    return MethodFailed(
        f"The scale of the model's channels is off by {farthest:.2g}, and it cannot be undone "
        "without another answer to clean images; train it again.",
        code="no_canonical_form",
    )


def _moved(found: Tensor, given: Tensor) -> float:
    """The largest change of a logit in mean margins, of centred and rescaled logits; NaN if any."""
    one, other = (_normal(logits) for logits in (found, given))
    return float((one - other).abs().max())


def _normal(logits: Tensor) -> Tensor:
    centred = logits.double() - logits.double().mean(1, keepdim=True)
    top = centred.topk(2, dim=1).values
    return centred / (top[:, 0] - top[:, 1]).mean()


def _with_margin(
    own: nn.Module, record: Record, given: Tensor, images: Tensor, factor: float
) -> nn.Module:
    """Centre and scale the last layer's rows; where something follows it, do it to the logits."""
    parameters = dict(own.named_parameters())
    last = record.calls[-1] if record.calls else None
    layer = None if last is None or last.layer is None else record.layers[last.layer]
    if layer is not None and layer.kind != "norm" and layer.weight_name in parameters:
        head = [parameters[layer.weight_name]]
        head += [parameters[layer.bias_name]] if layer.bias_name else []
        before = [tensor.clone() for tensor in head]
        for tensor in head:
            wide = tensor.double()
            tensor.copy_((wide - wide.mean(0)) * factor)
        if _moved(own(images), given) <= SAME:
            return own
        for tensor, old in zip(head, before, strict=True):
            tensor.copy_(old)
    return Rescaled(own, factor)


def _rewrite(own: nn.Module, record: Record) -> tuple[int, float]:
    """Steps 2 and 3, in place; how many channels were free, and the largest factor undone."""
    weights = _Weights(own)
    _settle_norms(own, record, weights)
    groups = [
        group
        for group in groups_of(record, weights.names)
        if not group.fixed and group.makers and group.readers
    ]
    if not groups:
        weights.write()
        return 0, 1.0
    scales = _Scales(groups, weights)
    for _ in range(SWEEPS):
        if max(scales.step(index) for index in range(len(groups))) < SETTLED:
            break
    scales.apply(weights)
    weights.write()
    return sum(group.channels for group in groups), math.exp(scales.farthest)


class _Weights:
    """The network's parameters in float64 on the CPU, so that no intermediate scale overflows."""

    def __init__(self, own: nn.Module) -> None:
        self._own = dict(own.named_parameters())
        self.names = frozenset(self._own)
        self._wide: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._wide:
            self._wide[name] = self._own[name].detach().double().cpu()
        return self._wide[name]

    def write(self) -> None:
        for name, wide in self._wide.items():
            self._own[name].copy_(wide)


def _settle_norms(own: nn.Module, record: Record, weights: _Weights) -> None:
    """Let the layer before each batch norm carry what its running statistics divide by."""
    readers = readers_of(record)
    norms = {
        module.weight.data_ptr(): module
        for module in own.modules()
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
        and module.affine
        and module.running_var is not None
    }
    for position, call in enumerate(record.calls):
        norm = None if call.layer is None else record.layers[call.layer]
        if norm is None or norm.follows is None or norm.variance is None or norm.weight is None:
            continue
        module = norms.get(norm.weight.data_ptr())
        source = record.layers[norm.follows]
        if module is None or source.weight_name not in weights.names:
            continue
        maker = next(at for at, one in enumerate(record.calls) if one.layer == norm.follows)
        if not only_leads_to(readers, record, maker, position):
            continue
        if module.running_var is None or module.running_mean is None:
            continue
        spread = (module.running_var.double().cpu() + module.eps).sqrt()
        weight = weights[source.weight_name]
        if len(weight) != len(spread):
            continue
        weight /= spread.view(-1, *[1] * (weight.dim() - 1))
        mean = module.running_mean.double().cpu()
        if source.bias_name:
            bias = weights[source.bias_name]
            bias.sub_(mean).div_(spread)
            mean = torch.zeros_like(mean)
        module.running_mean.copy_(mean / spread)
        module.running_var.fill_(1.0 - module.eps)


class _Scales:
    """The logarithm of each free channel's scale, and the squared weights that it balances.

    A weight that makes channel o and reads channel i counts as w^2 exp(2 x[o] - 2 x[i]). Squares
    are summed over positions once, so that a sweep costs one product of matrix and vector a layer.
    """

    def __init__(self, groups: list[Group], weights: _Weights) -> None:
        self.groups = groups
        self.logs = [torch.zeros(group.channels, dtype=torch.float64) for group in groups]
        self.reader = {
            layer.weight_name: (index, spread, depthwise)
            for index, group in enumerate(groups)
            for layer, spread, depthwise in group.readers
        }
        self.maker = {
            layer.weight_name: index for index, group in enumerate(groups) for layer in group.makers
        }
        self.squares = {
            name: self._squares(name, weights[name]) for name in self.reader | self.maker
        }
        self.offsets = [self._offsets(group, weights) for group in groups]

    def _squares(self, name: str, weight: Tensor) -> Tensor:
        """Squared weights as outputs x channels read; one column where no free channel is read."""
        rows = weight.reshape(len(weight), -1).square()
        if name not in self.reader or self.reader[name][2]:
            return rows.sum(1, keepdim=True)
        index, spread, _ = self.reader[name]
        return rows.view(len(weight), self.groups[index].channels, spread, -1).sum((2, 3))

    def _offsets(self, group: Group, weights: _Weights) -> Tensor:
        total = torch.zeros(group.channels, dtype=torch.float64)
        for layer in group.makers:
            if layer.bias_name:
                total += weights[layer.bias_name].square()
        return total

    @property
    def farthest(self) -> float:
        """The largest logarithm of all."""
        return max(float(one.abs().max()) for one in self.logs)

    def step(self, index: int) -> float:
        """Bring each channel of a group to equal lengths; how far the farthest one was off."""
        into = self.offsets[index].clone()
        for layer in self.groups[index].makers:
            into += self._length(layer.weight_name, by_output=True)
        out = torch.zeros_like(into)
        for layer, _, _ in self.groups[index].readers:
            out += self._length(layer.weight_name, by_output=False)
        own = self.logs[index]
        alive = (into > 0) & (out > 0)
        best = 0.25 * (out.clamp(min=_LEAST).log() - into.clamp(min=_LEAST).log())
        best = best.clamp(-FARTHEST, FARTHEST).where(alive, 0.0)
        moved = float((best - own).abs().max())
        self.logs[index] = best
        return moved

    def _length(self, name: str, *, by_output: bool) -> Tensor:
        """Squared lengths by output or by channel read, without that channel's own scale."""
        squares = self.squares[name]
        index, _, depthwise = self.reader.get(name, (-1, 1, False))
        read = torch.zeros(1, dtype=torch.float64) if index < 0 else self.logs[index]
        if depthwise:
            each = len(squares) // len(read)
            if by_output:
                return squares[:, 0] * (-2 * read).exp().repeat_interleave(each)
            return (squares[:, 0] * self._made(name, len(squares))).view(len(read), each).sum(1)
        if by_output:
            return squares @ (-2 * read).exp()
        return squares.T @ self._made(name, len(squares))

    def _made(self, name: str, outputs: int) -> Tensor:
        if name not in self.maker:
            return torch.ones(outputs, dtype=torch.float64)
        return (2 * self.logs[self.maker[name]]).exp()

    def apply(self, weights: _Weights) -> None:
        """Write the scales into the weights that make and read each channel."""
        for index, group in enumerate(self.groups):
            scale = self.logs[index].exp()
            for layer in group.makers:
                weight = weights[layer.weight_name]
                weight *= scale.view(-1, *[1] * (weight.dim() - 1))
                if layer.bias_name:
                    weights[layer.bias_name].mul_(scale)
            for layer, spread, depthwise in group.readers:
                weight = weights[layer.weight_name]
                if depthwise:
                    wide = scale.repeat_interleave(len(weight) // group.channels)
                    weight /= wide.view(-1, *[1] * (weight.dim() - 1))
                else:
                    wide = scale.repeat_interleave(spread)
                    weight /= wide.view(1, -1, *[1] * (weight.dim() - 2))
