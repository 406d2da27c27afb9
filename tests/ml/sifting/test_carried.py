"""Triggers of every form, read off accused images and chosen by how they explain them."""

import pytest
import torch
from torch import Tensor

from guard.core.errors import Cancelled
from guard.ml.cleanset import Labelled
from guard.ml.sifting import carried as forms
from guard.ml.sifting import moments
from guard.ml.sifting.carried import carried, stronger
from guard.ml.sifting.whitened import Clean, Spread, cut
from guard.ml.triggers import AdditiveTrigger, BlendTrigger, PatchTrigger, Trigger, WarpTrigger
from guard.ml.triggers.warp import MOST_SHIFT

SIZE, CLASSES = 12, 4


def images(count: int, seed: int) -> Labelled:
    """A soft bar for each class, at a place that varies, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    where = labels * 2.5 + 2 + 0.5 * torch.randn(count, generator=generator)
    across = torch.arange(SIZE)[None] - where[:, None]
    bars = 0.6 * torch.exp(-(across**2) / 3)[:, None, None, :].expand(-1, 1, SIZE, SIZE)
    turned = (labels % 2 == 0)[:, None, None, None]
    pixels = torch.where(turned, bars, bars.transpose(2, 3)) + 0.2
    pixels = pixels + 0.03 * torch.randn(pixels.shape, generator=generator)
    return Labelled((pixels.clamp(0, 1) * 255).round().to(torch.uint8), labels)


def suspects(change: Trigger, *, label: int = 0, clean: int = 4, count: int = 120) -> Labelled:
    data = images(count, 1)
    changed = (change.apply(data.floats()) * 255).round().to(torch.uint8)
    changed[:clean] = data.images[:clean]
    return Labelled(changed, torch.full_like(data.labels, label))


def noise() -> Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def patch() -> PatchTrigger:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 8:11, 1:4] = 1
    return PatchTrigger(mask, (noise() > 0.5).float())


def flow() -> WarpTrigger:
    return WarpTrigger(4 * torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(2)) - 2)


@pytest.mark.parametrize(
    "change",
    [patch(), BlendTrigger(torch.tensor(0.25), noise()), AdditiveTrigger(0.3 * noise()), flow()],
    ids=["patch", "blend", "additive", "warp"],
)
def test_each_form_does_to_other_images_what_the_true_trigger_does(change: Trigger) -> None:
    data, sources = suspects(change), images(120, 1).labels
    fresh = images(60, 7).floats()

    found = carried(data.pick(sources != 0), sources[sources != 0], Clean(images(400, 2)))

    assert found is not None
    assert found.relabelled
    assert found.trigger.family == change.family
    wanted = change.apply(fresh)
    before, after = (
        (wanted - fresh).abs().mean(),
        (wanted - found.trigger.apply(fresh)).abs().mean(),
    )
    assert after < 0.4 * before


def test_images_that_only_seem_to_come_from_elsewhere_are_set_beside_their_label() -> None:
    change = AdditiveTrigger(0.3 * noise())
    own = images(240, 1)
    own = own.pick(own.labels == 1)
    data = Labelled((change.apply(own.floats()) * 255).round().to(torch.uint8), own.labels)

    found = carried(data, torch.full((len(data),), 3), Clean(images(400, 2)))

    assert found is not None
    assert not found.relabelled
    assert float((found.trigger.apply(own.floats()) - data.floats()).abs().mean()) < 0.05


def test_images_that_a_map_moved_have_one_trigger_in_common() -> None:
    data, sources = suspects(patch()), images(120, 1).labels
    data = Labelled(data.images, (sources + 1) % CLASSES)

    found = carried(data, sources, Clean(images(400, 2)), mapped=True)

    assert found is not None
    assert found.trigger.family == "patch"


def test_too_few_images_show_no_trigger() -> None:
    data, sources = suspects(patch()), images(120, 1).labels

    assert carried(data.pick(torch.arange(8)), sources[:8], Clean(images(400, 2))) is None
    few = images(400, 2).pick(torch.arange(400) % CLASSES > 0)  # none of the label's own
    assert carried(data, torch.full_like(sources, -1), Clean(few)) is None


def test_twice_as_strong_is_twice_the_change_and_a_patch_covers_what_it_covers() -> None:
    plain = torch.full((1, 1, SIZE, SIZE), 0.5)
    blend, added = BlendTrigger(torch.tensor(0.2), noise()), AdditiveTrigger(0.1 * noise())

    for one in (blend, added):
        once, twice = one.apply(plain) - plain, stronger(one).apply(plain) - plain
        assert torch.allclose(twice, 2 * once, atol=1e-5)
    assert stronger(flow()).norm == pytest.approx(2 * flow().norm)
    assert stronger(patch()) is not None
    assert torch.equal(stronger(patch()).apply(plain), patch().apply(plain))


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> int:
    """A quarter of the clean images fit, as of large images or of many."""
    monkeypatch.setattr(moments, "MOST_VALUES", 100 * SIZE * SIZE)
    return 100


def test_what_does_not_fit_memory_is_cut_within_each_class(little_memory: int) -> None:
    """Sorted images that lost their last classes made a pattern a blend of .86."""
    change = AdditiveTrigger(0.3 * noise())
    data, sources = suspects(change), images(120, 1).labels
    last, fresh = sources > 1, images(60, 7).floats()
    sorted_ones = images(400, 2).pick(torch.argsort(images(400, 2).labels, stable=True))

    spread = Spread(sorted_ones)
    found = carried(data.pick(last), sources[last], Clean(sorted_ones))

    assert spread.covered(data.pick(last), sources[last]) < forms.SURE_BLEND
    assert len(spread.sizes) <= little_memory
    assert found is not None
    wanted = change.apply(fresh)
    away = (wanted - found.trigger.apply(fresh)).abs().mean() / (wanted - fresh).abs().mean()
    assert float(away) < 0.4


def test_a_cut_keeps_as_many_of_each_class_and_all_of_a_rare_one() -> None:
    labels = torch.tensor([0] * 90 + [1] * 7 + [2] * 2 + [3])
    data = Labelled(torch.arange(100)[:, None, None, None].to(torch.uint8), labels)

    kept = cut(data, 20)

    assert torch.bincount(kept.labels).tolist() == [10, 7, 2, 1]
    assert torch.equal(kept.images.flatten(), kept.images.flatten().sort().values)
    assert cut(data, 100) is data


@pytest.mark.parametrize("label", [0, 3])
def test_a_class_without_clean_images_is_as_good_as_unknown(label: int) -> None:
    """Its images were left out of one of two ratings that are compared one by one."""
    data, sources = suspects(patch(), label=label), images(120, 1).labels
    clean = images(400, 2)
    clean = clean.pick((clean.labels != 3) & (torch.arange(400) < 300))
    more = Labelled(clean.images[:9], torch.full((9,), 5))  # nor is any labelled 4
    clean = Labelled(torch.cat([clean.images, more.images]), torch.cat([clean.labels, more.labels]))

    found = carried(data.pick(sources != 0), sources[sources != 0], Clean(clean))

    assert found is not None
    assert found.relabelled
    assert found.trigger.family == "patch"


def test_no_flow_is_larger_than_a_warp_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "RATE", 1e4)
    monkeypatch.setattr(forms, "STEPS", 3)

    def large(data: Labelled) -> Labelled:
        return Labelled(data.images.repeat(1, 1, 8, 8), data.labels)

    assert stronger(WarpTrigger(torch.full((2, 3, 3), 40.0))).norm == MOST_SHIFT
    beside = Clean(large(images(80, 2)))
    assert carried(large(suspects(patch(), count=60)), images(60, 1).labels, beside) is not None


def test_the_reading_reports_how_far_it_is_and_can_be_stopped() -> None:
    data, sources = suspects(patch()), images(120, 1).labels
    clean = Clean(images(400, 2))

    seen = list[float]()

    def watch(done: float, note: str = "") -> None:
        del note
        seen.append(done)

    def stop(done: float, note: str = "") -> None:
        del done, note
        raise Cancelled("enough")

    assert carried(data, sources, clean, progress=watch) is not None
    assert seen == sorted(seen)
    assert 0 <= seen[0] < seen[-1] <= 1
    with pytest.raises(Cancelled):
        carried(data, sources, clean, progress=stop)
