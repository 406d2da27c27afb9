"""Which addresses a notification may go to: public ones, and what the settings list.

An operator's mistake, or a name whose DNS answers change, must not let the guard call what only it
can reach: the cloud's metadata, the database, the broker (server-side request forgery).
"""

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from guard.core.errors import InputError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: Gives every address of a name.
Resolver = Callable[[str, int], Sequence[str]]

#: Never called, whatever the settings list: they hand out credentials.
METADATA = frozenset(
    ipaddress.ip_address(text)
    for text in ("169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200")
)
#: IPv6 that carries an IPv4 address, which may be a private one, or that leaves the machine by a
#: tunnel. `ipaddress` counts some of them as global.
_CARRIERS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "::/96",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2002::/16",
    )
)
_URL = re.compile(r"[\x21-\x7e]+")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
MOST = 2000


class Refused(InputError):
    """The guard does not call this address."""

    code = "address_refused"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What may be called beside public addresses over https.

    `hosts` may lie on private addresses and take http, if a URL names them exactly so; addresses in
    `networks` may be called whatever name leads there, by https.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = field(default=())

    @classmethod
    def of(cls, listed: Sequence[str]) -> "Rules":
        """Read the setting: hosts, addresses and networks (with a slash).

        Raises:
            InputError: a network cannot be read.
        """
        try:
            nets = tuple(ipaddress.ip_network(text) for text in listed if "/" in text)
        except ValueError as error:
            raise InputError(
                f"GUARD_NOTIFY_ALLOWED holds no network: {error}.", code="bad_setting"
            ) from error
        return cls(
            hosts=frozenset(text.lower() for text in listed if "/" not in text), networks=nets
        )

    def lists(self, host: str) -> bool:
        """Whether a host may take http and lie on a private address."""
        return host in self.hosts


@dataclass(frozen=True, kw_only=True)
class Place:
    """A URL whose form is sound; `target` is its path and query."""

    secure: bool
    host: str
    port: int
    target: str

    @property
    def shown(self) -> str:
        """What people see of it: path and query may be secrets, as in a URL of Slack."""
        return f"{'https' if self.secure else 'http'}://{self.authority}/…"

    @property
    def authority(self) -> str:
        """The host, in brackets where it is IPv6, and the port where it is not the usual one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.secure else 80
        return host if self.port == usual else f"{host}:{self.port}"


def read_url(url: str, rules: Rules) -> Place:
    """Read a destination's URL; no name is looked up.

    Raises:
        Refused: it is not https to a host by its usual name or address, or http to a listed host.
    """
    if len(url) > MOST or not _URL.fullmatch(url):
        raise Refused(f"A destination is a URL of at most {MOST} characters of ASCII.")
    try:
        parts = urlsplit(url)
        port = parts.port
        host = _host(parts)
    except ValueError as error:
        raise Refused("The destination's URL cannot be read.") from error
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise Refused("A destination's URL holds neither user, password nor fragment.")
    if parts.scheme != "https" and not (parts.scheme == "http" and rules.lists(host)):
        raise Refused("A destination takes https, or http at a host in GUARD_NOTIFY_ALLOWED.")
    literal = _literal(host)
    if literal is not None:
        check(literal, host, rules)
    secure = parts.scheme == "https"
    path = parts.path or "/"
    return Place(
        secure=secure,
        host=host,
        port=(443 if secure else 80) if port is None else port,
        target=f"{path}?{parts.query}" if parts.query else path,
    )


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".").lower()
    if "%" in host or (":" not in host and not _NAME.fullmatch(host)):
        raise ValueError("no host")
    return host


def _literal(host: str) -> Address | None:
    """The address that a host is, in its usual form; None for a name.

    Raises:
        Refused: it is a number in another form (decimal, octal, hexadecimal, too few parts), which
            resolvers take for an address.
    """
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        last = host.rpartition(".")[2]
        if ":" in host or re.fullmatch(r"[0-9]+|0x[0-9a-f]*", last):
            raise Refused("Write an address in its usual form.") from None
        return None


def check(address: Address, host: str, rules: Rules) -> None:
    """Refuse an address that is neither public nor listed.

    Raises:
        Refused: the sentence does not repeat the address, which a name may only lead to.
    """
    inner = address
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        inner = address.ipv4_mapped
    if inner in METADATA:
        raise Refused(f"{host} leads to a metadata service, which the guard never calls.")
    if rules.lists(host) or any(address in network for network in rules.networks):
        return
    carried = any(address in network for network in _CARRIERS)
    if carried or not address.is_global or address.is_multicast or address.is_reserved:
        raise Refused(
            f"{host} leads to an address that is not public; GUARD_NOTIFY_ALLOWED can list it."
        )


def system_resolver(host: str, port: int) -> Sequence[str]:
    """Every address of a name, as the system's resolver gives them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


def pin(place: Place, rules: Rules, resolver: Resolver = system_resolver) -> str:
    """Resolve a destination once, and give the address to connect to.

    Every address of the name is checked, so that none slips in among others.

    Raises:
        Refused: one of them may not be called.
        OSError: the name has no address.
    """
    found = list(dict.fromkeys(resolver(place.host, place.port)))
    if not found:
        raise OSError("the name has no address")
    for text in found:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:  # an IPv6 address with a scope: a link-local one
            raise Refused(f"{place.host} leads to an address of one link only.") from None
        check(address, place.host, rules)
    return found[0]
