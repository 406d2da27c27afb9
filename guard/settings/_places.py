"""Where the guard keeps things: database, broker, store, keys, ledger."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass
from pathlib import Path

from guard.core.secret import Secret
from guard.settings._row import UNSET, row


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where the guard keeps things: database, broker, store, keys, ledger."""

    data_dir: Path = row(
        UNSET,
        "folder for everything the guard keeps on this machine",
        derived="~/.local/share/registry-guard",
    )
    database_url: str = row(
        "", "SQLAlchemy URL of the database", derived="sqlite:///<data_dir>/guard.db", shown=False
    )
    redis_url: str = row("redis://127.0.0.1:6379/0", "broker of the workers", shown=False)
    s3_endpoint: str = row("", "URL of an S3-compatible store; empty means AWS")
    s3_region: str = row("us-east-1", "region that requests are signed for")
    s3_access_key: str = row("", "access key; empty means the AWS SDK's own chain of credentials")
    s3_secret_key: Secret = row(Secret(), "secret key of the access key")
    blob_url: str = row(
        "", "folder, or s3://bucket/prefix, of the guard's own copies", derived="<data_dir>/blobs"
    )
    hf_home: Path = row(
        UNSET,
        "cache of the Hugging Face Hub for `guard scan hf://`, read only",
        derived="HF_HOME, or ~/.cache/huggingface",
    )
    signing_key_file: Path = row(
        UNSET, "Ed25519 private key that signs verdicts", derived="<data_dir>/keys/signing.pem"
    )
    trusted_keys_file: Path = row(
        UNSET, "public keys whose signatures count", derived="<data_dir>/keys/trusted.json"
    )
    model_signing_key_file: Path = row(
        UNSET,
        "EC private key that signs published files for OpenSSF Model Signing; without the file "
        "nothing is signed so",
        derived="<data_dir>/keys/model-signing.pem",
    )
    checkpoint_dir: Path = row(
        UNSET,
        "folder of the ledger's checkpoints, best on another disk than the database",
        derived="<data_dir>/checkpoints",
    )
    checkpoint_bucket: str = row(
        "", "bucket that checkpoints are copied to, versioned or locked; empty means none"
    )
    checkpoint_copy: Path | None = row(
        None, "existing folder on another volume that they are copied to; empty means none"
    )
    plugins: Path | None = row(None, "folder of plug-ins, which only the guard's user may write")
    log_level: str = row("info", "debug, info, warning or error")
    log_json: bool = row(default=True, text="log lines as JSON; otherwise as plain text")
