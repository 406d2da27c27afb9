"""No notification goes where only the guard could reach: server-side request forgery (C12)."""

from collections.abc import Sequence

import pytest

from guard.core.errors import InputError
from guard.notify.addresses import Refused, Rules, pin, read_url, system_resolver

NONE = Rules()


def leading_to(*addresses: str) -> object:
    def resolver(_host: str, _port: int) -> Sequence[str]:
        return addresses

    return resolver


@pytest.mark.threat("C12")
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "169.254.1.1",
        "0.0.0.0",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:4136:e378::1",
        "2001:db8::1",
    ],
)
def test_a_name_that_leads_to_no_public_address_is_refused(address: str) -> None:
    place = read_url("https://receiver.example/in", NONE)

    with pytest.raises(Refused):
        pin(place, NONE, leading_to(address))  # type: ignore[arg-type]
    with pytest.raises(Refused):
        pin(place, NONE, leading_to("93.184.216.34", address))  # type: ignore[arg-type]


@pytest.mark.threat("C12")
def test_a_public_name_is_pinned_to_the_address_that_was_checked() -> None:
    place = read_url("https://Receiver.Example.:8443/in?x=1", NONE)
    answers = iter([["93.184.216.34", "2606:2800:220:1::1"], ["127.0.0.1"]])

    assert pin(place, NONE, lambda _host, _port: next(answers)) == "93.184.216.34"
    assert (place.host, place.port, place.target) == ("receiver.example", 8443, "/in?x=1")
    with pytest.raises(Refused):  # its DNS answers otherwise by now
        pin(place, NONE, lambda _host, _port: next(answers))
    with pytest.raises(OSError, match="no address"):
        pin(place, NONE, leading_to())  # type: ignore[arg-type]


@pytest.mark.threat("C12")
@pytest.mark.parametrize(
    "url",
    [
        "http://receiver.example/",
        "ftp://receiver.example/",
        "file:///etc/passwd",
        "https://",
        "https:///path",
        "https://user:secret@receiver.example/",
        "https://receiver.example/#part",
        "https://receiver.example:99999/",
        "https://receiver.example:port/",
        "https://receiver.example/a b",
        "https://receiver.example/\r\nHost: other",
        "https://rec\u00e4iver.example/",
        "https://receiver.example/" + "a" * 2000,
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:7f00:1]/",
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://-a.example/",
        "https://169.254.169.254/latest/meta-data/",
    ],
)
def test_a_url_of_another_form_is_refused_before_any_name_is_looked_up(url: str) -> None:
    with pytest.raises(Refused):
        read_url(url, NONE)


def test_what_the_settings_list_may_be_private() -> None:
    rules = Rules.of(["Inside", "127.0.0.1", "10.1.0.0/16"])

    plain = read_url("http://inside:8080/in", rules)
    assert (plain.secure, plain.port, plain.shown) == (False, 8080, "http://inside:8080/…")
    assert pin(plain, rules, leading_to("192.168.1.9")) == "192.168.1.9"  # type: ignore[arg-type]
    assert read_url("http://127.0.0.1/in", rules).port == 80
    other = read_url("https://other.example/in", rules)
    assert pin(other, rules, leading_to("10.1.2.3")) == "10.1.2.3"  # type: ignore[arg-type]
    for address in ("10.2.0.1", "127.0.0.1", "::ffff:10.1.2.3"):
        with pytest.raises(Refused):
            pin(other, rules, leading_to(address))  # type: ignore[arg-type]
    with pytest.raises(Refused, match="https"):
        read_url("http://other.example/in", rules)
    with pytest.raises(InputError, match="no network"):
        Rules.of(["10.1.0.0/99"])


@pytest.mark.threat("C12")
@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fd00:ec2::254"])
def test_a_metadata_service_is_never_called_whatever_is_listed(address: str) -> None:
    rules = Rules.of(["inside", "169.254.0.0/16", "::/0", address])

    with pytest.raises(Refused, match="metadata"):
        pin(read_url("http://inside/", rules), rules, leading_to(address))  # type: ignore[arg-type]


def test_only_host_and_port_of_a_url_are_shown() -> None:
    place = read_url("https://hooks.slack.example/services/T0/B0/verysecret?x=y", NONE)

    assert place.shown == "https://hooks.slack.example/…"
    public = read_url("https://[2606:4700::1111]:444/x", NONE)
    assert public.authority == "[2606:4700::1111]:444"


def test_the_system_resolves_numbers_as_well() -> None:
    assert set(system_resolver("127.0.0.1", 80)) == {"127.0.0.1"}
