"""Training of a model's autoencoder and denoiser on pairs, for repairs and reference models."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from guard.core.errors import InputError
from guard.core.pairs import Pairs
from guard.graphs.model import GraphModel
from guard.graphs.molecule import GraphBatch, read, tensors
from guard.graphs.motif_tree import tree_of
from guard.graphs.vae import IGNORED, Sequences, sequences

DROPPED = 0.1  # contexts that the denoiser does not see
DECAY = 0.999  # of the denoiser's moving average
CLIP = 5.0
BETA = 0.1  # weight of the divergence from the prior
_HIDDEN = 0.1  # previous tokens that the decoder does not see
_BATCH = 512
_FORGOTTEN = -20.0  # a logit under all others
Watch = Callable[[float], None]


class Encoded(NamedTuple):
    """Pairs as tensors on the CPU: molecules, their token sequences, the texts' piece numbers.

    `written` are the pairs' places: those that the model's grammar cannot write are left out.
    """

    graphs: GraphBatch
    sequences: Sequences
    numbers: Tensor
    written: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)


def encoded(model: GraphModel, pairs: Pairs) -> Encoded:
    """The pairs as the model takes them."""
    mols, tokens, written = [], [], []
    for place, smiles in enumerate(pairs.smiles):
        try:
            mol = read(smiles)
            numbers = model.grammar.encode(tree_of(mol))
        except InputError:
            continue
        mols.append(mol)
        tokens.append(numbers)
        written.append(place)
    texts = [pairs.texts[place] for place in written]
    return Encoded(
        tensors(mols),
        sequences(model.grammar, tokens),
        model.pieces.batch(texts, model.most_pieces),
        tuple(written),
    )


def fit_vae(
    model: GraphModel,
    data: Encoded,
    *,
    epochs: int,
    rate: float,
    batch: int = 128,
    noise: float = 1.0,
    prior: float = 0.0,
    watch: Watch = lambda _: None,
) -> None:
    """Train the autoencoder; the rate rises and falls once; draws from the global generator.

    Args:
        model: whose autoencoder is trained.
        data: what on.
        epochs: rounds over the data.
        rate: the largest learning rate.
        batch: molecules in a step.
        noise: standard deviations of the posterior that are added to its mean; more than 1 teaches
            the decoder to write clean molecules further away from them, too.
        prior: weight of a loss on latents from the prior, each of which shall be written as the
            molecule of the data that lies nearest.
        watch: called with the share done; may raise.
    """
    weights = list(model.vae.parameters())
    batch = min(batch, len(data))
    batches = len(data) // batch
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-5)
    schedule = rise_and_fall(optimiser, epochs * batches)
    with torch.enable_grad():
        for epoch in range(epochs):
            order = torch.randperm(len(data))[: batches * batch]
            means = latents_of(model, data).mean if prior else torch.zeros(0)
            for number, rows in enumerate(order.split(batch)):
                loss = vae_loss(model, data, rows, noise=noise)
                if prior:
                    loss = loss + prior * _prior_loss(model, data, means, batch)
                step(loss, optimiser, weights)
                schedule.step()
                watch((epoch + number / batches) / epochs)


def vae_loss(model: GraphModel, data: Encoded, rows: Tensor, *, noise: float = 1.0) -> Tensor:
    """Cross entropy of the tokens and divergence from the prior, in nats a molecule."""
    vae, device = model.vae, model.device
    mean, spread = vae.encode(data.graphs.rows(rows).to(device))
    latents = mean + noise * torch.randn_like(mean) * (spread / 2).exp()
    given = _moved(data.sequences.rows(rows), device)
    hidden = torch.rand(given.previous.shape, device=device) < _HIDDEN
    given = given._replace(previous=given.previous.masked_fill(hidden, 0))
    gap = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
    return written_loss(model, latents, given) + BETA * gap


def _prior_loss(model: GraphModel, data: Encoded, means: Tensor, count: int) -> Tensor:
    """Cross entropy of the nearest molecules' tokens for latents from the prior."""
    latents = torch.randn(count, means.shape[1]).to(means.device)
    nearest = torch.cdist(latents, means).argmin(1).cpu()
    return written_loss(model, latents, _moved(data.sequences.rows(nearest), means.device))


def forget_unsupported(model: GraphModel, data: Encoded, share: float) -> list[str]:
    """Take from the decoder what too few molecules of the data need; the tokens' names.

    A motif, or a way to bind one, that less than `share` (0..1) of the molecules hold is written
    only where nothing else is left: its row of the last layer is cleared.
    """
    target = data.sequences.target
    kinds = model.grammar.tokens
    rare = [
        place
        for place, token in enumerate(kinds)
        if token.motif and int((target == place).any(1).sum()) < share * len(data)
    ]
    with torch.no_grad():
        model.vae.out.weight[rare] = 0.0
        model.vae.out.bias[rare] = _FORGOTTEN
    return [model.grammar.names[place] for place in rare]


