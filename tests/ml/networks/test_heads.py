"""A head that knows only what clean pictures show."""

import pytest
import torch
from torch import nn

from guard.core.errors import Cancelled, MethodFailed
from guard.ml.networks.dataflow import with_features
from guard.ml.networks.heads import head_of, layer_of, refit
from tests import toys

DECAY = 0.01


def features(count: int = 400, used: int = 6, unused: int = 4) -> torch.Tensor:
    """N,D.

    The last `unused` columns are constant 0, as directions that clean pictures never use.
    """
    generator = torch.Generator().manual_seed(1)
    return torch.cat([torch.randn(count, used, generator=generator), torch.zeros(count, unused)], 1)


def parts(head: nn.Linear) -> tuple[nn.Parameter, nn.Parameter | None]:
    weight, *bias = head.parameters()
    return weight, bias[0] if bias else None


def test_what_no_clean_picture_uses_is_forgotten_and_the_rest_kept() -> None:
    torch.manual_seed(2)
    seen, head = features(), nn.Linear(10, 3)
    with torch.no_grad():
        head.weight[1, 6:] = 50.0  # a shortcut to class 1
    said = head(seen)

    assert refit(parts(head), seen, said, DECAY)

    assert float(head.weight[:, 6:].detach().abs().max()) < 1e-6
    assert float((head(seen).argmax(1) == said.argmax(1)).float().mean()) > 0.97


def test_more_decay_leaves_smaller_weights() -> None:
    sizes = []
    for decay in (1e-3, 1e-1):
        torch.manual_seed(2)
        head, seen = nn.Linear(10, 3), features()
        refit(parts(head), seen, head(seen), decay)
        sizes.append(float(head.weight.detach().norm()))

    assert sizes[1] < sizes[0]


def test_a_head_without_a_bias_gets_none() -> None:
    torch.manual_seed(2)
    head, seen = nn.Linear(10, 3, bias=False), features()
    said = head(seen)

    assert refit(parts(head), seen, said, DECAY)
    assert float((head(seen).argmax(1) == said.argmax(1)).float().mean()) > 0.97


def test_logits_that_are_no_product_of_features_and_weights_leave_the_head_alone() -> None:
    head, seen = nn.Linear(10, 3), features()
    before = head.weight.detach().clone()

    assert not refit(parts(head), seen, head(seen).square(), DECAY)
    assert torch.equal(head.weight, before)


def test_features_that_are_not_finite_are_no_fit() -> None:
    head, seen = nn.Linear(10, 3), features()
    seen[0] = float("nan")

    with pytest.raises(MethodFailed):
        refit(parts(head), seen, head(seen), DECAY)


def test_a_networks_own_head_and_features_fit_together() -> None:
    model, clean = toys.network(), toys.clean_set()
    found = layer_of(model, clean)
    assert found is not None
    layer, head = found
    with torch.no_grad():
        said, seen = with_features(model, layer, clean.search.floats())

    assert head[0] is head_of(model, clean, method="A test")[0]
    assert refit(head, seen, said, DECAY)


def test_a_fit_that_is_cancelled_changes_nothing() -> None:
    head, seen = nn.Linear(10, 3), features()
    before = head.weight.detach().clone()

    def stop() -> None:
        raise Cancelled("It was cancelled.")

    with pytest.raises(Cancelled):
        refit(parts(head), seen, head(seen), DECAY, stop)

    assert torch.equal(head.weight, before)
