"""One request: to the pinned address, without redirects or proxies, bounded in time and size."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from guard.notify import sending
from guard.notify.addresses import Refused, Rules, read_url
from guard.notify.sending import NoAnswer, post
from tests.notify.receiver import Receiver, receiver

RULES = Rules.of(["127.0.0.1", "inside"])
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as facts:
        yield facts


@contextmanager
def raw(speak: Callable[[socket.socket], None]) -> Iterator[int]:
    """A receiver that speaks as it likes to each caller; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                try:
                    peer.recv(65536)
                    speak(peer)
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def call(port: int, seconds: float = 2.0, body: bytes = b"{}") -> sending.Answer:
    place = read_url(f"http://127.0.0.1:{port}/in?a=b", RULES)
    return post(place, body, HEADERS, rules=RULES, seconds=seconds)


def test_a_receiver_gets_the_body_under_its_name_at_the_pinned_address(there: Receiver) -> None:
    place = read_url(f"http://inside:{there.port}/in?a=b", RULES)

    answer = post(
        place,
        b'{"a": 1}',
        HEADERS,
        rules=RULES,
        seconds=2,
        resolver=lambda _host, _port: ["127.0.0.1"],
    )

    assert (answer.status, answer.taken, answer.excerpt) == (204, True, "")
    path, headers, body = there.got[0]
    assert (path, body, headers["host"]) == ("/in?a=b", b'{"a": 1}', f"inside:{there.port}")
    assert headers["content-type"] == "application/json"


@pytest.mark.threat("C12")
def test_a_redirect_is_an_answer_and_is_not_followed(there: Receiver) -> None:
    there.answer = (302, {"Location": f"http://127.0.0.1:{there.port}/latest/meta-data"}, b"go")

    answer = call(there.port)

    assert (answer.status, answer.taken, answer.excerpt) == (302, False, "go")
    assert len(there.got) == 1


@pytest.mark.threat("C12")
def test_no_proxy_of_the_environment_is_used(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert call(there.port).taken


@pytest.mark.threat("C12")
def test_an_address_that_may_not_be_called_is_not_connected_to(there: Receiver) -> None:
    place = read_url(f"https://rebound.example:{there.port}/", RULES)

    with pytest.raises(Refused):
        post(place, b"", {}, rules=RULES, seconds=1, resolver=lambda *_: ["127.0.0.1"])
    assert there.got == []


def test_what_is_kept_of_an_error_is_short_and_cannot_steer_a_terminal(there: Receiver) -> None:
    there.answer = (500, {}, b"\x1b[2J<script>" + b"x" * 5000)

    excerpt = call(there.port).excerpt

    assert excerpt.startswith("\\x1b[2J<script>xxx")
    assert len(excerpt) <= 200


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("120", 120, 120),
        ("99999999999999", sending.LONGEST_WAIT, sending.LONGEST_WAIT),
        ("soon", 0, 0),
        ("-5", 0, 0),
        ("in 90 s", 10, 91),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, 0),
        ("Sun, 06 Nov 2094 08:49:37 -0000", sending.LONGEST_WAIT, sending.LONGEST_WAIT),
    ],
)
def test_how_long_a_receiver_wants_to_be_left_alone_is_read(
    there: Receiver, header: str, low: float, high: float
) -> None:
    if header == "in 90 s":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    there.answer = (429, {"Retry-After": header}, b"")

    assert low <= call(there.port).wait <= high


def test_a_receiver_that_drips_is_left_at_the_deadline() -> None:
    def drip(peer: socket.socket) -> None:
        for _ in range(100):
            peer.sendall(b"X")
            time.sleep(0.02)

    with raw(drip) as port:
        begun = time.monotonic()
        with pytest.raises(OSError, match="time"):
            call(port, seconds=0.3)
        assert time.monotonic() - begun < 1.5


def test_an_error_whose_body_never_ends_is_known_by_its_status() -> None:
    def speak(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 503 Down\r\nContent-Length: 90\r\nX: y\r\n\r\nsorry")
        time.sleep(0.5)

    with raw(speak) as port:
        answer = call(port, seconds=0.3)

    assert (answer.status, answer.excerpt) == (503, "sorry")


def test_a_flood_is_cut_off() -> None:
    def flood(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 400 No\r\n\r\n")
        while True:
            peer.sendall(b"y" * 4096)

    with raw(flood) as port:
        answer = call(port)

    assert (answer.status, answer.excerpt) == (400, "y" * 200)


@pytest.mark.parametrize("text", [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_no_http_is_no_answer(text: bytes) -> None:
    with raw(lambda peer: peer.sendall(text)) as port, pytest.raises(NoAnswer):
        call(port)


def test_a_chunked_error_is_read_as_far_as_it_goes() -> None:
    head = b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n"
    with raw(lambda peer: peer.sendall(head + b"5\r\nhello\r\nzz\r\n")) as port:
        answer = call(port)

    assert (answer.status, answer.excerpt) in {(500, "hello"), (500, "")}


def test_nothing_that_listens_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(OSError):  # noqa: PT011 - refused or reset, as the system has it
        call(port)


def test_the_certificate_must_be_for_the_name_not_the_address(tmp_path: Path) -> None:
    certificate, key = made_certificate(tmp_path, "inside.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    trust = ssl.create_default_context(cafile=str(certificate))
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)

    def speak(peer: socket.socket) -> None:
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with tls(context, speak) as port:
        rules = Rules.of(["inside.example", "other.example"])

        def to(host: str) -> sending.Answer:
            place = read_url(f"https://{host}:{port}/", rules)
            return post(
                place,
                b"x",
                {},
                rules=rules,
                seconds=3,
                resolver=lambda *_: ["127.0.0.1"],
                trust=trust,
            )

        assert to("inside.example").taken
        with pytest.raises(ssl.SSLCertVerificationError):
            to("other.example")
    assert asked[0] == "inside.example"


@contextmanager
def tls(context: ssl.SSLContext, speak: Callable[[socket.socket], None]) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                try:
                    wrapped = context.wrap_socket(peer, server_side=True)
                    wrapped.recv(65536)
                    speak(wrapped)
                    wrapped.close()
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def made_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a name, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return files
