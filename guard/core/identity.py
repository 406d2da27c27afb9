"""Who an identity provider says that somebody is."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A person as their provider knows them; `issuer` and `subject` together name nobody else.

    `name` is what the provider calls them, which proves nothing.
    """

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
