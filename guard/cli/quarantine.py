"""Print or set a bucket policy under which only the guard reads what was not cleared."""

from typing import Annotated

import typer

from guard.cli._output import print_json
from guard.cli._service import caller, open_service
from guard.flow.quarantine import StoreKind

app = typer.Typer(rich_markup_mode=None, help="Keep others from reading uploads before a verdict.")


@app.callback()
def quarantine() -> None:
    """Keep others from reading uploads before a verdict."""


@app.command()
def policy(
    bucket: Annotated[str | None, typer.Argument(help="Default: the intake bucket.")] = None,
    store: Annotated[StoreKind, typer.Option(help="Whose policy language.")] = StoreKind.AWS,
    principal: Annotated[
        list[str] | None,
        typer.Option(help="Who goes on reading; default: GUARD_QUARANTINE_PRINCIPALS."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Set it, as an operator; other statements are kept.")
    ] = False,
) -> int:
    """Print the policy as JSON; with --apply set it, and print the bucket's whole policy."""
    guard = open_service()
    from guard.flow import quarantine as use_case

    settings = guard.settings
    bucket, principals = (
        bucket or settings.intake_bucket,
        principal or settings.quarantine_principals,
    )
    if apply:
        print_json(use_case.apply(guard, caller(guard), bucket, store, principals))
    else:
        print_json(use_case.policy(bucket, store, principals))
    return 0
