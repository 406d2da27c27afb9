"""Give out, list and revoke tokens, and say who may upload where."""

from typing import Annotated

import typer

from guard.cli._output import Format, FormatOption, print_json, remark, say
from guard.cli._service import caller, open_service
from guard.core.roles import Role

app = typer.Typer(rich_markup_mode=None, help="Tokens of people and programs, and their roles.")
NameArgument = Annotated[str, typer.Argument(help="The principal: a person or a program.")]
DAYS = 90


@app.command()
def create(
    name: NameArgument,
    role: Annotated[Role, typer.Option(help="What the token is for.")],
    expires: Annotated[int, typer.Option(min=1, help="Days until it counts no more.")] = DAYS,
    prefix: Annotated[
        list[str] | None,
        typer.Option(help="BUCKET/PREFIX where the principal may upload; may be repeated."),
    ] = None,
    first: Annotated[
        bool, typer.Option("--first", help="The first operator's token, where nobody has one.")
    ] = False,
    form: FormatOption = Format.TABLE,
) -> int:
    """Print a new token, once. Only an operator may, except for --first."""
    guard = open_service()
    from guard.flow import tokens

    made = tokens.create(
        guard, caller(guard), name, role, days=expires, prefixes=prefix or (), first=first
    )
    if form is Format.JSON:
        until = made.row.expires_at
        print_json({"id": made.row.id, "token": made.text, "role": role, "expires_at": until})
    else:
        say(made.text)
        remark(f"{name}, {role}, until {made.row.expires_at.date()}; it is not shown again")
    return 0


@app.command("list")
def list_(form: FormatOption = Format.TABLE) -> int:
    """List all tokens, without their secrets, and who owns which prefix."""
    guard = open_service()
    from guard.store import principals, uploaders
    from guard.store.session import reading

    with reading(guard.engine) as session:
        rows, owners = principals.list_tokens(session), uploaders.list_owners(session)
    if form is Format.JSON:
        hidden = {"hash"}
        print_json(
            {
                "tokens": [
                    {key: value for key, value in vars(row).items() if key not in hidden}
                    for row in rows
                ],
                "owners": [
                    {"principal": row.principal, "prefix": f"{row.bucket}/{row.prefix}"}
                    for row in owners
                ],
            }
        )
        return 0
    for row in rows:
        state = "revoked" if row.revoked_at else "expired" if row.expires_at <= guard.now() else ""
        used = f"used {row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "never used"
        state = state or f"until {row.expires_at.date()}"
        say(f"{row.id}  {row.principal}  {row.role}  {state}  {used}")
    for owner in owners:
        say(f"{owner.principal} owns {owner.bucket}/{owner.prefix}")
    if not rows:
        say("none")
    return 0


@app.command()
def revoke(
    id_or_name: Annotated[str, typer.Argument(help="A token's id, or a principal for all of its.")],
    form: FormatOption = Format.TABLE,
) -> int:
    """Revoke one token, or all of a principal's, at once and for good."""
    guard = open_service()
    from guard.flow import tokens

    rows = tokens.revoke(guard, caller(guard), id_or_name)
    if form is Format.JSON:
        print_json([{"id": row.id, "principal": row.principal, "role": row.role} for row in rows])
    elif rows:
        for row in rows:
            say(f"revoked {row.id} of {row.principal}, {row.role}")
    else:
        say("nothing was in force")
    return 0


@app.command()
def disown(
    name: NameArgument,
    prefix: Annotated[str, typer.Argument(help="BUCKET/PREFIX.")],
) -> int:
    """End a principal's right to a prefix; its earlier uploads stay its own."""
    guard = open_service()
    from guard.flow import tokens

    tokens.disown(guard, caller(guard), name, prefix)
    say(f"{name} does not own {prefix} any more")
    return 0
