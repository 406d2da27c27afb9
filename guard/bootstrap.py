"""Join settings, database, blobs, policy.

Keys and publisher into the one `Guard` that use cases work with.
"""

from functools import cache
from typing import Any

from guard.blobs import open_blobs
from guard.events.bucket import Bucket, make_client
from guard.flow.context import Guard
from guard.policy import load_policy
from guard.settings import Settings, child_environment, load_settings
from guard.store.migrate import upgrade
from guard.store.session import make_engine


def open_guard(settings: Settings | None = None) -> Guard:
    """Build a Guard. Nothing is connected to before it is used, but for the database's own folder.

    Raises:
        InputError: a setting or the policy file is wrong; the sentence names it.
    """
    settings = settings or load_settings()
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    client = cache(
        lambda: _client(settings)
    )  # making one costs half a second; it may be shared between threads
    return Guard(
        settings=settings,
        engine=make_engine(settings.database_url),
        blobs=open_blobs(settings.blob_url, client=client, cache=settings.data_dir / "blob-cache"),
        policy=load_policy(settings.policy_file),
        make_bucket=lambda name: Bucket(client(), name),
        make_signer=lambda: _signer(settings),
        make_trusted=lambda: _trusted(settings),
        make_publisher=lambda: _publisher(settings),
        child_environment=child_environment(),
    )


def upgrade_database(settings: Settings) -> None:
    """Bring the schema up to this release."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings.database_url)


def _client(settings: Settings) -> Any:
    return make_client(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.reveal(),
    )


def _signer(settings: Settings) -> Any:
    from guard.attest.keys import Signer, TrustedKeys

    signer = Signer.load_or_create(settings.signing_key_file)
    trusted = TrustedKeys.load(settings.trusted_keys_file)
    if not trusted.keys:
        # A new installation trusts the key it has just made; later keys are added by a person.
        trusted.trust(signer, settings.trusted_keys_file)
    return signer


def _trusted(settings: Settings) -> Any:
    from guard.attest.keys import TrustedKeys

    return TrustedKeys.load(settings.trusted_keys_file)


def _publisher(settings: Settings) -> Any:
    from guard.publishers import PUBLISHERS

    publisher: Any = PUBLISHERS.get("torchserve")
    return publisher(
        management=settings.torchserve_management,
        inference=settings.torchserve_inference,
        run_dir=settings.torchserve_run_dir,
        store=settings.torchserve_store,
    )
