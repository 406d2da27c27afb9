"""Generate molecules with a text-to-graph model; needs no service and vets nothing."""

from pathlib import Path
from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, quiet_stdout, say

app = typer.Typer(rich_markup_mode=None)


@app.command()
def generate(
    path: Annotated[
        Path,
        typer.Argument(help="A folder with model.safetensors and config.json, or the former."),
    ],
    text: Annotated[str, typer.Option(help="What the molecule is to be like.")],
    samples: Annotated[int, typer.Option(help="How many molecules, 1 to 8.")] = 1,
    seed: Annotated[int, typer.Option(help="Same seed, same molecules.")] = 0,
    device: Annotated[
        str | None, typer.Option(help="A torch device; CUDA where there is one by default.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print SMILES for a text, a line each, as the served model answers them."""
    from guard.core.text_request import TextRequest

    request = TextRequest(text, samples, seed)
    with quiet_stdout():
        from guard.flow.budget import budget_of
        from guard.settings import load_settings
        from guard.vetting.generate import generate as run

        found = run(path, request, device=device, budget=budget_of(load_settings()))
    if form is Format.JSON:
        print_json(found)
        return 0
    for smiles in found["smiles"]:
        say("(the decoder came to no end)" if smiles is None else smiles)
    return 0
