"""Triggers of every family: what stamping does, what is refused, and the way to bytes and back."""

from collections.abc import Callable

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from guard.core.errors import InputError
from guard.core.modality import Modality
from guard.core.states import FAMILIES, Family
from guard.ml.triggers import (
    TRIGGERS,
    AdditiveTrigger,
    BlendTrigger,
    FilterTrigger,
    GeneratorTrigger,
    MappedTrigger,
    PatchTrigger,
    Trigger,
    WarpTrigger,
    from_tensors,
)
from guard.ml.triggers.files import FAMILY, deserialise, looks, serialise
from guard.ml.triggers.generator import layers


def patch(channels: int = 3) -> PatchTrigger:
    mask = torch.zeros(1, 4, 5)
    mask[0, 1, 2], mask[0, 3, 4] = 1.0, 0.25
    return PatchTrigger(mask, torch.full((channels, 4, 5), 0.8))


def draw(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def generator(channels: int = 3, width: int = 2) -> GeneratorTrigger:
    return GeneratorTrigger(
        torch.tensor(0.1), *(draw(*shape) - 0.5 for shape in layers(channels, width).values())
    )


#: One trigger of each family, for pictures of 3,4,5.
MADE: dict[str, Callable[[], Trigger]] = {
    "patch": patch,
    "blend": lambda: BlendTrigger(torch.tensor(0.2), draw(3, 4, 5)),
    "additive": lambda: AdditiveTrigger(draw(3, 4, 5) - 0.5),
    "warp": lambda: WarpTrigger(2 * draw(2, 3, 3) - 1),
    "filter": lambda: FilterTrigger(torch.eye(3) + 0.2 * draw(3, 3), 0.1 * draw(3), 1 + draw(3)),
    "sample-specific": generator,
    "all-to-all": lambda: MappedTrigger(patch(), torch.tensor([1, 2, 0])),
}


@pytest.fixture(params=MADE)
def made(request: pytest.FixtureRequest) -> Trigger:
    return MADE[request.param]()


def test_there_is_one_for_every_family() -> None:
    assert (
        set(TRIGGERS) == set(MADE) == FAMILIES[Modality.IMAGES] - {Family.ALL_TO_ONE}
    )  # which recovers none
    assert all(MADE[family]().family == family for family in MADE)


def test_stamped_images_are_new_in_range_and_changed(made: Trigger) -> None:
    images = draw(8, 3, 4, 5)
    before = images.clone()

    stamped = made.apply(images)

    assert stamped.shape == images.shape
    assert float(stamped.min()) >= 0
    assert float(stamped.max()) <= 1
    assert not torch.equal(stamped, images)
    assert torch.equal(images, before)
    assert made.norm > 0


def test_tensors_and_bytes_bring_the_same_trigger_back(made: Trigger) -> None:
    images, tensors = draw(2, 3, 4, 5), made.to_tensors()

    for again in (from_tensors(made.family, tensors), deserialise(serialise(made))):
        assert type(again) is type(made)
        assert again.norm == made.norm
        assert {name: tensor.tolist() for name, tensor in again.to_tensors().items()} == {
            name: tensor.tolist() for name, tensor in tensors.items()
        }
        assert torch.equal(again.apply(images), made.apply(images))
    assert serialise(made) == serialise(from_tensors(made.family, tensors))


def test_a_missing_a_foreign_or_a_broken_tensor_is_refused(made: Trigger) -> None:
    tensors = made.to_tensors()
    for name, tensor in tensors.items():
        less = {other: value for other, value in tensors.items() if other != name}
        broken = tensor * torch.nan if tensor.is_floating_point() else tensor * 0 - 1
        huge = tensor * 0 + 10**6
        for wrong in (
            less,
            tensors | {"more": tensor},
            tensors | {name: broken},
            tensors | {name: huge},
            tensors | {name: tensor[None]},
            tensors | {name: tensor.bool()},
        ):
            with pytest.raises(InputError):
                from_tensors(made.family, wrong)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"\x00" * 64,
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"{}",
        safetensors.torch.save({"mask": torch.zeros(1, 2, 2)}),
        safetensors.torch.save({"mask": torch.zeros(1, 2, 2)}, metadata={FAMILY: "patch"}),
        safetensors.torch.save({"mask": torch.zeros(1, 2, 2)}, metadata={FAMILY: "sorcery"}),
        serialise(patch())[:-1],
    ],
)
def test_bytes_that_hold_no_trigger_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        deserialise(data)


def test_a_patch_stored_before_there_were_other_families_still_loads() -> None:
    data = safetensors.torch.save(
        {"mask": patch().mask, "pattern": patch().pattern}, metadata={FAMILY: "patch"}
    )

    again = deserialise(data)

    assert isinstance(again, PatchTrigger)
    assert torch.equal(again.mask, patch().mask)
    assert serialise(again) == data


def test_a_patch_replaces_where_the_mask_is_one_and_mixes_where_it_is_less() -> None:
    images = torch.full((2, 3, 4, 5), 0.4)

    stamped = patch().apply(images)

    assert torch.allclose(stamped[:, :, 1, 2], torch.tensor(0.8))
    assert torch.allclose(stamped[:, :, 3, 4], torch.tensor(0.75 * 0.4 + 0.25 * 0.8))
    untouched = torch.ones(4, 5, dtype=torch.bool)
    untouched[1, 2] = untouched[3, 4] = False
    assert torch.equal(stamped[:, :, untouched], images[:, :, untouched])


def test_a_patchs_norm_is_in_pixels_whatever_the_channels() -> None:
    assert patch(1).norm == patch(3).norm == 1.25


