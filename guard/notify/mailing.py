"""Mails to the one relay that the settings name."""

import re
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage

from guard.core.errors import InputError

#: Plain addresses only: no display name, no quoted part, nothing that a header could be made of.
_ADDRESS = re.compile(
    r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}"
)


@dataclass(frozen=True, kw_only=True)
class Relay:
    """Where mails are handed in; `security` is starttls, tls or none."""

    host: str
    port: int
    security: str
    user: str
    password: str = field(repr=False)
    sender: str


def check_address(address: str) -> str:
    """A mail address of the plain form.

    Raises:
        InputError: it has another form.
    """
    if len(address) > 254 or not _ADDRESS.fullmatch(address):
        raise InputError("An e-mail destination is one plain address.", code="bad_mail_address")
    return address


def send(
    relay: Relay, message: EmailMessage, seconds: float, trust: ssl.SSLContext | None = None
) -> None:
    """Hand a mail to the relay.

    Raises:
        InputError: no relay or sender is set.
        OSError: the relay did not take it (`smtplib.SMTPException` is one).
    """
    if not relay.host or not relay.sender:
        raise InputError("Set GUARD_SMTP_HOST and GUARD_SMTP_FROM to send mails.", code="no_relay")
    context = trust or ssl.create_default_context()
    if relay.security == "tls":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            relay.host, relay.port, timeout=seconds, context=context
        )
    else:
        connection = smtplib.SMTP(relay.host, relay.port, timeout=seconds)
    with connection:
        if relay.security == "starttls":
            connection.starttls(context=context)
        if relay.user:
            connection.login(relay.user, relay.password)
        connection.send_message(message)
