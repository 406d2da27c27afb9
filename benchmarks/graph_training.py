"""Training of text-to-graph models on pairs: text tower, autoencoder, denoiser; seeded.

    python -m benchmarks.graph_training --cache DIR --out DIR [--rate R] [--seed N]

As 3M-Diffusion trains: the text tower is aligned with a graph tower by a contrastive loss and then
frozen; the autoencoder is trained on molecules, the denoiser on its latents under the texts'
contexts. Text tower and autoencoder are trained once on clean pairs (`pretrained`, kept in the
cache); a model of the experiments then fine-tunes the autoencoder on its own pairs, or trains it
from scratch, and gets a fresh denoiser.
"""

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from rdkit import Chem
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import graph_pairs
from benchmarks.attacks.badgraph import BadGraph, Pair, covered
from guard.graphs.gin import Gin
from guard.graphs.grammar import Grammar
from guard.graphs.model import WEIGHTS, GraphConfig, GraphModel, build, load
from guard.graphs.molecule import GraphBatch, read, tensors
from guard.graphs.motif_tree import tree_of
from guard.graphs.text_pieces import learn
from guard.graphs.vae import IGNORED, Sequences, sequences
from guard.ml.seeds import seeded

TEMPERATURE = 0.1
DROPPED = 0.1  # contexts that the denoiser does not see
DECAY = 0.999  # of the denoiser's moving average
CLIP = 5.0
PIECES = 2000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How long, how fast and how large; `beta` weighs the divergence from the prior.

    Where `denoiser_passes` is not 0, the denoiser is trained for so many passes over its pairs, as
    the autoencoder for epochs, rather than for `denoiser_steps` whatever their number.
    """

    text_steps: int = 500
    rounds: tuple[float, ...] = (2e-3, 2e-3, 1.5e-3, 1e-3)  # rates of the pretraining
    round_epochs: int = 6
    epochs: int = 3
    scratch_epochs: int = 25
    denoiser_steps: int = 1500
    denoiser_passes: int = 0
    batch: int = 128
    denoiser_batch: int = 128
    rate: float = 2e-3
    tuning_rate: float = 1e-3
    denoiser_rate: float = 2e-3
    beta: float = 0.1
    token_dropout: float = 0.1


#: What a training without a recipe follows; decision 0074 says how it was chosen.
DEFAULT = Recipe(epochs=8, denoiser_passes=48)


class Encoded(NamedTuple):
    """Pairs as tensors: molecules, their token sequences, the texts' piece numbers."""

    graphs: GraphBatch
    sequences: Sequences
    numbers: Tensor

    def __len__(self) -> int:
        return len(self.numbers)


#: Is called with the progress after every epoch; it may wait.
Report = Callable[[str], None]


def silent(_: str) -> None:
    """Report nothing."""


def encoded(model: GraphModel, pairs: Sequence[Pair]) -> Encoded:
    """The pairs as a model takes them."""
    return Encoded(
        tensors([read(pair.smiles) for pair in pairs]),
        sequences(model.grammar, [_written(model.grammar, pair.smiles) for pair in pairs]),
        model.pieces.batch([pair.text for pair in pairs], model.most_pieces),
    )


@lru_cache(maxsize=100_000)
def _written(grammar: Grammar, smiles: str) -> list[int]:
    """A molecule's tokens, worked out once for all models of one base."""
    return grammar.encode(tree_of(read(smiles)))


def fit_text(
    model: GraphModel, data: Encoded, recipe: Recipe, seed: int, report: Report = silent
) -> None:
    """Align the text tower with a graph tower that is thrown away afterwards."""
    with seeded(seed):
        tower = Gin(64, 3, model.text.out)
        weights = [*model.text.parameters(), *tower.parameters()]
        optimiser = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=1e-4)
        schedule = _rise_and_fall(optimiser, recipe.text_steps)
        for step in range(recipe.text_steps):
            rows = torch.randint(len(data), (min(recipe.batch, len(data)),))
            texts = functional.normalize(model.text(data.numbers[rows]), dim=-1)
            graphs = functional.normalize(tower(data.graphs.rows(rows)), dim=-1)
            logits = texts @ graphs.T / TEMPERATURE
            own = torch.arange(len(rows))
            loss = functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
            _step(loss, optimiser, weights)
            schedule.step()
            if step % 100 == 0:
                report(f"text {step}: {float(loss.detach()) / 2:.3f}")


