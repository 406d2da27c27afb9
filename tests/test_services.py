"""The services that other tests stand on are real, private and closed to strangers."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
import redis

from tests.services import shared_weed, start_valkey, stop


@pytest.mark.parametrize("path", ["/", "/ready/probe"])
def test_the_store_refuses_strangers(path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(shared_weed().endpoint + path, timeout=5)
    assert caught.value.code == 403


def test_the_broker_answers_and_keeps_to_itself(tmp_path: Path) -> None:
    valkey = start_valkey(tmp_path / "valkey")
    client = redis.Redis.from_url(valkey.url)

    client.set("k", "v")

    assert client.get("k") == b"v"
    assert client.config_get("bind")["bind"] == "127.0.0.1"
    stop(valkey.process)
