"""An API over a real database, called in-process.

Its store is out of reach, since the API must not need it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.bootstrap import open_guard
from guard.flow.context import Guard
from guard.settings import Secret, Settings
from tests import sqlite
from tests.api.provider import CLIENT, HERE, SECRET, OpenIdProvider, running

TOKEN, KEY = "reader-token", "hmac-key"


@dataclass
class Clock:
    """The Guard's clock, moved by hand."""

    time: datetime = field(default_factory=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.time

    def pass_time(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guard(tmp_path: Path, clock: Clock) -> Guard:
    settings = Settings(
        data_dir=tmp_path,
        database_url=sqlite.migrated(tmp_path),
        webhook_token=Secret(TOKEN),
        webhook_hmac_key=Secret(KEY),
        s3_endpoint="http://127.0.0.1:9",
        s3_access_key="a",
        s3_secret_key=Secret("b"),
        intake_bucket="models",
    )
    return replace(open_guard(settings), now=clock)


@pytest.fixture
def provider(clock: Clock) -> Iterator[OpenIdProvider]:
    with running(clock) as made:
        yield made


@pytest.fixture
def known(guard: Guard, provider: OpenIdProvider) -> Guard:
    """A guard that people sign on to."""
    settings = replace(
        guard.settings,
        public_url=HERE,
        oidc_issuer=provider.issuer,
        oidc_client_id=CLIENT,
        oidc_client_secret=Secret(SECRET),
        oidc_roles=("ml=reviewer", "ml=uploader", "lead=operator", "x=y=viewer"),
    )
    return replace(guard, settings=settings)


@pytest.fixture
def anyone(guard: Guard) -> Iterator[TestClient]:
    """A caller without credentials."""
    with TestClient(create_app(guard), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(anyone: TestClient) -> TestClient:
    """A caller with the token."""
    anyone.headers["Authorization"] = f"Bearer {TOKEN}"
    return anyone


def event(
    key: str = "in/a/m.pt", version: str | None = "v1", bucket: str = "models"
) -> dict[str, Any]:
    """A notification of S3."""
    thing = {"key": key, "versionId": version}
    return {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": bucket}, "object": thing},
            }
        ]
    }
