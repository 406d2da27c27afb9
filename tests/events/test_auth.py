"""Only who holds the token or the key may send; a recorded request does not work twice."""

from datetime import UTC, datetime, timedelta

import pytest

from guard.events.auth import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    Seen,
    Unauthorised,
    check_auth,
    sign,
    signature_of,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BODY = b'{"Records": []}'
TOKEN, KEY = "a-token", "a-key"


def check(
    headers: dict[str, str],
    body: bytes = BODY,
    *,
    token: str = TOKEN,
    hmac_key: str = KEY,
    now: datetime = NOW,
    seen: Seen | None = None,
) -> bool:
    check_auth(headers, body, token=token, hmac_key=hmac_key, now=now, seen=seen)
    return True


def test_the_token_in_any_spelling_of_the_header_is_let_in() -> None:
    for headers in ({"Authorization": f"Bearer {TOKEN}"}, {"authorization": f"bearer {TOKEN} "}):
        assert check(headers)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {TOKEN}x",
        "Bearer tökén",
    ],
)
def test_any_other_token_is_kept_out(given: str) -> None:
    with pytest.raises(Unauthorised):
        check({"Authorization": given})


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": "Bearer "}, {"Authorization": "Bearer"}, sign(BODY, "", NOW)]
)
def test_without_a_configured_token_or_key_nobody_gets_in(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorised):
        check(headers, token="", hmac_key="")


def test_a_fresh_signature_is_let_in() -> None:
    assert check(sign(BODY, KEY, NOW), token="")


def test_a_signature_is_of_this_body_key_and_time() -> None:
    good = sign(BODY, KEY, NOW)
    later = {**good, TIMESTAMP_HEADER: str(int(NOW.timestamp()) + 1)}
    for headers, body in (
        (good, BODY + b" "),
        (sign(BODY, "other", NOW), BODY),
        (later, BODY),
        ({SIGNATURE_HEADER: good[SIGNATURE_HEADER]}, BODY),
        ({TIMESTAMP_HEADER: "1"}, BODY),
        ({**good, TIMESTAMP_HEADER: "12.5"}, BODY),
        ({**good, TIMESTAMP_HEADER: "-5"}, BODY),
        ({**good, SIGNATURE_HEADER: "sha256=ü"}, BODY),
    ):
        with pytest.raises(Unauthorised, match="does not fit"):
            check(headers, body)


@pytest.mark.parametrize("seconds", [-301, 301, -(10**6), 10**6])
def test_old_and_future_dated_signatures_are_kept_out(seconds: int) -> None:
    with pytest.raises(Unauthorised, match="clock") as caught:
        check(sign(BODY, KEY, NOW + timedelta(seconds=seconds)))
    assert caught.value.code == "stale_event"


def test_a_bad_signature_is_not_saved_by_a_good_token() -> None:
    with pytest.raises(Unauthorised):
        check({**sign(BODY, "other", NOW), "Authorization": f"Bearer {TOKEN}"})


@pytest.mark.threat("A03")
def test_a_replayed_request_is_kept_out_as_long_as_its_time_is_fresh() -> None:
    seen, headers = Seen(), sign(BODY, KEY, NOW)
    check(headers, seen=seen)

    for later in (0, 1, 299):
        with pytest.raises(Unauthorised, match="before") as caught:
            check(headers, now=NOW + timedelta(seconds=later), seen=seen)
        assert caught.value.code == "replayed_event"


def test_after_a_failure_of_ours_the_sender_may_repeat_the_request() -> None:
    seen, headers = Seen(), sign(BODY, KEY, NOW)
    check(headers, seen=seen)
    seen.forget(signature_of(headers))

    assert check(headers, seen=seen)


def test_the_memory_of_signatures_is_bounded_and_forgets_what_is_stale() -> None:
    seen = Seen(capacity=3)
    for number in range(10):
        assert seen.first_time(f"s{number}", now=0, until=10)
    assert len(seen._until) == 3

    seen.first_time("late", now=11, until=20)

    assert list(seen._until) == ["late"]
