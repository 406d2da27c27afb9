"""What one molecule of a text-to-graph model costs, from sizes alone.

Only the towers are laid out, on the meta device: the vocabulary of molecules, which a parser in C++
reads, is not needed.
"""

import torch

from guard.core.contracts import Budget
from guard.core.costs import against, over_budget
from guard.graphs.denoiser import Denoiser
from guard.graphs.grammar import MAX_STEPS
from guard.graphs.model import GraphSettings, sizes_of
from guard.graphs.text_encoder import TextEncoder
from guard.ml.networks.cost import metered

_GATES = 3  # of the decoder's GRU
_GUIDED = 2  # rows a step: with the text and without it


def operations_of(manifest: GraphSettings, budget: Budget) -> int:
    """The operations of one molecule: its text, every step of the sampler, every token.

    Raises:
        ManifestRejected: a size breaks a rule.
    """
    sizes = sizes_of(manifest)
    with torch.device("meta"):
        text = TextEncoder(len(manifest.pieces), sizes["text_width"], sizes["context"])
        denoiser = Denoiser(
            latent=sizes["latent"],
            context=sizes["context"],
            width=sizes["denoiser_width"],
            depth=sizes["denoiser_depth"],
        )
        numbers = torch.empty((1, sizes["text_pieces"]), dtype=torch.int64)
        noisy, time = torch.empty((_GUIDED, sizes["latent"])), torch.empty(1)
        contexts = torch.empty((_GUIDED, sizes["context"]))
    with metered(budget) as prompt:
        text(numbers)
    with metered(budget) as step:
        denoiser(noisy, time, contexts)
    hidden, embedding = sizes["decoder_hidden"], sizes["decoder_embedding"]
    recurrent = _GATES * hidden * (_GATES * embedding + hidden)
    token = 2 * (recurrent + (hidden + embedding) * len(manifest.tokens))
    steps = manifest.sampler.steps
    return prompt.operations + steps * step.operations + MAX_STEPS * token


def refuse_costly(manifest: GraphSettings, budget: Budget) -> None:
    """Refuse a model whose molecules cost more than the budget.

    Its memory needs no limit of its own: sizes and vocabularies have theirs.

    Raises:
        ManifestRejected: `over_budget`; or as `operations_of`.
    """
    found = operations_of(manifest, budget)
    if found > budget.molecule_operations:
        raise over_budget(
            f"one molecule takes {against(found, budget.molecule_operations, 'operations')}",
            "GUARD_MAX_MOLECULE_OPERATIONS",
            "use a smaller denoiser or fewer steps of the sampler",
        )
