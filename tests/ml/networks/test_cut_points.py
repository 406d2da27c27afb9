"""Waypoints are where everything passes, found by trying."""

import torch
from torch import nn

from guard.ml.networks.cut_points import waypoints
from tests import toys


class Forked(nn.Module):
    """Two branches that meet again before the head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (
            nn.Conv2d(1, 4, 3),
            nn.Conv2d(4, 4, 1),
            nn.Conv2d(4, 4, 1),
        )
        self.join = nn.Conv2d(8, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stem = self.stem(x)
        joined = self.join(torch.cat([self.left(stem), self.right(stem)], 1))
        return self.head(joined.mean((2, 3)))


def images() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(4, 1, 12, 12)


def test_a_branch_is_no_waypoint_and_what_joins_branches_is_one() -> None:
    model = Forked().eval()

    entrances = [(point.name, point.layers_after) for point in waypoints(model, model, images())]
    exits = [point.name for point in waypoints(model, model, images(), exits=True)]

    assert entrances == [("join", 2), ("stem", 5)]
    assert exits == ["join", "stem"]


def test_what_runs_twice_is_no_waypoint() -> None:
    layer = nn.Conv2d(1, 1, 3, padding=1)
    model = nn.Sequential(
        layer, nn.Sequential(layer), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(200, 3)
    ).eval()

    assert "0" not in [point.name for point in waypoints(model, model, images())]


def test_a_network_that_looks_past_its_layers_has_none() -> None:
    model = toys.planted()

    assert list(waypoints(model, model, images())) == []


def test_channels_and_sides_are_told_apart_in_every_layout() -> None:
    conv = nn.Sequential(nn.Conv2d(1, 5, 3), nn.Flatten(), nn.Linear(500, 3)).eval()
    (exit_,) = [point for point in waypoints(conv, conv, images(), exits=True) if point.name == "0"]

    assert (exit_.channels, exit_.sides, exit_.axis) == (5, (10, 10), 1)
