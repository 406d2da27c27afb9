"""Who an identity provider says that somebody is."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A person as their provider knows them; `issuer` and `subject` together name nobody else.

    `name` is what the provider calls them, which proves nothing. `sid` is the session there, where
    the provider names it.
    """

    issuer: str
    subject: str
    name: str
    groups: tuple[str, ...]
    sid: str = ""


@dataclass(frozen=True, kw_only=True)
class SignedOff:
    """What a provider says has ended there: a session of a person's, or all that they have.

    One of `subject` and `sid` may be empty. `statement_id` is what the provider calls its own
    statement, which counts once.
    """

    issuer: str
    subject: str
    sid: str
    statement_id: str
