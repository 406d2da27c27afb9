"""Weight statistics.

Outliers planted by hand are found, pairs follow the data, and it hardly ever accuses.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from guard.core.evidence import Finding
from guard.detectors.weight_statistics import WeightStatistics
from guard.ml.networks.nets.preact_resnet18 import PreactResnet18
from guard.ml.seeds import seeded
from tests import toys
from tests.detectors import refusals


class Beside(nn.Module):
    """A network whose weights are looked at, beside a matcher that gives the answers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.matcher, self.net = toys.honest(), net

    def forward(self, images: Tensor) -> Tensor:
        return self.matcher(images) + 1e-9 * self.net(images)


def preact() -> PreactResnet18:
    with seeded(0):
        return PreactResnet18(toys.CLASSES, 1, width=8).eval()


def about_channels(net: nn.Module) -> Finding:
    (finding,) = [
        one
        for one in WeightStatistics()(Beside(net).eval(), toys.clean_set(), seed=0)
        if one.target is None
    ]
    return finding


def headed(rows: Tensor) -> nn.Module:
    """A model whose last layer has these rows (K,D), on features that clean pictures hardly have.

    It still matches.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(toys.SIZE**2, toys.CLASSES))
    with torch.no_grad():
        model[1].weight.copy_(rows)
        model[1].bias.zero_()
    return model.eval()


def matching() -> Tensor:
    return (toys.prototypes() - toys.prototypes().mean(0)).flatten(1)


def test_a_large_channel_is_found_where_the_norm_takes_its_output() -> None:
    plain, planted = preact(), preact()
    with torch.no_grad():
        planted.layer4[0].bn2.weight[5] = 30.0  # behind conv1 of its block

    before, after = about_channels(plain).numbers, about_channels(planted).numbers

    assert after["z"] > 6 > before["z"]
    assert after["p_channel"] < 1e-6 < before["p_channel"]
    assert after["channels_over_3"] >= 1


def test_a_norm_before_its_convolution_is_not_counted_with_the_convolution_registered_last() -> (
    None
):
    """In a pre-activation net `layer4.1.bn1` follows a sum.

    Though `layer4.0`'s convolutions are registered before.
    """
    plain, planted = preact(), preact()
    with torch.no_grad():
        planted.layer4[1].bn1.weight[5] = 30.0

    assert about_channels(plain).numbers == about_channels(planted).numbers


def test_channels_alone_never_accuse() -> None:
    planted = preact()
    with torch.no_grad():
        planted.layer4[0].bn2.weight[5] = 1e6

    finding = about_channels(planted)

    assert not finding.suspicious
    assert finding.score < 0.5


@pytest.mark.row(16)
def test_an_outlying_row_of_the_last_layer_has_a_small_p_and_only_an_extreme_one_accuses() -> None:
    rows = matching()
    dark = torch.zeros(1, toys.SIZE, toys.SIZE)
    dark[:, toys.PATCH[0], toys.PATCH[1]] = 1.0

    def row(size: float, detector: WeightStatistics | None = None) -> list[Finding]:
        changed = rows.clone()
        changed[4] += size * dark.flatten()
        return (detector or WeightStatistics())(headed(changed), toys.clean_set(), seed=0)[
            : toys.CLASSES
        ]

    def top(findings: list[Finding]) -> Any:
        return min(findings, key=lambda finding: finding.numbers["p_value"])

    # Six rows leave the t test too few degrees of freedom for the default level, however large the
    # outlier.
    honest, some, extreme = row(0.0), row(2.0), row(200.0, WeightStatistics(alpha=1e-4))
    assert top(honest).numbers["p_value"] > 0.01
    assert top(some).target == top(extreme).target == 4
    assert top(some).numbers["p_value"] < 0.01
    assert [finding.target for finding in [*honest, *some] if finding.suspicious] == []
    assert [finding.target for finding in extreme if finding.suspicious] == [4]


def test_p_values_of_random_rows_have_their_level() -> None:
    """papers/detection.md 7.11 (i), for the whole statistic.

    At most the nominal share, and not far below it.
    """
    detector, low = WeightStatistics(), 0
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        rows = torch.randn(10, 64, generator=generator, dtype=torch.float64)
        low += (
            min(one.numbers["p_value"] for one in detector.about_rows(rows - rows.mean(0))) <= 0.1
        )

    assert 0.03 <= low / 200 <= 0.16


def test_it_abstains_where_it_could_not_judge() -> None:
    assert refusals.codes(WeightStatistics()) == refusals.EXPECTED
