"""Sign on with an identity provider: OpenID Connect, the code flow with PKCE."""

from guard.signon._http import ProviderAway
from guard.signon._pending import Pending
from guard.signon._terms import Terms, terms_of
from guard.signon.provider import LogoutRefused, Provider, SignOnRefused

__all__ = [
    "LogoutRefused",
    "Pending",
    "Provider",
    "ProviderAway",
    "SignOnRefused",
    "Terms",
    "terms_of",
]
