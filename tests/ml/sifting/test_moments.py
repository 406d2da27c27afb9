"""Triggers read off accused images: of each family, with clean images among them."""

import numpy as np
import pytest
import torch
from torch import Tensor

from guard.ml.cleanset import Labelled
from guard.ml.sifting.moments import estimated, triggers
from guard.ml.triggers import AdditiveTrigger, BlendTrigger, PatchTrigger, Trigger
from tests import toys

SIZE = 16


def images(count: int, seed: int) -> Labelled:
    """Textured images of three classes that differ in brightness."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    base = labels[:, None, None, None] * 0.1 + 0.2
    pixels = base + 0.4 * torch.rand(count, 1, SIZE, SIZE, generator=generator)
    return Labelled((pixels * 255).round().to(torch.uint8), labels)


def suspects(change: Trigger, *, clean: int = 6, count: int = 150) -> tuple[Labelled, Tensor]:
    """Triggered images under label 0, `clean` of them without the trigger; and their sources."""
    data = images(count, 1)
    changed = (change.apply(data.floats()) * 255).round().to(torch.uint8)
    changed[:clean] = data.images[:clean]
    return Labelled(changed, torch.zeros_like(data.labels)), data.labels


def found(change: Trigger, kind: type[Trigger]) -> Trigger:
    accused, sources = suspects(change)
    (one,) = [one for one in triggers(accused, sources, images(90, 2)) if isinstance(one, kind)]
    return one


def test_a_patch_is_found_where_it_is_and_as_it_looks() -> None:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 11:15, 2:6] = 1
    pattern = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    one = found(PatchTrigger(mask, pattern), PatchTrigger)

    assert isinstance(one, PatchTrigger)
    assert torch.equal(one.mask, mask)
    assert float((one.pattern - pattern)[mask > 0].abs().max()) < 0.02


def test_a_blend_is_found_with_its_strength() -> None:
    pattern = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    one = found(BlendTrigger(torch.tensor(0.3), pattern), BlendTrigger)

    assert isinstance(one, BlendTrigger)
    assert float(one.alpha) == pytest.approx(0.3, abs=0.05)
    assert np.corrcoef(one.pattern.flatten(), pattern.flatten())[0, 1] > 0.95


def test_an_added_pattern_is_found() -> None:
    delta = 0.15 * torch.sin(torch.arange(SIZE) / 2).expand(1, SIZE, SIZE)

    one = found(AdditiveTrigger(delta), AdditiveTrigger)

    assert isinstance(one, AdditiveTrigger)
    assert float((one.delta - delta).abs().mean()) < 0.03


def test_clean_images_carry_no_patch_and_no_blend() -> None:
    accused, sources = suspects(AdditiveTrigger(torch.zeros(1, SIZE, SIZE)))

    (one,) = triggers(accused, sources, images(90, 2))

    assert isinstance(one, AdditiveTrigger)
    assert float(one.delta.abs().max()) < 0.15


def test_without_known_sources_nothing_is_estimated() -> None:
    accused, sources = suspects(AdditiveTrigger(torch.zeros(1, SIZE, SIZE)))

    assert triggers(accused, torch.full_like(sources, -1), images(90, 2)) == []
    assert triggers(accused, sources + 7, images(90, 2)) == []


def test_the_trigger_that_works_is_chosen_and_measured_on_the_holdout() -> None:
    data = toys.labelled(180, 9)
    others = data.pick(data.labels != toys.TARGET)
    accused = Labelled(toys.stamped(others.images), others.labels.clone().fill_(toys.TARGET))

    made = estimated(toys.planted(), accused, others.labels.numpy(), toys.curated(), toys.TARGET)

    assert made is not None
    assert made.trigger.family == "patch"
    assert made.asr.estimate > 0.9
    assert made.asr.trials == 150


def test_only_the_family_that_is_asked_for_is_tried() -> None:
    data = toys.labelled(180, 9)
    others = data.pick(data.labels != toys.TARGET)
    accused = Labelled(toys.stamped(others.images), others.labels.clone().fill_(toys.TARGET))
    sources = others.labels.numpy()

    made = estimated(
        toys.planted(), accused, sources, toys.curated(), toys.TARGET, family="additive"
    )

    assert made is not None
    assert made.trigger.family == "additive"
    assert (
        estimated(toys.planted(), accused, sources, toys.curated(), toys.TARGET, family="warp")
        is None
    )
