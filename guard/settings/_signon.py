"""How people sign in with a browser."""

from dataclasses import dataclass

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
