"""Submit a model without an event: an object of an intake bucket, or a local file."""

from pathlib import Path

from guard.core.manifest import MANIFEST_FILE
from guard.core.preprocessor import PREPROCESSOR_FILE
from guard.core.roles import Act
from guard.core.shards import is_index
from guard.core.transformers_configs import lacks_preprocessor
from guard.events import Nomination
from guard.flow import _object_keys, _quotas
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow.context import Guard
from guard.flow.nominate import record
from guard.flow.principals import Principal, may_submit
from guard.store import nominations
from guard.store.rows import NominationRow
from guard.store.session import reading, transaction
from guard.vetting.model_path import locate, shards_beside


def submit(
    guard: Guard, who: Principal | str, bucket: str, key: str, version_id: str | None = None
) -> str:
    """Nominate an object of an intake bucket; returns the id. Raises as `nominated`."""
    return nominated(guard, who, bucket, key, version_id).id


def nominated(
    guard: Guard, who: Principal | str, bucket: str, key: str, version_id: str | None = None
) -> NominationRow:
    """Nominate an object of an intake bucket.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.may_submit`.
        QuotaExceeded: the project of the key used what it may.
    """
    wanted = Nomination(bucket=bucket, key=key, version_id=version_id, source="submit")
    place = f"s3://{_object_keys.shown(bucket)}/{_object_keys.shown(key)}"
    with transaction(guard.engine) as session:
        who = may_submit(guard, session, who, bucket, key)
        _quotas.check_submission(session, bucket, key, guard.now())
        new = record(session, wanted, guard.now(), guard.settings.intake_buckets)
        detail = "" if version_id is None else f"version {_object_keys.shown(version_id)}"
        note(guard, session, who, Act.SUBMIT, place, detail, {"nomination": new})
        row = nominations.get(session, new)
    settle(guard)
    return row


def submit_file(guard: Guard, who: Principal | str, path: Path, name: str) -> str:
    """Upload a model file and its `config.json` to the intake bucket under `models/<name>/`.

    Then nominate it.

    Args:
        path: a model file, or a folder with `model.safetensors` (or shards and their index) and
            `config.json`.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.may_submit`; nothing was uploaded.
        QuotaExceeded: as `submit`; nothing was uploaded.
        InputError: there is no such file, or the folder holds no model.
    """
    weights, manifest = locate(path)
    key = f"models/{name}/{weights.name}"
    with reading(guard.engine) as session:
        may_submit(guard, session, who, guard.settings.intake_bucket, key)
        _quotas.check_submission(session, guard.settings.intake_bucket, key, guard.now())
    bucket = guard.make_bucket(guard.settings.intake_bucket)
    if manifest is not None:
        bucket.upload(manifest, f"models/{name}/{MANIFEST_FILE}")
        images = manifest.with_name(PREPROCESSOR_FILE)
        if lacks_preprocessor(manifest.read_bytes()) and images.is_file():
            bucket.upload(images, f"models/{name}/{PREPROCESSOR_FILE}")
    for part in shards_beside(weights) if is_index(weights.name) else ():
        bucket.upload(part, f"models/{name}/{part.name}")
    version = bucket.upload(weights, key)
    return submit(guard, who, bucket.name, key, version)
