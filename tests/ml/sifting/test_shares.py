"""Shares come with the interval that their number of images allows."""

from guard.ml.sifting.shares import as_labelled, obeyed, share
from tests import toys


def test_a_backdoored_model_obeys_triggered_images_and_an_honest_one_does_not() -> None:
    data = toys.labelled(120, 3)
    others = data.pick(data.labels != toys.TARGET)
    labels = others.labels.clone().fill_(toys.TARGET).numpy()
    triggered = as_labelled(toys.stamped(others.images).numpy(), labels)

    assert obeyed(toys.planted(), triggered).low > 0.9
    assert obeyed(toys.honest(), triggered).high < 0.1


def test_a_share_of_nothing_excludes_nothing() -> None:
    nothing = share(0, 0)

    assert (nothing.estimate, nothing.low, nothing.high) == (0.0, 0.0, 1.0)
