"""Registries of others that are told what may be served."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass

from guard.core.secret import Secret
from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class Registries:
    """Registries of others that are told what may be served."""

    mlflow_url: str = row("", "MLflow server of `guard mlflow sync`, http://... or https://...")
    mlflow_token: Secret = row(Secret(), "its bearer token, or USER:PASSWORD")
    mlflow_sources: tuple[str, ...] = row(
        (),
        "where MLflow's sources lie in S3: FROM=s3://BUCKET/PREFIX, such as of mlflow-artifacts:/",
    )
