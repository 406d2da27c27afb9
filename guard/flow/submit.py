"""Submit a model without an event: an object of an intake bucket, or a local file."""

from pathlib import Path

from guard.core.manifest import MANIFEST_FILE
from guard.events import Nomination
from guard.flow.context import Guard
from guard.flow.receive import nominate
from guard.vetting.model_path import locate


def submit(guard: Guard, bucket: str, key: str, version_id: str | None = None) -> str:
    """Nominate an object of an intake bucket and return the nomination's id."""
    wanted = Nomination(bucket=bucket, key=key, version_id=version_id, source="submit")
    return nominate(guard.engine, [wanted], guard.now(), buckets=guard.settings.intake_buckets)[0]


def submit_file(guard: Guard, path: Path, name: str) -> str:
    """Upload a model file and its `config.json` under `models/<name>/`, then nominate it.

    Args:
        path: a model file, or a folder with `model.safetensors` and `config.json`.

    Raises:
        InputError: there is no such file, or the folder contains no model.
    """
    weights, manifest = locate(path)
    bucket = guard.make_bucket(guard.settings.intake_bucket)
    if manifest is not None:
        bucket.upload(manifest, f"models/{name}/{MANIFEST_FILE}")
    key = f"models/{name}/{weights.name}"
    version = bucket.upload(weights, key)
    return submit(guard, bucket.name, key, version)