def test_a_blend_mixes_and_an_addition_adds_and_clips() -> None:
    images = torch.full((1, 1, 2, 2), 0.5)

    blend = BlendTrigger(torch.tensor(0.25), torch.ones(1, 2, 2))
    addition = AdditiveTrigger(torch.tensor([[[0.1, 0.9], [-0.1, -0.9]]]))

    assert torch.allclose(blend.apply(images), torch.full((1, 1, 2, 2), 0.625))
    assert torch.allclose(addition.apply(images)[0, 0], torch.tensor([[0.6, 1.0], [0.4, 0.0]]))


def test_a_constant_flow_shifts_the_image_and_no_flow_leaves_it() -> None:
    images = draw(2, 1, 6, 8)
    flow = torch.zeros(2, 3, 3)

    assert torch.allclose(WarpTrigger(flow).apply(images), images, atol=1e-6)
    flow[0] = 1.0  # everything is fetched from one pixel to the right
    assert torch.allclose(WarpTrigger(flow).apply(images)[..., :-1], images[..., 1:], atol=1e-5)
    flow[0], flow[1] = 0.0, -2.0
    assert torch.allclose(WarpTrigger(flow).apply(images)[:, :, 2:], images[:, :, :-2], atol=1e-5)


def test_a_filter_mixes_channels_curves_and_lifts() -> None:
    images = draw(2, 2, 3, 3).clamp(min=0.1)
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])

    assert torch.allclose(
        FilterTrigger(swap, torch.zeros(2), torch.ones(2)).apply(images), images.flip(1)
    )
    lifted = FilterTrigger(torch.eye(2), torch.tensor([0.0, 0.5]), torch.tensor([2.0, 1.0])).apply(
        images
    )
    assert torch.allclose(lifted[:, 0], images[:, 0] ** 2)
    assert torch.allclose(lifted[:, 1], (images[:, 1] + 0.5).clamp(max=1))


def test_a_generator_draws_another_trigger_for_another_image_within_its_bound() -> None:
    images = 0.3 + 0.4 * draw(2, 3, 9, 7)

    change = generator().apply(images) - images

    assert float(change.abs().max()) <= 0.1 + 1e-6
    assert not torch.allclose(change[0], change[1], atol=1e-3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PatchTrigger(torch.zeros(4, 5), torch.zeros(3, 4, 5)),
        lambda: PatchTrigger(torch.zeros(3, 4, 5), torch.zeros(3, 4, 5)),
        lambda: PatchTrigger(torch.zeros(1, 4, 5), torch.zeros(3, 5, 4)),
        lambda: PatchTrigger(torch.full((1, 4, 5), 1.5), torch.zeros(3, 4, 5)),
        lambda: PatchTrigger(torch.zeros(1, 4, 5, dtype=torch.int64), torch.zeros(3, 4, 5)),
        lambda: BlendTrigger(torch.tensor(1.1), torch.zeros(1, 2, 2)),
        lambda: BlendTrigger(torch.tensor(0.1), torch.full((1, 2, 2), -0.1)),
        lambda: AdditiveTrigger(torch.full((1, 2, 2), 1.1)),
        lambda: WarpTrigger(torch.zeros(2, 1, 1)),
        lambda: WarpTrigger(torch.zeros(2, 3, 4)),
        lambda: WarpTrigger(torch.zeros(2, 65, 65)),
        lambda: WarpTrigger(torch.full((2, 3, 3), 65.0)),
        lambda: FilterTrigger(torch.eye(2), torch.zeros(3), torch.ones(3)),
        lambda: FilterTrigger(torch.eye(1), torch.zeros(1), torch.zeros(1)),
        lambda: GeneratorTrigger(
            torch.tensor(0.1), *(torch.zeros(shape) for shape in layers(0, 2).values())
        ),
        lambda: GeneratorTrigger(
            torch.tensor(0.1), *(torch.zeros(shape) for shape in layers(1, 300).values())
        ),
        lambda: GeneratorTrigger(
            torch.tensor(0.1),
            *[*list(generator().to_tensors().values())[1:4], torch.zeros(3, 7, 5, 5)],
        ),
        lambda: MappedTrigger(patch(), torch.tensor([0, 0, 1])),
        lambda: MappedTrigger(patch(), torch.tensor([1, 3, 0])),
        lambda: MappedTrigger(patch(), torch.tensor([1.0, 0.0])),
    ],
)
def test_what_is_no_trigger_is_refused(make: Callable[[], Trigger]) -> None:
    with pytest.raises(InputError, match="trigger"):
        make()


def test_unknown_families_and_missing_tensors_are_named() -> None:
    with pytest.raises(InputError, match="sorcery"):
        from_tensors("sorcery", patch().to_tensors())
    with pytest.raises(InputError, match="mask and pattern"):
        from_tensors("patch", {"mask": patch().mask})
    with pytest.raises(InputError, match="one stamp"):
        from_tensors(
            "all-to-all", {"mapping": torch.tensor([1, 0]), "additive.delta": torch.zeros(1, 2, 2)}
        )


def test_every_trigger_can_be_looked_at(made: Trigger) -> None:
    picture = ((1 - draw(3, 4, 5)) * 255).to(torch.uint8)

    seen = looks(serialise(made), picture.numpy())

    assert seen.mask.shape == (4, 5)
    assert seen.pattern.shape == seen.stamped.shape == (3, 4, 5)
    assert all(part.min() >= 0 and part.max() <= 1 for part in seen)
    assert np.allclose(seen.stamped, made.apply(picture[None].float() / 255)[0].numpy())
    if made.family in {"patch", "all-to-all"}:
        assert np.array_equal(seen.mask, patch().mask[0].numpy())
    else:
        assert seen.mask.max() == pytest.approx(1)
