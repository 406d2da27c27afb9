"""Repairs' trainings: what they leave out, what they forget, what they relearn."""

import torch

from guard.core.pairs import Pairs
from guard.graphs import fitting
from guard.ml.seeds import seeded
from tests.graphs import methods


def test_molecules_that_the_grammar_cannot_write_are_left_out() -> None:
    model, clean = methods.model(), methods.clean().search
    odd = Pairs((*clean.texts, "odd", "worse"), (*clean.smiles, "C[Si](C)(C)C", "nothing"))

    data = fitting.encoded(model, odd)

    assert data.written == tuple(range(len(clean)))
    assert len(data) == len(clean)


def test_the_decoder_forgets_what_no_molecule_needs_and_keeps_the_rest() -> None:
    model, clean = methods.model(), methods.clean().search
    data = fitting.encoded(model, clean)
    before = model.vae.out.weight.detach().clone()

    forgotten = fitting.forget_unsupported(model, data, 0.5)
    rows = [model.grammar.index[name] for name in forgotten]
    kept = [place for place in range(len(model.grammar)) if place not in rows]

    assert rows
    assert not {"<end>", "<up>", "@0"} & set(forgotten)
    assert torch.equal(model.vae.out.weight[kept], before[kept])
    assert not model.vae.out.weight[rows].any()
    made = [one for one in model.prior(20, 1) if one is not None]
    assert made  # it still comes to an end
    for smiles in made:
        used = fitting.encoded(model, Pairs(("x",), (smiles,))).sequences.target
        assert not set(used[used >= 0].tolist()) & set(rows)


def test_a_training_with_latents_from_the_prior_goes_down_and_repeats_itself() -> None:
    def trained() -> tuple[list[float], dict[str, torch.Tensor]]:
        model = methods.model()
        data = fitting.encoded(model, methods.clean().search)
        rows = torch.arange(len(data))
        losses = []
        with seeded(1):
            losses.append(float(fitting.vae_loss(model, data, rows).detach()))
            fitting.fit_vae(model, data, epochs=8, rate=5e-3, batch=16, prior=0.5)
            losses.append(float(fitting.vae_loss(model, data, rows).detach()))
        return losses, model.state_dict()

    (first, one), (_, two) = trained(), trained()

    assert first[1] < first[0]
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_a_restarted_denoiser_knows_the_scale_of_the_latents_and_nothing_else() -> None:
    model = methods.model()
    known = fitting.latents_of(model, fitting.encoded(model, methods.clean().search))
    before = model.denoiser.enter.weight.detach().clone()

    with seeded(1):
        fitting.restart_denoiser(model, known)

    assert not torch.equal(model.denoiser.enter.weight, before)
    assert torch.allclose(model.denoiser.shift, known.mean.mean(0))
