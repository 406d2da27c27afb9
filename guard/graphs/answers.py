"""What a text-to-graph model answers to one request; imports no RDKit by itself."""

from typing import TYPE_CHECKING, Any

from guard.core.text_request import TextRequest

if TYPE_CHECKING:
    from guard.graphs.model import GraphModel

_UNKNOWN = 1  # the number of a character that is in no piece: `guard.graphs.text_pieces`


def answer(model: "GraphModel", request: TextRequest) -> dict[str, Any]:
    """SMILES for a request, None where the decoder came to no end; the same for the same request.

    `unknown_pieces` counts characters of the text that begin no piece of the model's vocabulary.

    Raises:
        InputError: the model refuses the text.
    """
    contexts = model.contexts([request.text]).repeat_interleave(request.samples, dim=0)
    keys = [(request.seed, number) for number in range(request.samples)]
    latents = model.latents(contexts, keys)
    found: dict[str, Any] = {
        "smiles": model.smiles(latents),
        "unknown_pieces": model.pieces.numbers(request.text).count(_UNKNOWN),
    }
    return {**found, "latents": latents.tolist()} if request.latents else found
