"""What the settings say about the identity provider, checked when the API starts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from guard.core.errors import InputError
from guard.core.roles import Role
from guard.core.secret import Secret

CALLBACK = "/console/login/oidc/callback"
LEFT = "/console/login"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class SettingsLike(Protocol):
    """The settings that matter here."""

    @property
    def public_url(self) -> str: ...
    @property
    def oidc_issuer(self) -> str: ...
    @property
    def oidc_client_id(self) -> str: ...
    @property
    def oidc_client_secret(self) -> Secret: ...
    @property
    def oidc_scopes(self) -> tuple[str, ...]: ...
    @property
    def oidc_groups_claim(self) -> str: ...
    @property
    def oidc_name_claim(self) -> str: ...
    @property
    def oidc_roles(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How to talk to the provider, and which of its groups have which roles here."""

    issuer: str
    client_id: str
    client_secret: Secret = field(repr=False)
    scopes: tuple[str, ...]
    groups_claim: str
    name_claim: str
    roles: Mapping[str, frozenset[Role]]
    redirect_url: str
    left_url: str  # where the provider sends back whoever signed out there

    def roles_of(self, groups: tuple[str, ...]) -> frozenset[Role]:
        """The roles of somebody in these groups; of none, none."""
        return frozenset[Role]().union(*(self.roles.get(group, frozenset()) for group in groups))


def terms_of(settings: SettingsLike) -> Terms | None:
    """The terms, or None where no provider is named.

    Raises:
        InputError: a provider is named, and something that it needs is missing or wrong.
    """
    if not settings.oidc_issuer:
        return None
    for name in ("public_url", "oidc_client_id", "oidc_client_secret", "oidc_roles"):
        if not getattr(settings, name):
            raise _bad(f"GUARD_{name.upper()} must be set where GUARD_OIDC_ISSUER is.")
    for name in ("public_url", "oidc_issuer"):
        if not is_safe_address(getattr(settings, name)):
            raise _bad(f"GUARD_{name.upper()} must begin with https://, or http:// on loopback.")
    return Terms(
        issuer=settings.oidc_issuer,
        client_id=settings.oidc_client_id,
        client_secret=settings.oidc_client_secret,
        scopes=tuple(dict.fromkeys(("openid", *settings.oidc_scopes))),
        groups_claim=settings.oidc_groups_claim,
        name_claim=settings.oidc_name_claim,
        roles=_roles(settings.oidc_roles),
        redirect_url=settings.public_url.rstrip("/") + CALLBACK,
        left_url=settings.public_url.rstrip("/") + LEFT,
    )


def is_safe_address(url: object) -> bool:
    """Whether what is sent there cannot be read on the way: TLS, or this machine."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    plain = parts.scheme == "http" and host in _LOOPBACK
    return bool(host) and parts.username is None and (parts.scheme == "https" or plain)


def _roles(pairs: tuple[str, ...]) -> dict[str, frozenset[Role]]:
    found: dict[str, frozenset[Role]] = {}
    for pair in pairs:
        group, _, role = (part.strip() for part in pair.rpartition("="))
        if not group or role not in set(Role):
            raise _bad(f"GUARD_OIDC_ROLES holds {pair!r:.100}, which is not GROUP=ROLE.")
        found[group] = found.get(group, frozenset()) | {Role(role)}
    return found


def _bad(sentence: str) -> InputError:
    return InputError(sentence, code="bad_setting")
