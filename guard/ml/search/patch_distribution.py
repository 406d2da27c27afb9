"""Learn the distribution of a class's patches by max-entropy staircase approximation (MESA).

Source: Qiao, Yang and Li, "Defending Neural Backdoors via Generative Distribution Modeling",
NeurIPS 2019. A recovered patch is one member of a set; unlearning it may leave the others active.
For a level beta a small generator is trained whose patches reach p(target) >= beta on every image
and otherwise differ from each other as much as possible: the loss is a hinge on p minus `ALPHA`
times the mutual information between its noise and its jittered patch, which stands for the entropy.
Several levels together are the staircase; samples are drawn from them in equal parts, as in the
authors' code.

Deviations, and why:
* The hinge is on log(beta / p): it has the same zeros, and a gradient where p is near 0.
* All rows (classes x levels) are trained together, with stacked weights; no batch norm, so that a
  patch depends on its noise alone and sampling needs no train or eval mode.
* The information is not estimated by a trained critic (MINE): the jitter that was added to a patch
  is known, and with it the optimal critic. Patches are compared within the batch at several widths:
  at a small width all large distances look the same.
* Images of the target class are left out.
* The place of the patch is not given: it is the region that the patch search has found. The paper's
  prior, a square of known size at a random place, is an option
  (`guard.ml.search.fresh_patches`).
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from guard.core.errors import MethodFailed

Testing = Callable[
    [Tensor], Tensor
]  # patches R,B,D in about [0, 1] -> log of success R,B, differentiable
Watch = Callable[[float], None]

NOISE = 16  # of each of the four chunks in which noise enters the generator
CHUNKS = 4
ALPHA = 0.3  # three times the paper's: the hinge on a logarithm is steeper
LEVELS = (0.9, 0.8, 0.5)
JITTER = 0.1  # standard deviation of what is added to a patch in training; makes its entropy finite
WIDTHS = (0.05, 0.1, 0.2, 0.4)  # at which patches are compared, in units of the root of D
RATE, BETAS = 1e-2, (0.5, 0.999)  # Adam; fifty times the paper's rate for a third of its steps
FIRST_SPREAD = (
    1.5  # of the last layer: patches that all start grey would all go to the nearest set that works
)
SLOPE = 0.2  # of leaky ReLUs
WINDOW = 20  # steps between two looks at the watch


@dataclass(frozen=True, kw_only=True)
class DistributionEffort:
    """Training settings: `steps` of `batch` patches a row, each on its own image; network width."""

    steps: int = 200
    batch: int = 16
    width: int = 64


class Stack:
    """R small dense networks side by side; float parameters R,in,out and R,1,out."""

    def __init__(self, rows: int, sizes: list[tuple[int, int]], device: torch.device) -> None:
        self.weights = [
            (torch.randn(rows, inputs, outputs) * (2 / inputs) ** 0.5).to(device).requires_grad_()
            for inputs, outputs in sizes
        ]
        self.biases = [
            torch.zeros(rows, 1, outputs, device=device, requires_grad=True) for _, outputs in sizes
        ]

    def layer(self, number: int, inputs: Tensor) -> Tensor:
        """Affine map of float inputs R,B,in to R,B,out, with the weights of one layer."""
        return torch.baddbmm(self.biases[number], inputs, self.weights[number])

    @property
    def parameters(self) -> list[Tensor]:
        """All weights (shape R,in,out), then all biases (R,1,out)."""
        return [*self.weights, *self.biases]


class Generator(Stack):
    """R generators that map noise R,B,64, uniform in [0, 1], to patches R,B,D in [0, 1].

    The noise enters in four chunks, one before each layer.
    """

    def __init__(self, rows: int, dims: int, width: int, device: torch.device) -> None:
        super().__init__(
            rows,
            [(NOISE, width), (width + NOISE, width), (width + NOISE, width), (width + NOISE, dims)],
            device,
        )
        last = self.weights[3].data  # centred, since the hidden units' mean is not zero
        last.sub_(last.mean(1, keepdim=True)).mul_(FIRST_SPREAD)
        self.rows, self.device = rows, device

    def pick(self, rows: slice) -> "Generator":
        """A copy with these rows only, without gradients."""
        part = copy.copy(self)
        part.weights = [weight[rows].detach() for weight in self.weights]
        part.biases = [bias[rows].detach() for bias in self.biases]
        part.rows = len(part.weights[0])
        return part

    def noise(self, count: int) -> Tensor:
        """Uniform noise R,`count`,64 in [0, 1], drawn on the CPU: the same for all devices."""
        return torch.rand(self.rows, count, CHUNKS * NOISE).to(self.device)

    def __call__(self, noise: Tensor) -> Tensor:
        chunks = ((noise - 0.5) * 12**0.5).split(NOISE, dim=2)  # of unit variance
        hidden = functional.leaky_relu(self.layer(0, chunks[0]), SLOPE)
        for number in (1, 2):
            hidden = functional.leaky_relu(
                self.layer(number, torch.cat([hidden, chunks[number]], 2)), SLOPE
            )
        return torch.sigmoid(self.layer(3, torch.cat([hidden, chunks[3]], 2)))


def information(centres: Tensor, noisy: Tensor, spread: float) -> Tensor:
    """Mutual information in nats between patches and their noisy copies, float R, at most log B.

    This is InfoNCE with the optimal critic, which is known here because the conditional is (Poole
    et al., ICML 2019, section 2.3): mean over i of log(p(noisy_i | centre_i) / mean over j of
    p(noisy_i | centre_j)).

    Args:
        centres: the patches, float R,B,D.
        noisy: `centres` + `spread` * a normal variable, R,B,D.
        spread: standard deviation of the noise.
    """
    # Distances as one matrix product: B x B x D numbers would not stay in a cache.
    squares = (
        noisy.pow(2).sum(2)[:, :, None] + centres.pow(2).sum(2)[:, None] - 2 * noisy @ centres.mT
    )
    logits = -squares / (2 * spread**2)
    return (logits.diagonal(dim1=1, dim2=2) - logits.logsumexp(2)).mean(1) + math.log(
        centres.shape[1]
    )


@dataclass(frozen=True)
class Staircase:
    """Trained generators, one a row.

    `information` (float R, in nats) is a running mean over the last steps and all widths.
    """

    generator: Generator
    information: Tensor

    @torch.no_grad()
    def draw(self, count: int) -> Tensor:
        """Draw `count` patches of every row, float R,`count`,D in [0, 1].

        Draws from torch's global CPU generator.
        """
        return self.generator(self.generator.noise(count))

    def pick(self, rows: slice) -> "Staircase":
        """These rows only."""
        return Staircase(self.generator.pick(rows), self.information[rows])


def learn(
    testing: Testing,
    rows: int,
    dims: int,
    levels: Tensor,
    effort: DistributionEffort,
    watch: Watch,
    *,
    alpha: float = ALPHA,
    device: torch.device | None = None,
) -> Staircase:
    """Train one generator a row against a testing function.

    Args:
        testing: from noisy patches R,B,D to the log of their success.
        rows: R, the number of generators.
        dims: D, the numbers of one patch.
        levels: float R in (0, 1]; success above the level is not rewarded further.
        effort: the length of the training.
        watch: called with the share done; may raise.
        alpha: weight of the information; with 0 a generator collapses to a point.
        device: where to train; the CPU by default.

    Raises:
        MethodFailed: a loss is not finite.
    """
    place = device or torch.device("cpu")
    generator = Generator(rows, dims, effort.width, place)
    mover = torch.optim.Adam(generator.parameters, lr=RATE, betas=BETAS)
    goals = levels.to(place).log()[:, None]
    recent = torch.zeros(rows, device=place)
    for step in range(effort.steps):
        noise = generator.noise(effort.batch)
        jitter = torch.randn(rows, effort.batch, dims).to(place)
        with torch.enable_grad():
            patches = generator(noise)
            missing = (goals - testing(patches + JITTER * jitter)).clamp(min=0).mean(1)
            bits = torch.stack(
                [
                    information(patches, patches + width * dims**0.5 * jitter, width * dims**0.5)
                    for width in WIDTHS
                ]
            ).mean(0)
            _move(mover, generator, (missing - alpha * bits).sum())
        recent = recent + 0.05 * (bits.detach() - recent) if step else bits.detach()
        if (step + 1) % WINDOW == 0 or step + 1 == effort.steps:
            if not bool(torch.isfinite(recent + missing.detach()).all()):
                raise MethodFailed(
                    "The model gives logits that are not finite; no patches can be learnt.",
                    code="non_finite",
                )
            watch((step + 1) / effort.steps)
    return Staircase(generator, recent)


def _move(mover: torch.optim.Adam, net: Stack, loss: Tensor) -> None:
    for parameter, gradient in zip(
        net.parameters, torch.autograd.grad(loss, net.parameters), strict=True
    ):
        parameter.grad = gradient
    mover.step()
