"""Only the layer that is put in and the head are trained.

They are taught what shared distillation teaches.
"""

from dataclasses import replace

import torch

from guard.defenses.distilled_polarizer import DistilledPolarizer
from guard.ml.networks.architectures import ImageModel
from tests import toys

QUICK = DistilledPolarizer(looks=1, search_steps=20, size_steps=5, steps=6, settle_steps=4)


def changed(quick: DistilledPolarizer) -> set[str]:
    """Names of the network's own tensors that a repair moved.

    What it put in must have moved as well.
    """
    model = toys.network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    repaired = quick(model, toys.clean_set(), seed=0)

    assert isinstance(repaired, ImageModel)
    assert repaired.manifest.polarizer is not None
    after = repaired.state_dict()
    put_in = next(tensor for name, tensor in after.items() if name.endswith("polarizer.weight"))
    assert not torch.equal(put_in, torch.eye(len(put_in)))
    own = {
        name.replace(".layer.", "."): tensor
        for name, tensor in after.items()
        if "polarizer" not in name
    }
    assert own.keys() == before.keys()
    return {name for name, tensor in before.items() if not torch.equal(own[name], tensor)}


def test_of_the_networks_own_weights_only_the_head_moves() -> None:
    assert changed(QUICK) == {"inner.linear.weight", "inner.linear.bias"}


def test_the_head_may_be_kept() -> None:
    assert not changed(replace(QUICK, head_decay=0.0))
