"""How people sign in with a browser."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass

from guard.core.secret import Secret
from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class SignOn:
    """How people sign in with a browser."""

    public_url: str = row(
        "",
        "the address under which browsers reach the API, such as https://guard.example; needed "
        "behind a proxy that ends TLS",
    )
    session_hours: float = row(8.0, "how long a browser stays signed in at most", unit="h", low=0.1)
    session_idle_minutes: float = row(
        60.0, "how long a browser stays signed in that asks for nothing", unit="min", low=2
    )
    oidc_issuer: str = row(
        "",
        "OpenID Connect provider that people sign on with, by its issuer, such as "
        "https://login.example/realms/ml; empty: tokens alone",
    )
    oidc_client_id: str = row("", "the guard's client at the provider")
    oidc_client_secret: Secret = row(Secret(), "its secret")
    oidc_scopes: tuple[str, ...] = row(
        ("profile", "email"), "what to ask the provider for beside openid", derived="profile,email"
    )
    oidc_groups_claim: str = row("groups", "the claim of the ID token that lists groups")
    oidc_name_claim: str = row(
        "preferred_username", "the claim of the ID token that a principal is named after"
    )
    oidc_roles: tuple[str, ...] = row(
        (), "the roles of groups, as GROUP=ROLE,...; who is in none of them cannot sign on"
    )
