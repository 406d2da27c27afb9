"""Build the one `Guard` that use cases work with.

It joins settings, database, blobs, policy, keys and publisher.
"""

from functools import cache
from typing import Any

from guard import logs, traces
from guard.blobs import open_blobs
from guard.core import plugins
from guard.core.contracts import Publisher
from guard.core.errors import InputError, PolicyError
from guard.core.modality import Modality
from guard.events.bucket import Bucket, make_client
from guard.flow.context import Guard
from guard.flow.keys import signer_of, trusted_of
from guard.policy import NamedPolicies, Policy, default_policy, load_policy
from guard.publishers import PUBLISHERS
from guard.settings import Settings, child_environment, load_settings
from guard.store.migrate import upgrade
from guard.store.session import make_engine


def open_guard(settings: Settings | None = None) -> Guard:
    """Build a Guard.

    Only the database's own folder is created; connections are opened when they are first used.

    Raises:
        InputError: a setting, the policy file or the folder of plug-ins is wrong; the sentence
            names it.
    """
    settings = settings or load_settings()
    plugins.use(settings.plugins)
    logs.hide(settings)
    traces.start(settings.otlp_endpoint, settings.otlp_headers)
    if settings.publisher not in PUBLISHERS:
        raise InputError(
            f"GUARD_PUBLISHER names {settings.publisher!r}; there are "
            f"{', '.join(PUBLISHERS.names())}.",
            code="bad_setting",
        )
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Making a client costs half a second; threads may share it.
    client = cache(lambda: _client(settings))
    engine = make_engine(settings.database_url)
    guard = Guard(
        settings=settings,
        engine=engine,
        blobs=open_blobs(settings.blob_url, client=client, cache=settings.data_dir / "blob-cache"),
        policy=policy_in_force(settings, Modality.IMAGES),
        others={Modality.GRAPHS: policy_in_force(settings, Modality.GRAPHS)},
        named_policy=NamedPolicies(settings.policy_folder),
        make_bucket=lambda name: Bucket(client(), name),
        make_signer=lambda: signer_of(guard),
        make_trusted=lambda: trusted_of(engine, settings.trusted_keys_file),
        make_publisher=lambda: _publisher(settings),
        child_environment=_child_environment(settings),
    )
    return guard


def policy_in_force(settings: Settings, modality: Modality) -> Policy:
    """The policy that the settings name for models of a modality, or the packaged one.

    Raises:
        PolicyError: the file is wrong, or its policy is for models of another modality.
    """
    images = modality is Modality.IMAGES
    file = settings.policy_file if images else settings.graph_policy_file
    policy = default_policy(modality) if file is None else load_policy(file)
    if policy.modality is not modality:
        raise PolicyError(
            f"GUARD_{'' if images else 'GRAPH_'}POLICY_FILE names policy {policy.name}, which is "
            f"for {policy.modality} models; it must be for {modality} models."
        )
    return policy


def upgrade_database(settings: Settings) -> None:
    """Bring the schema up to this release."""
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    upgrade(settings.database_url)


def _child_environment(settings: Settings) -> dict[str, str]:
    own = child_environment()
    # A stack that runs on this data folder may have set another folder than our settings have.
    own.pop("GUARD_PLUGINS", None)
    return own if settings.plugins is None else own | {"GUARD_PLUGINS": str(settings.plugins)}


def _client(settings: Settings) -> Any:
    return make_client(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.reveal(),
    )


def _publisher(settings: Settings) -> Publisher:
    return PUBLISHERS.get(settings.publisher).configured(settings)
