"""Sign a summary of a verdict in a form that other tools know."""

from typing import Annotated

import typer

from guard.cli._jobs import model_named
from guard.cli._output import (
    OutOption,
    ReportFormat,
    check_target,
    print_json,
    remark,
    say,
    to_json,
    write_text,
)
from guard.cli._service import caller, open_service
from guard.core.summaries import Summary

app = typer.Typer(rich_markup_mode=None)
BLOCKED = 1


@app.command()
def attest(
    wanted: Annotated[
        str, typer.Argument(metavar="MODEL", help="A name, a digest, a scan, or a model file.")
    ],
    kind: Annotated[
        Summary, typer.Option("--as", help="SLSA's verification summary, or in-toto's SVR.")
    ] = Summary.VSA,
    out: OutOption = None,
) -> int:
    """Sign what an enforcing gate makes of a model now; exits 1 if it refuses the model.

    A VSA then states FAILED; an SVR is not made. The act is signed into the ledger.
    """
    check_target(ReportFormat.SARIF, out)
    guard = open_service()
    from guard.flow.attest import summarise

    envelope, refusal = summarise(guard, model_named(wanted), kind, caller(guard))
    if out is None:
        print_json(envelope)
    else:
        write_text(out, to_json(envelope) + "\n")
        say(f"{'FAILED' if refusal else 'PASSED'} {out}")
    if refusal:
        remark(refusal)
    return BLOCKED if refusal else 0
