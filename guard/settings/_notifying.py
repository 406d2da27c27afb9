"""Who is notified of what happens, and how uploads are marked."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass
from pathlib import Path

from guard.core.secret import Secret
from guard.settings._row import UNSET, row


@dataclass(frozen=True, kw_only=True)
class Notifying:
    """Who is notified of what happens, and how uploads are marked."""

    hooks_key_file: Path = row(
        UNSET,
        "key that encrypts addresses and secrets of destinations in the database",
        derived="<data_dir>/keys/hooks.key",
    )
    notify_source: str = row("urn:registry-guard", "`source` of the CloudEvents that are sent")
    notify_allowed: tuple[str, ...] = row(
        (), "hosts that may be private or take http, and private networks (CIDR) that may be called"
    )
    notify_seconds: float = row(10.0, "limit of one try of a delivery", unit="s", low=0.1)
    notify_poll_seconds: float = row(
        5.0, "how often deliveries to try again are looked for", unit="s", low=0.1
    )
    notify_tries: int = row(12, "tries of a delivery before it is dead", low=1)
    notify_backlog: int = row(
        1000, "most deliveries that wait for one destination; later ones are dropped", low=1
    )
    notify_keep_days: float = row(
        30.0, "how long events, deliveries and their log are kept", unit="days", low=0.01
    )
    smtp_host: str = row("", "mail relay of e-mail destinations; empty means none")
    smtp_port: int = row(587, "its port", low=1)
    smtp_tls: str = row("starttls", "starttls, tls (from the first byte) or none")
    smtp_user: str = row("", "login at the relay; empty means none")
    smtp_password: Secret = row(Secret(), "its password")
    smtp_from: str = row("", "sender of the mails")
    object_tags: bool = row(
        default=False, text="tag uploads in S3 with their verdict; a hint, never read back"
    )
    quarantine_principals: tuple[str, ...] = row(
        (), "who reads uploads in quarantine: ARNs, or user names for SeaweedFS, of the guard"
    )