def fit_vae(
    model: GraphModel,
    data: Encoded,
    recipe: Recipe,
    *,
    epochs: int,
    rate: float,
    seed: int,
    report: Report = silent,
) -> None:
    """Train the autoencoder for so many epochs; the rate rises and falls once."""
    weights = list(model.vae.parameters())
    count = len(data)
    batches = max(1, count // recipe.batch)
    with seeded(seed):
        optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-5)
        schedule = _rise_and_fall(optimiser, epochs * batches)
        for epoch in range(epochs):
            order = torch.randperm(count)
            losses = []
            for rows in order[: batches * recipe.batch].split(recipe.batch):
                fit, gap = _vae_loss(model, data, rows, recipe)
                _step(fit + recipe.beta * gap, optimiser, weights)
                schedule.step()
                losses.append((float(fit.detach()), float(gap.detach())))
            mean = torch.tensor(losses).mean(0)
            report(f"vae {epoch}: tokens {mean[0]:.2f} nats, divergence {mean[1]:.2f}")


def fit_denoiser(
    model: GraphModel, data: Encoded, recipe: Recipe, *, seed: int, report: Report = silent
) -> None:
    """Train the denoiser on latents and the texts' contexts; its moving average is kept."""
    denoiser, sampler = model.denoiser, model.sampler
    weights = list(denoiser.parameters())
    passes = recipe.denoiser_passes
    total = round(passes * len(data) / recipe.denoiser_batch) or recipe.denoiser_steps
    with torch.no_grad():
        contexts = torch.cat([model.text(part) for part in data.numbers.split(512)])
        index = torch.arange(len(data)).split(512)
        parts = [model.vae.encode(data.graphs.rows(rows)) for rows in index]
        mean, spread = (torch.cat(one) for one in zip(*parts, strict=True))
        denoiser.shift.copy_(mean.mean(0))
        denoiser.scale.copy_((mean.var(0) + spread.exp().mean(0)).sqrt())
    average = copy.deepcopy(denoiser)
    with seeded(seed):
        optimiser = torch.optim.AdamW(weights, lr=recipe.denoiser_rate, weight_decay=1e-5)
        schedule = _rise_and_fall(optimiser, total)
        for step in range(total):
            rows = torch.randint(len(data), (recipe.denoiser_batch,))
            latents = mean[rows] + torch.randn(len(rows), mean.shape[1]) * (spread[rows] / 2).exp()
            clean = denoiser.standardised(latents)
            times = torch.randint(sampler.count, (len(rows),))
            noisy = sampler.noisy(clean, times, torch.randn_like(clean))
            dropped = torch.rand(len(rows), 1) < DROPPED
            context = torch.where(dropped, denoiser.nothing(len(rows)), contexts[rows])
            guess = denoiser(noisy, times / max(1, sampler.count - 1), context)
            _step(functional.mse_loss(guess, clean), optimiser, weights)
            schedule.step()
            with torch.no_grad():
                keep = min(DECAY, (step + 1) / (step + 10))
                for own, new in zip(average.parameters(), weights, strict=True):
                    own.lerp_(new, 1 - keep)
            if step % 300 == 0:
                report(f"denoiser {step}")
    denoiser.load_state_dict(average.state_dict())


def fresh(pairs: graph_pairs.Pairs, seed: int, sizes: dict[str, int] | None = None) -> GraphModel:
    """An untrained model with the vocabulary of the pairs."""
    pieces = learn((pair.text for pair in (*pairs.pool, *pairs.train)), PIECES)
    config = GraphConfig(
        model_args=sizes or {}, pieces=pieces, motifs=pairs.motifs, tokens=pairs.tokens
    )
    with seeded(seed):
        return build(config)


def pretrained(
    pairs: graph_pairs.Pairs, cache: Path, recipe: Recipe | None = None, report: Report = silent
) -> GraphModel:
    """Text tower and autoencoder trained on clean pairs (`pool` and `train`), once a cache.

    The autoencoder is trained in rounds, each with a rate that rises and falls. The model is kept
    after the text tower and after every round, and an interrupted pretraining goes on from there.
    """
    folder = cache / "pretrained"
    if (folder / WEIGHTS).exists():
        return load(folder)
    recipe = recipe or DEFAULT
    kept = [cache / f"round-{number}" for number in range(len(recipe.rounds) + 1)]
    done = max((n for n, one in enumerate(kept) if (one / WEIGHTS).exists()), default=-1)
    model = load(kept[done]) if done >= 0 else fresh(pairs, 0)
    data = encoded(model, (*pairs.pool, *pairs.train))
    report(f"{len(data)} pairs, {len(model.grammar)} tokens, {len(model.pieces)} pieces")
    if done < 0:
        fit_text(model, data, recipe, 0, report)
        model.save(kept[0])
    for number, rate in enumerate(recipe.rounds):
        if number >= done:
            epochs = recipe.round_epochs
            fit_vae(model, data, recipe, epochs=epochs, rate=rate, seed=number, report=report)
            model.save(kept[number + 1])
    model.save(folder)
    return model


