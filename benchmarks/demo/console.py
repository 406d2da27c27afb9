"""What the demo ends with at a terminal: the console, open to click through."""

from contextlib import suppress
from typing import Any

from guard.core.roles import Role
from guard.flow import tokens
from guard.flow.context import Guard
from guard.flow.principals import Principal, authenticate
from guard.local.supervisor import Stack


def open_console(stack: Stack, guard: Guard, console: Any) -> None:
    """Print the console's address; at a terminal, wait there with a token to sign in."""
    console.print(f"\n  the review console: {stack.api_address}/console/", highlight=False)
    if not console.is_terminal:
        return
    nobody = Principal(name="demo", role=None)
    root = tokens.create(guard, nobody, "demo", Role.OPERATOR, days=1, first=True).text
    rita = tokens.create(guard, authenticate(guard, root), "rita", Role.REVIEWER, days=1).text
    console.print(
        f"  sign in as a reviewer: {rita}\n  or as an operator:     {root}", highlight=False
    )
    console.print("  Ctrl-C ends the demo and stops everything", highlight=False)
    with suppress(KeyboardInterrupt):
        stack.wait()
