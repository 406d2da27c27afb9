"""Weight statistics: find a class or a channel whose weights are unlike its siblings'.

The result hardly ever decides alone; the policy combines it with that of other methods.

Steps:
    1. refuse models and clean sets that cannot be judged; find in one forward pass which norm
       follows which layer, and which layer is the head
    2. for each class, test the length and the mean of its row in the head against the other rows;
       test the mean once more against a line over how near clean images come to the class, which is
       combined with other methods
    3. for each layer, test the largest of the channels' Lipschitz bounds against the rest
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from guard.core.errors import MethodFailed
from guard.core.evidence import Finding
from guard.core.planned import Passes, Plan, Sizes
from guard.core.progress import Progress
from guard.core.states import Family
from guard.detectors._base import Detector
from guard.ml.class_margins import nearness_of
from guard.ml.cleanset import CleanSet
from guard.ml.measure import device_of
from guard.ml.networks.dataflow import Flow, Layer, flow_of
from guard.ml.networks.neurons import lipschitz
from guard.ml.scoring import half_at_log
from guard.ml.statistics import LEAST_FOR_LINE, ClassTest, apart, leave_one_out, low_outliers
from guard.ml.suitability import check_suitable

LEAST_CHANNELS = 8  # in a layer with fewer, the spread cannot be estimated
LEAST_SPREAD = 0.1  # of log Lipschitz bounds
LEAST_MEAN_SPREAD = 0.02  # of row means, in root mean squares of the centred head
ALONE_SPREAD = 0.05  # of the same, in `p_class`, which is combined with other methods'
DEAD = 0.1  # of the median; smaller bounds count as this, so that pruned channels add no spread
SHOWN = 20  # the number of findings about classes if there are more classes
HIGH_Z = 3.0  # the threshold of CLP


@dataclass(frozen=True)
class _Channels:
    """Channels of the later half of the layers: the largest z, the least p and its fold.

    `high` counts channels above `HIGH_Z`, `layers` the layers, `paired` those that a norm follows.
    """

    z: float
    high: int
    p: float
    fold: float
    layers: int
    paired: int


@dataclass(frozen=True, kw_only=True)
class WeightStatistics(Detector):
    """Channel Lipschitz bounds (CLP) and outlying rows of the last layer.

    Source: Zheng et al., ECCV 2022, for the bound: the largest singular value of a channel's
    filter, reshaped to inputs x positions, times |gamma| / sqrt(var + eps) of its batch norm.
    Deviations: norms are paired by data flow, other norms count with |gamma| (a factor common to
    the layer cancels), linear layers count with their rows' lengths, and outliers are found by a t
    test that leaves the channel out, on a log scale.

    Rows of the head are centred first: adding one vector to all of them changes no prediction.
    `p_value` is the smaller of `p_norm` and `p_mean`, corrected for two tests. How unusual the
    weights are depends on the attack: pruning by these bounds leaves several attacks of
    BackdoorBench on CIFAR-10 at success rates of 99 % and more (Blended, TrojanNN, LF). So a
    finding is suspicious only at p <= `alpha` and fold >= `fold`, far beyond the gates of other
    detectors, and the finding about channels never is. `p_class` is the p value of one class's mean
    alone (Fields et al., "Trojan Signatures in DNN Weights", ICCVW 2021: the target's weights are
    larger), compared with what the task explains (`guard.ml.class_margins`); uncorrected, since the
    policy combines it with those of other methods.
    """

    version: ClassVar[int] = 3
    paper: ClassVar[str] = "Zheng et al., Channel Lipschitzness Pruning, ECCV 2022"
    families: ClassVar[frozenset[str]] = frozenset({str(Family.ALL_TO_ONE)})
    searches: ClassVar[bool] = False

    alpha: float = 1e-6
    fold: float = 3.0

    def planned(self, sizes: Sizes) -> Plan:
        least = Passes(forward=sizes.calibration + 2)
        line = sizes.search if sizes.classes >= LEAST_FOR_LINE else 0
        most = least + Passes(forward=line)
        return Plan(least=least, usual=most, most=most)

    def examine(self, model: nn.Module, clean: CleanSet, *, progress: Progress) -> list[Finding]:
        progress(0.02, "checking")
        check_suitable(model, clean, "The weight statistics detector")
        progress(0.4, "following the data")
        flow = flow_of(model, clean.search.pick(torch.arange(2)).floats(device_of(model)))
        progress(0.6, "comparing channels")
        findings = [_about_channels(_channels(flow))]
        progress(0.9, "comparing classes")
        if flow.head is not None:
            near = (
                nearness_of(model, clean.search, clean.classes)
                if clean.classes >= LEAST_FOR_LINE
                else None
            )
            findings = [*self.about_rows(_rows_of(flow.layers[flow.head]), near), *findings]
        progress(1.0, "done")
        return findings

    def about_rows(self, rows: Tensor, near: Sequence[float] | None = None) -> list[Finding]:
        """One finding for each class about its row of the head.

        Args:
            rows: centred rows, float64 K,D.
            near: a covariate that explains a large mean, one number for each class.

        Raises:
            MethodFailed: `bad_head`: all rows are the same.
        """
        scale = float(rows.square().mean().sqrt())
        if not scale > 0:
            raise MethodFailed(
                "All rows of the last layer are the same; it cannot distinguish classes.",
                code="bad_head",
            )
        most = max(1, len(rows) // 4)
        norms = low_outliers(
            rows.norm(dim=1).clamp(min=1e-12).log().tolist(), most=most, low_side=False
        )
        means = low_outliers(
            (rows.mean(1) / scale).tolist(), most=most, low_side=False, floor=LEAST_MEAN_SPREAD
        )
        alone = apart(
            (rows.mean(1) / scale).tolist(), explained=near, low_side=False, floor=ALONE_SPREAD
        )
        found = [
            self._about_row(row, norms[row], means[row], alone[row].p, len(rows))
            for row in range(len(rows))
        ]
        if len(found) <= SHOWN:
            return found
        return sorted(found, key=lambda finding: finding.numbers["p_value"])[:SHOWN]

    def _about_row(
        self, row: int, norm: ClassTest, mean: ClassTest, alone: float, classes: int
    ) -> Finding:
        p = min(1.0, 2 * min(norm.p, mean.p))
        numbers = {
            "p_value": p,
            "p_norm": norm.p,
            "p_mean": mean.p,
            "t_stat": max(norm.t, mean.t),
            "fold": norm.fold,
            "p_class": alone,
            "classes": float(classes),
        }
        score = min(
            half_at_log(p, self.alpha, self.alpha**2),
            half_at_log(norm.fold, self.fold, self.fold**2),
        )
        suspicious = score >= 0.5
        text = (
            f"The last layer's weights of class {row} are {norm.fold:.2f} times as long as its "
            "siblings' "
            f"(p = {p:.2g})"
        )
        return Finding(
            family=str(Family.ALL_TO_ONE),
            target=row,
            suspicious=suspicious,
            score=score,
            numbers=numbers,
            statement=f"{text}." if suspicious else f"{text}: not out of the ordinary.",
        )


def _channels(flow: Flow) -> _Channels:
    layers = [
        position
        for position, layer in enumerate(flow.layers)
        if layer.kind != "norm"
        and position != flow.head
        and layer.weight is not None
        and layer.weight.shape[0] >= LEAST_CHANNELS
    ]
    norms = {
        layer.follows: layer
        for layer in flow.layers
        if layer.kind == "norm" and layer.follows is not None
    }
    late = layers[len(layers) // 2 :]
    z, high, p, fold = 0.0, 0, 1.0, 1.0
    for position in late:
        bounds = lipschitz(flow.layers[position], norms.get(position))
        if not bool(torch.isfinite(bounds).all()):
            raise MethodFailed("A weight of the model is not finite.", code="non_finite")
        middle = float(bounds.median())
        if not middle > 0:
            continue
        spread = float(bounds.std())
        scores = (bounds - bounds.mean()) / spread if spread > 0 else torch.zeros_like(bounds)
        test = leave_one_out(
            bounds.clamp(min=DEAD * middle).log().tolist(), low_side=False, floor=LEAST_SPREAD
        )
        z, high = max(z, float(scores.max())), high + int((scores > HIGH_Z).sum())
        if test.p <= p:
            p, fold = test.p, test.fold
    return _Channels(
        z, high, min(1.0, p * max(1, len(late))), fold, len(late), sum(one in norms for one in late)
    )


def _about_channels(channels: _Channels) -> Finding:
    numbers = {
        "z": channels.z,
        "channels_over_3": float(channels.high),
        "p_channel": channels.p,
        "channel_fold": channels.fold,
        "layers": float(channels.layers),
        "paired": float(channels.paired),
    }
    score = min(0.49, half_at_log(channels.p, 1e-6, 1e-12))
    return Finding(
        family=str(Family.ALL_TO_ONE),
        target=None,
        suspicious=False,
        score=score,
        numbers=numbers,
        statement=f"In the {channels.layers} later layers, the largest channel is "
        f"{channels.z:.1f} standard deviations above its layer's mean (p = {channels.p:.2g}).",
    )


def _rows_of(head: Layer) -> Tensor:
    """The rows of the head, float64 K,D on the CPU, centred."""
    assert head.weight is not None  # noqa: S101 - for mypy: a head has weights
    rows = head.weight.detach().double().cpu().flatten(1)
    if not bool(torch.isfinite(rows).all()):
        raise MethodFailed("A weight of the last layer is not finite.", code="non_finite")
    return rows - rows.mean(0)
