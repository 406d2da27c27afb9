"""The battery is the secret's, keeps images images, and gives its secret away to nobody."""

import pytest
import torch

from guard.ml.search import battery as drawing
from guard.ml.search.battery import EACH, FAMILIES, PUBLIC, battery, commitment, drawing_from

GREY, COLOUR, LARGE = (1, 12, 12), (3, 32, 32), (3, 80, 64)


def some(shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.rand(3, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", [GREY, COLOUR, LARGE])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_change_gives_other_images_of_the_same_shape_and_range(
    shape: tuple[int, int, int], name: str
) -> None:
    images = some(shape)
    kept = images.clone()
    changes = battery(b"a", shape, 0)[name]

    assert len(changes) == EACH
    for change in changes:
        changed = change(images)
        assert changed.shape == images.shape
        assert float(changed.min()) >= 0
        assert float(changed.max()) <= 1 + 1e-5
        assert not torch.equal(changed, images)
        assert torch.equal(change(images), changed)
    assert torch.equal(images, kept)


def drawn(secret: bytes, turn: int) -> torch.Tensor:
    images = some(GREY)
    return torch.stack(
        [change(images) for part in battery(secret, GREY, turn).values() for change in part]
    )


def test_a_secret_draws_the_same_battery_each_time_and_another_secret_or_turn_another() -> None:
    one = drawn(b"a", 0)
    torch.manual_seed(9)

    assert torch.equal(one, drawn(b"a", 0))
    for other in (drawn(b"b", 0), drawn(b"a", 1)):
        same = [torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True)]
        assert sum(same) <= 3  # two ghosts a few pixels apart may be one by chance


def test_a_battery_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    drawn(b"a", 0)

    assert torch.equal(torch.rand(4), wanted)


def test_a_commitment_binds_to_the_secret_in_force_and_does_not_hold_it() -> None:
    public = commitment()
    with drawing_from(lambda: b"a secret"):
        bound = commitment()
        assert drawing.secret_in_force() == b"a secret"
        assert bound == commitment() != public

    assert drawing.secret_in_force() == PUBLIC
    assert len(bound) == 64
    assert b"a secret".hex() not in bound
