"""Only the layer that is put in is trained, and it is taught what shared distillation teaches."""

import torch

from guard.defenses.distilled_polarizer import DistilledPolarizer
from guard.ml.architectures import ImageModel
from tests import toys

QUICK = DistilledPolarizer(looks=1, search_steps=20, size_steps=5, steps=6, settle_steps=4)


def test_the_networks_own_weights_stay_and_the_manifest_names_the_layer() -> None:
    model = toys.network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    repaired = QUICK(model, toys.clean_set(), seed=0)

    assert isinstance(repaired, ImageModel)
    assert repaired.manifest.polarizer is not None
    after = repaired.state_dict()
    kept = [name for name in after if "polarizer" not in name]
    own = {name.replace(".layer.", "."): name for name in kept}
    assert len(own) == len(before)
    assert all(torch.equal(after[own[name]], tensor) for name, tensor in before.items())
    moved = next(tensor for name, tensor in after.items() if name.endswith("polarizer.weight"))
    assert not torch.equal(moved, torch.eye(len(moved)))
