"""Where traces go."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass

from guard.core.secret import Secret
from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class Observing:
    """Where traces go."""

    otlp_endpoint: str = row(
        "",
        "URL that spans are sent to by OTLP/HTTP, such as http://collector:4318/v1/traces; needs "
        "the extra `otel`; empty means no spans are made",
    )
    otlp_headers: Secret = row(
        Secret(), "headers for it, NAME=VALUE and comma-separated, such as a token"
    )
