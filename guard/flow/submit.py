"""Submit a model without an event: an object of an intake bucket, or a local file."""

from pathlib import Path

from guard.core.manifest import MANIFEST_FILE
from guard.events import Nomination
from guard.flow.context import Guard
from guard.flow.principals import Principal, may_submit
from guard.flow.receive import nominate
from guard.vetting.model_path import locate


def submit(
    guard: Guard, who: Principal | str, bucket: str, key: str, version_id: str | None = None
) -> str:
    """Nominate an object of an intake bucket; returns the nomination's id.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.may_submit`.
    """
    may_submit(guard, who, bucket, key)
    wanted = Nomination(bucket=bucket, key=key, version_id=version_id, source="submit")
    return nominate(guard.engine, [wanted], guard.now(), buckets=guard.settings.intake_buckets)[0]


def submit_file(guard: Guard, who: Principal | str, path: Path, name: str) -> str:
    """Upload a model file and its `config.json` to the intake bucket under `models/<name>/`.

    Then nominate it.

    Args:
        path: a model file, or a folder with `model.safetensors` and `config.json`.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.may_submit`; nothing was uploaded.
        InputError: there is no such file, or the folder holds no model.
    """
    weights, manifest = locate(path)
    key = f"models/{name}/{weights.name}"
    may_submit(guard, who, guard.settings.intake_bucket, key)
    bucket = guard.make_bucket(guard.settings.intake_bucket)
    if manifest is not None:
        bucket.upload(manifest, f"models/{name}/{MANIFEST_FILE}")
    version = bucket.upload(weights, key)
    return submit(guard, who, bucket.name, key, version)
