"""Who may call, and how a caller shows it."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass

from guard.core.secret import Secret
from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may call, and how a caller shows it."""

    webhook_token: Secret = row(
        Secret(),
        "bearer token of event senders, and of the operator `api` over API and command line; empty "
        "fits nobody",
    )
    token: Secret = row(Secret(), "token of the principal who calls commands (`guard token`)")
    require_principals: bool = row(
        default=False,
        text="acts need a token even where no principal exists; otherwise the login is taken, and "
        "verdicts are marked unauthenticated",
    )
    read_all: tuple[str, ...] = row(
        (),
        "principals, and group:NAME of the identity provider, that read every project beside "
        "operators and signers, comma-separated",
    )
    read_unassigned: bool = row(
        default=False,
        text="where there are projects, everybody else reads what lies in none of them as well",
    )
    webhook_hmac_key: Secret = row(
        Secret(), "key of signed events (HMAC-SHA256 over timestamp.body)"
    )
    webhook_window_seconds: float = row(
        300.0, "how far a signed event may be in the past or future", unit="s", low=1
    )
    console: bool = row(
        default=True,
        text="the API serves the review console under /console/, and workers do what is asked for "
        "there; where it is off, people act by the command line alone",
    )
