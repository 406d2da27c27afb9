"""An event as its receivers read it: a CloudEvent, a message of Slack, a mail.

Names, reasons and details are written by strangers. They are JSON strings in a CloudEvent, plain
text (never mark-up) in Slack, and the body, never a header but the subject, of a mail.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

from guard.core.text import printable

#: Where the published schema of events says that it lies.
SCHEMA = "https://registry-guard.dev/schemas/notification/v1"
JSON_TYPE = "application/cloudevents+json; charset=utf-8"
_SHOWN = ("name", "verdict", "outcome", "version", "scan_id", "digest", "by", "expires_at")


@dataclass(frozen=True, kw_only=True)
class Message:
    """An event to be sent; `link` is the console's page about it, or ""."""

    event_id: str
    source: str
    type: str
    at: datetime
    data: Mapping[str, str]
    link: str = ""


def cloud_event(message: Message) -> bytes:
    """The event in CloudEvents 1.0's structured mode, as JSON."""
    data = dict(message.data) | ({"link": message.link} if message.link else {})
    event = {
        "specversion": "1.0",
        "id": message.event_id,
        "source": message.source,
        "type": message.type,
        "subject": message.data.get("name") or message.data.get("about") or "registry-guard",
        "time": message.at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": data,
    }
    return json.dumps(event, ensure_ascii=True, sort_keys=True).encode("ascii")


def slack(message: Message) -> bytes:
    """The event as blocks of plain text, in which nobody is mentioned and nothing is a link."""
    sentence = printable(message.data.get("sentence", message.type))
    fields = [
        {"type": "plain_text", "text": f"{name}: {printable(message.data[name])}"[:200]}
        for name in _SHOWN
        if message.data.get(name)
    ]
    blocks: list[dict[str, object]] = [
        {"type": "section", "text": {"type": "plain_text", "text": sentence[:2900]}},
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    if message.link:
        button = {"type": "plain_text", "text": "Open in the console"}
        element = {"type": "button", "text": button, "url": message.link}
        blocks.append({"type": "actions", "elements": [element]})
    context = [{"type": "plain_text", "text": f"{message.type}, {message.event_id}"}]
    blocks.append({"type": "context", "elements": context})
    text = sentence.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return json.dumps({"text": text[:2900], "mrkdwn": False, "blocks": blocks}).encode("ascii")


def mail(message: Message, sender: str, to: str, message_id: str) -> EmailMessage:
    """The event as a mail of plain text.

    Args:
        message: the event.
        sender: a mail address, as is `to`.
        message_id: of the delivery, the same at each try.
    """
    made = EmailMessage(policy=SMTP)
    made["From"] = Address(addr_spec=sender)
    made["To"] = Address(addr_spec=to)
    made["Subject"] = f"[registry-guard] {_line(message.data.get('sentence', message.type))}"
    made["Message-ID"] = f"<{message_id}@{sender.rpartition('@')[2]}>"
    made["Date"] = message.at
    made["Auto-Submitted"] = "auto-generated"
    lines = [printable(message.data.get("sentence", "")), ""]
    lines += [f"{name}: {printable(text)}" for name, text in message.data.items()]
    lines += ["", f"{message.type}, {message.event_id}"]
    lines += [message.link] if message.link else []
    made.set_content("\n".join(lines))
    return made


def _line(text: str) -> str:
    """One line of at most 150 characters that holds no control character."""
    return " ".join(printable(text).split())[:150]
