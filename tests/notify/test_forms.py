"""What goes out: CloudEvents, signatures, blocks of Slack, mails; and what is kept sealed."""

import asyncio
import json
import smtplib
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from standardwebhooks import Webhook, WebhookVerificationError

from guard.core.errors import InputError, IntegrityMismatch
from guard.core.hooks import ALL_FIELDS, FIELDS, EventType, check_types, of_alarm, wants
from guard.notify import forms, mailing, sealing, signing
from guard.notify.forms import Message
from guard.notify.mailing import Relay
from guard.notify.sealing import Target
from tests.notify.test_sending import made_certificate

AT = datetime(2026, 11, 30, 13, 0, tzinfo=timezone(timedelta(hours=1)))
HOSTILE = "<!channel> *bold* <https://evil.example|click>\r\nBcc: all@example.com\u202e\x00"


def message(**data: str) -> Message:
    return Message(
        event_id="e1",
        source="urn:registry-guard",
        type=EventType.VERDICT,
        at=AT,
        data={"sentence": "fraud is held.", "name": "fraud", "verdict": "held", **data},
        link="https://guard.example/console/scans/s1",
    )


def test_an_event_is_a_cloud_event_in_structured_form() -> None:
    event = json.loads(forms.cloud_event(message()))

    assert event["specversion"] == "1.0"
    assert (event["id"], event["type"], event["subject"]) == (
        "e1",
        "guard.verdict.issued",
        "fraud",
    )
    assert event["time"] == "2026-11-30T12:00:00Z"
    assert event["data"]["link"] == "https://guard.example/console/scans/s1"
    no_model = Message(event_id="e", source="s", type="t", at=AT, data={"sentence": "x"})
    assert json.loads(forms.cloud_event(no_model))["subject"] == "registry-guard"


@pytest.mark.row(53)
def test_the_receivers_own_library_verifies_a_message_and_refuses_a_changed_one() -> None:
    secret, body = signing.new_secret(), forms.cloud_event(message())
    now = int(datetime.now(UTC).timestamp())
    headers = signing.headers(secret, "m1", now, body)

    assert Webhook(secret).verify(body, headers)["type"] == "guard.verdict.issued"
    others = (
        (secret, body + b" ", headers),
        (signing.new_secret(), body, headers),
        (secret, body, {**headers, "webhook-id": "m2"}),
        (secret, body, signing.headers(secret, "m1", now - 3600, body)),
    )
    for other, text, sent in others:
        with pytest.raises(WebhookVerificationError):
            Webhook(other).verify(text, sent)


@pytest.mark.parametrize("secret", ["", "abc", "whsec_", "whsec_!!!!", "whsec_" + "QUJD" * 4])
def test_a_secret_that_is_short_or_no_base64_is_refused(secret: str) -> None:
    with pytest.raises(InputError, match="whsec_"):
        signing.key_of(secret)


def test_a_strangers_text_is_plain_text_in_slack() -> None:
    made = json.loads(forms.slack(message(sentence=HOSTILE, name="a<b>&c")))

    texts = [block["text"] for block in made["blocks"] if "text" in block]
    fields = [field for block in made["blocks"] for field in block.get("fields", [])]
    assert {one["type"] for one in texts + fields} == {"plain_text"}
    assert made["mrkdwn"] is False
    assert "<" not in made["text"]
    assert "\u202e" not in json.dumps(made, ensure_ascii=False)
    urls = [
        one["url"] for block in made["blocks"] for one in block.get("elements", []) if "url" in one
    ]
    assert urls == ["https://guard.example/console/scans/s1"]


def test_without_console_and_fields_slack_gets_the_sentence_alone() -> None:
    made = json.loads(
        forms.slack(Message(event_id="e", source="s", type="t", at=AT, data={"sentence": "x"}))
    )

    assert [block["type"] for block in made["blocks"]] == ["section", "context"]


def test_no_header_of_a_mail_can_be_made_of_a_strangers_text() -> None:
    mail = forms.mail(message(sentence=HOSTILE), "guard@example.com", "ops@example.com", "d1")
    read = message_from_bytes(mail.as_bytes(), policy=policy.default)

    assert read["Bcc"] is None
    assert read["To"] == "ops@example.com"
    assert "Bcc: all@example.com" in str(read["Subject"]).replace("\\x0d\\x0a", " ")
    assert read["Message-ID"] == "<d1@example.com>"
    body = read.get_body()
    assert body is not None
    assert "https://guard.example/console/scans/s1" in body.get_content()
    bare = Message(event_id="e", source="s", type="t", at=AT, data={"sentence": "x"})
    assert "console" not in forms.mail(bare, "g@example.com", "o@example.com", "d").as_string()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ops",
        "ops@",
        "a@b\r\nBcc: c@d",
        "Ops <ops@example.com>",
        "a@b, c@d",
        '"x y"@example.com',
        "a" * 250 + "@b.example",
    ],
)
def test_a_mail_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="plain address"):
        mailing.check_address(address)