def written_loss(model: GraphModel, latents: Tensor, given: Sequences) -> Tensor:
    """Cross entropy, in nats a molecule, of token sequences for latents N,D."""
    logits = model.vae.logits(latents, given)
    total = functional.cross_entropy(
        logits.flatten(0, 1), given.target.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return total / len(latents)


class Latents(NamedTuple):
    """Posteriors of molecules with the contexts of their texts, float32 N,D, N,D and N,C."""

    mean: Tensor
    spread: Tensor
    contexts: Tensor

    def drawn(self, rows: Tensor) -> Tensor:
        """Draws from the posteriors at `rows`, int64 K."""
        mean = self.mean[rows]
        return mean + torch.randn_like(mean) * (self.spread[rows] / 2).exp()


@torch.no_grad()
def latents_of(model: GraphModel, data: Encoded) -> Latents:
    """Encode the pairs with the model as it is."""
    device = model.device
    contexts = torch.cat([model.text(part.to(device)) for part in data.numbers.split(_BATCH)])
    parts = [
        model.vae.encode(data.graphs.rows(rows).to(device))
        for rows in torch.arange(len(data)).split(_BATCH)
    ]
    mean, spread = (torch.cat(one) for one in zip(*parts, strict=True))
    return Latents(mean, spread, contexts)


def restart_denoiser(model: GraphModel, known: Latents) -> None:
    """Forget all that the denoiser has learnt: fresh weights, and the scale of these latents."""
    denoiser = model.denoiser
    for module in denoiser.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    with torch.no_grad():
        denoiser.null.normal_(std=0.02)
        denoiser.shift.copy_(known.mean.mean(0))
        denoiser.scale.copy_((known.mean.var(0) + known.spread.exp().mean(0)).sqrt())


def fit_denoiser(
    model: GraphModel,
    known: Latents,
    *,
    steps: int,
    rate: float,
    batch: int = 128,
    extra: Callable[[], Tensor] | None = None,
    watch: Watch = lambda _: None,
) -> None:
    """Train the denoiser; its moving average is kept. Draws from the global generator.

    Args:
        model: whose denoiser is trained.
        known: latents and contexts.
        steps: of the optimiser.
        rate: the largest learning rate.
        batch: pairs in a step.
        extra: a further loss, computed anew at each step.
        watch: called with the share done; may raise.
    """
    weights = list(model.denoiser.parameters())
    average = copy.deepcopy(model.denoiser)
    optimiser = torch.optim.AdamW(weights, lr=rate, weight_decay=1e-5)
    schedule = rise_and_fall(optimiser, steps)
    with torch.enable_grad():
        for number in range(steps):
            rows = torch.randint(len(known.mean), (batch,)).to(model.device)
            clean = model.denoiser.standardised(known.drawn(rows))
            loss = denoising_loss(model, clean, known.contexts[rows])
            if extra is not None:
                loss = loss + extra()
            step(loss, optimiser, weights)
            schedule.step()
            with torch.no_grad():
                keep = min(DECAY, (number + 1) / (number + 10))
                for own, new in zip(average.parameters(), weights, strict=True):
                    own.lerp_(new, 1 - keep)
            watch(number / steps)
    model.denoiser.load_state_dict(average.state_dict())


def denoising_loss(model: GraphModel, clean: Tensor, contexts: Tensor) -> Tensor:
    """The mean squared error of standardised latents N,D guessed at random times.

    A share `DROPPED` of the contexts N,C is replaced by that of no prompt.
    """
    denoiser, count = model.denoiser, len(clean)
    times = torch.randint(model.sampler.count, (count,)).to(clean.device)
    noisy = model.sampler.noisy(clean, times, torch.randn_like(clean))
    dropped = (torch.rand(count, 1) < DROPPED).to(clean.device)
    context = torch.where(dropped, denoiser.nothing(count), contexts)
    guess = denoiser(noisy, times / max(1, model.sampler.count - 1), context)
    return functional.mse_loss(guess, clean)


def rise_and_fall(
    optimiser: torch.optim.Optimizer, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The rate rises for a tenth of the steps, then falls to zero along a cosine."""

    def factor(number: int) -> float:
        rise = min(1.0, 10 * (number + 1) / max(1, total))
        return rise * (1 + math.cos(math.pi * number / max(1, total))) / 2

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def step(loss: Tensor, optimiser: torch.optim.Optimizer, weights: Sequence[nn.Parameter]) -> None:
    """One step of the optimiser with clipped gradients."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(weights, CLIP)
    optimiser.step()


def _moved(given: Sequences, device: torch.device) -> Sequences:
    return Sequences(*(part.to(device) for part in given))