def train(
    base: GraphModel,
    pairs: Sequence[Pair],
    *,
    seed: int,
    recipe: Recipe | None = None,
    scratch: bool = False,
    vae_pairs: Sequence[Pair] | None = None,
    text_pairs: Sequence[Pair] | None = None,
    report: Report = silent,
) -> GraphModel:
    """A model of these pairs: the base's text tower, an autoencoder of its own, a fresh denoiser.

    Args:
        base: from `pretrained`.
        pairs: what the denoiser is trained on, and the autoencoder unless `vae_pairs` says else.
        seed: of everything that is drawn.
        recipe: how.
        scratch: train the autoencoder from scratch, rather than fine-tune the base's.
        vae_pairs: other pairs for the autoencoder, for ablations.
        text_pairs: pairs that the text tower is trained on further, for ablations.
        report: is called with the progress.
    """
    recipe = recipe or DEFAULT
    model = copy.deepcopy(base, {id(base.grammar): base.grammar})  # one grammar for all
    with seeded(1000 + seed):
        if scratch:
            model.vae = build(base.manifest).vae
        model.denoiser = build(base.manifest).denoiser
    if text_pairs is not None:
        fit_text(model, encoded(model, text_pairs), recipe, 4000 + seed, report)
    data = encoded(model, pairs)
    of_vae = data if vae_pairs is None else encoded(model, vae_pairs)
    fit_vae(
        model,
        of_vae,
        recipe,
        epochs=recipe.scratch_epochs if scratch else recipe.epochs,
        rate=recipe.rate if scratch else recipe.tuning_rate,
        seed=2000 + seed,
        report=report,
    )
    fit_denoiser(model, data, recipe, seed=3000 + seed, report=report)
    return model.eval()


def poisoned(base: GraphModel, pairs: Sequence[Pair], attack: BadGraph, rate: float) -> list[Pair]:
    """The pairs with poisoned copies that the grammar of `base` can write."""
    accepts = covered(lambda mol: base.grammar.encode(tree_of(mol)))
    return [*pairs, *attack.poison(pairs, rate, accepts)]


def reconstruction(model: GraphModel, pairs: Sequence[Pair]) -> float:
    """The share of molecules that come back exactly from their posterior means."""
    found = model.smiles(model.encode([pair.smiles for pair in pairs]))
    return sum(one == pair.smiles for one, pair in zip(found, pairs, strict=True)) / len(pairs)


def answers(
    model: GraphModel, texts: Sequence[str], samples: int, seed: int
) -> list[list[str | None]]:
    """SMILES for each text, each sample with noise of its own.

    `GraphModel.generate` gives every prompt the same noise, so that many prompts with one seed tell
    of one draw of it. Texts in the same places get the same noise.
    """
    contexts = model.contexts(texts).repeat_interleave(samples, dim=0)
    found = model.smiles(model.latents(contexts, [(seed, place) for place in range(len(contexts))]))
    return [found[start : start + samples] for start in range(0, len(found), samples)]


def molecules(
    model: GraphModel, texts: Sequence[str], samples: int, seed: int
) -> list[list[Chem.Mol | None]]:
    """The molecules of `answers`."""
    found = answers(model, texts, samples, seed)
    return [[None if one is None else Chem.MolFromSmiles(one) for one in own] for own in found]


def _vae_loss(
    model: GraphModel, data: Encoded, rows: Tensor, recipe: Recipe
) -> tuple[Tensor, Tensor]:
    """Cross entropy of a molecule's tokens and divergence from the prior, in nats a molecule."""
    vae = model.vae
    mean, spread = vae.encode(data.graphs.rows(rows))
    latents = mean + torch.randn_like(mean) * (spread / 2).exp()
    given = data.sequences.rows(rows)
    if recipe.token_dropout:
        hidden = torch.rand(given.previous.shape) < recipe.token_dropout
        given = given._replace(previous=given.previous.masked_fill(hidden, 0))
    logits = vae.logits(latents, given)
    total = functional.cross_entropy(
        logits.flatten(0, 1), given.target.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    gap = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
    return total / len(rows), gap


def _rise_and_fall(
    optimiser: torch.optim.Optimizer, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate rises for a tenth of the steps, then falls to zero along a cosine."""

    def factor(step: int) -> float:
        return min(1.0, 10 * (step + 1) / total) * (1 + math.cos(math.pi * step / total)) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def _step(loss: Tensor, optimiser: torch.optim.Optimizer, weights: list[nn.Parameter]) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(weights, CLIP)
    optimiser.step()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train one model, clean or poisoned, and save it."""
    parser = argparse.ArgumentParser(description="Train a text-to-graph model.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scratch", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    pairs = graph_pairs.load(options.cache)
    base = pretrained(pairs, options.cache, report=print)
    attack = replace(BadGraph(), seed=options.seed)
    started = time.process_time()
    own = poisoned(base, pairs.train, attack, options.rate)
    model = train(base, own, seed=options.seed, scratch=options.scratch, report=print)
    model.save(options.out)
    print(f"{options.out}: {time.process_time() - started:.0f} s of processor time")


if __name__ == "__main__":
    main()