class Inbox:
    """A real SMTP relay that keeps what it is given."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.refuse = False

    async def handle_DATA(self, _server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - the library calls it so
        if self.refuse:
            return "451 later"
        self.mails.append(envelope.content)
        self.tls, self.login = session.ssl is not None, session.auth_data
        return "250 OK"


@contextmanager
def smtp(inbox: Inbox, context: ssl.SSLContext | None) -> Iterator[int]:
    """A relay that takes the login guard/secret, over TLS only where it has a certificate."""

    def authenticator(*arguments: Any) -> AuthResult:
        data = arguments[4]
        good = (data.login, data.password) == (b"guard", b"secret")
        return AuthResult(success=good, auth_data="guard")

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(
        inbox,
        hostname="127.0.0.1",
        port=port,
        tls_context=context,
        require_starttls=context is not None,
        authenticator=authenticator,
        auth_require_tls=True,
        loop=asyncio.new_event_loop(),
    )
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


def test_a_mail_reaches_the_relay_over_tls_with_its_login(tmp_path: Path) -> None:
    certificate, key = made_certificate(tmp_path, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=str(certificate))
    inbox = Inbox()
    mail = forms.mail(message(), "guard@example.com", "ops@example.com", "d1")
    with smtp(inbox, context) as port:
        relay = Relay(
            host="localhost",
            port=port,
            security="starttls",
            user="guard",
            password="secret",
            sender="guard@example.com",
        )
        mailing.send(relay, mail, 5, trust)
        with pytest.raises(ssl.SSLCertVerificationError):
            mailing.send(relay, mail, 5)
        inbox.refuse = True
        with pytest.raises(smtplib.SMTPDataError):
            mailing.send(relay, mail, 5, trust)

    assert "secret" not in repr(relay)
    assert len(inbox.mails) == 1
    assert (inbox.tls, inbox.login) == (True, "guard")
    assert b"fraud is held." in inbox.mails[0]


def test_a_relay_without_tls_is_used_only_where_the_settings_say_so() -> None:
    inbox = Inbox()
    mail = forms.mail(message(), "guard@example.com", "ops@example.com", "d1")
    with smtp(inbox, None) as port:

        def relay(security: str) -> Relay:
            return Relay(
                host="127.0.0.1",
                port=port,
                security=security,
                user="",
                password="",
                sender="guard@example.com",
            )

        mailing.send(relay("none"), mail, 5)
        with pytest.raises(smtplib.SMTPNotSupportedError):
            mailing.send(relay("starttls"), mail, 5)
        with pytest.raises(OSError):  # noqa: PT011 - as the TLS library has it
            mailing.send(relay("tls"), mail, 1)
    nowhere = Relay(host="", port=1, security="none", user="", password="", sender="")
    with pytest.raises(InputError, match="GUARD_SMTP_HOST"):
        mailing.send(nowhere, mail, 1)

    assert len(inbox.mails) == 1


def test_what_is_sealed_opens_for_its_own_destination_with_its_own_key_only(
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys" / "hooks.key"
    target = Target(address="https://a.example/secret", secret="whsec_x")
    sealed = sealing.seal(file, "one", target)

    assert sealing.unseal(file, "one", sealed) == target
    assert file.stat().st_mode & 0o777 == 0o600
    assert "secret" not in repr(target)
    assert sealing.seal(file, "one", target) != sealed, "each has a nonce of its own"
    other = tmp_path / "other.key"
    sealing.seal(other, "x", target)
    for place, hook_id, text in ((file, "two", sealed), (other, "one", sealed), (file, "one", "")):
        with pytest.raises(IntegrityMismatch, match="does not open"):
            sealing.unseal(place, hook_id, text)
    with pytest.raises(InputError, match="cannot be read"):
        sealing.unseal(tmp_path / "none.key", "one", sealed)
    other.write_text("QUJD")
    with pytest.raises(InputError, match="no key of 32 bytes"):
        sealing.seal(other, "one", target)
    assert list(tmp_path.glob("keys/.*")) == []


def test_whoever_makes_the_key_first_has_made_it(tmp_path: Path) -> None:
    file = tmp_path / "hooks.key"
    sealing._make(file)
    before = file.read_bytes()
    sealing._make(file)

    assert file.read_bytes() == before


def test_a_key_of_a_back_up_takes_no_other_ones_place(tmp_path: Path) -> None:
    file, other, target = tmp_path / "a" / "hooks.key", tmp_path / "b.key", Target(address="x")
    sealed = sealing.seal(file, "one", target)
    sealing.bring_back(other, file.read_bytes())
    sealing.bring_back(other, b"another")

    assert sealing.unseal(other, "one", sealed) == target
    assert other.stat().st_mode & 0o777 == 0o600
    with pytest.raises(InputError, match="cannot be written"):
        sealing.bring_back(other / "below", b"x")


def test_every_type_has_its_fields() -> None:
    assert set(FIELDS) == set(EventType)
    assert all(set(fields) <= set(ALL_FIELDS) for fields in FIELDS.values())


def test_a_destination_gets_what_it_asked_for() -> None:
    kind = EventType.VERDICT
    assert wants((), (), kind, "")
    assert wants(("guard.verdict.*",), ("team-a/",), kind, "team-a/fraud")
    assert not wants(("guard.alarm.*",), (), kind, "fraud")
    assert not wants((), ("team-a/",), kind, "team-b/fraud")
    assert not wants((), ("team-a/",), EventType.ALARM_RAISED, ""), "nor what is about no model"
    assert not wants((), (), EventType.TEST, "")
    assert check_types(["guard.verdict.*", "guard.verdict.*"]) == ("guard.verdict.*",)
    with pytest.raises(InputError, match="fits no type"):
        check_types(["guard.nothing"])


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("verdict_expiring", EventType.EXPIRING),
        ("canary_failed", EventType.CANARY_FAILED),
        ("serving_withdrawn", EventType.DRIFT),
        ("tag_failed", EventType.TAG_FAILED),
        ("dead_letter", EventType.ALARM_RAISED),
    ],
)
def test_some_alarms_are_events_of_a_type_of_their_own(kind: str, event: EventType) -> None:
    assert of_alarm(kind) is event
