"""All settings, each with name, default, unit and help; only this file reads the environment.

A setting called `name` is the variable `GUARD_NAME`. An unknown `GUARD_*` variable is an error,
since a misspelt limit would not be in force.
"""
# ruff: noqa: RUF009 - `_row` is `dataclasses.field` with our metadata

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, get_type_hints

from guard.core.errors import InputError
from guard.core.places import keep_apart
from guard.core.secret import Secret as Secret  # noqa: PLC0414 - a type of settings, also for others

PREFIX = "GUARD_"
#: Names that platforms usually set; the GUARD_ name wins where both are set.
ALIASES = {"DATABASE_URL": "database_url", "REDIS_URL": "redis_url"}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


def _row(
    default: Any,
    text: str,
    *,
    unit: str = "",
    low: float = -math.inf,
    derived: str = "",
    shown: bool = True,
) -> Any:
    """One setting with its default and help.

    `derived` describes the value of an unset setting; `shown=False` keeps passwords out of repr.
    """
    return field(
        default=default,
        repr=shown,
        metadata={"help": text, "unit": unit, "low": low, "derived": derived},
    )


_UNSET = Path()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process; paths are absolute once loaded from the environment."""

    data_dir: Path = _row(
        _UNSET,
        "folder for everything the guard keeps on this machine",
        derived="~/.local/share/registry-guard",
    )
    database_url: str = _row(
        "", "SQLAlchemy URL of the database", derived="sqlite:///<data_dir>/guard.db", shown=False
    )
    redis_url: str = _row("redis://127.0.0.1:6379/0", "broker of the workers", shown=False)
    s3_endpoint: str = _row("", "URL of an S3-compatible store; empty means AWS")
    s3_region: str = _row("us-east-1", "region that requests are signed for")
    s3_access_key: str = _row("", "access key; empty means the AWS SDK's own chain of credentials")
    s3_secret_key: Secret = _row(Secret(), "secret key of the access key")
    intake_bucket: str = _row("models", "bucket that uploads arrive in")
    intake_buckets: tuple[str, ...] = _row(
        (), "all buckets whose objects may be nominated, comma-separated", derived="<intake_bucket>"
    )
    allow_unversioned: bool = _row(
        default=False,
        text="accept objects without a version id, known by ETag and LastModified only",
    )
    blob_url: str = _row(
        "", "folder, or s3://bucket/prefix, of the guard's own copies", derived="<data_dir>/blobs"
    )
    max_upload_bytes: int = _row(
        4 << 30, "larger uploads are refused before a byte is read", unit="bytes", low=1
    )
    max_classes: int = _row(25_000, "models of more classes are refused", low=2)
    max_parameters: int = _row(2_000_000_000, "of a network; larger ones are refused", low=1)
    max_network_tensors: int = _row(4_000, "of a network; deeper ones are refused", low=1)
    max_image_operations: int = _row(
        10**12, "multiplications and additions of one image in a network", low=1
    )
    max_molecule_operations: int = _row(10**11, "the same of one generated molecule", low=1)
    max_network_bytes: int = _row(
        16 << 30,
        "memory that weights and batches of a scan need by their shapes",
        unit="bytes",
        low=1,
    )
    served_name: str = _row(
        "{path}", "rule for served names, of {path}, {folder} (the last of it) and {bucket}"
    )
    uploader_scans: int = _row(100, "most scans that are open of one uploader", low=1)
    served_name_strip: str = _row(
        "models", "first folder of a key that is no part of the served name's {path}; / for none"
    )
    manifest_grace_seconds: float = _row(
        30.0, "how long weights wait for a config.json beside them", unit="s", low=0
    )
    sweep_seconds: float = _row(
        60.0, "how often buckets are listed for uploads whose event was lost", unit="s", low=1
    )
    sweep_limit: int = _row(1000, "the most nominations that one sweep makes", low=1)
    webhook_token: Secret = _row(
        Secret(),
        "bearer token of event senders, and of the operator `api` over API and command line; empty "
        "fits nobody",
    )
    token: Secret = _row(Secret(), "token of the principal who calls commands (`guard token`)")
    require_principals: bool = _row(
        default=False,
        text="acts need a token even where no principal exists; otherwise the login is taken, and "
        "verdicts are marked unauthenticated",
    )
    webhook_hmac_key: Secret = _row(
        Secret(), "key of signed events (HMAC-SHA256 over timestamp.body)"
    )
    webhook_window_seconds: float = _row(
        300.0, "how far a signed event may be in the past or future", unit="s", low=1
    )
    sqs_queue_url: str = _row("", "queue with S3 notifications; empty means none is polled")
    sqs_endpoint: str = _row("", "URL of an SQS-compatible service; empty means AWS")
    plugins: Path | None = _row(None, "folder of plug-ins, which only the guard's user may write")
    policy_file: Path | None = _row(
        None, "policy TOML, or a packaged one: default, strict, ensemble; empty: default"
    )
    graph_policy_file: Path | None = _row(None, "the same for text-to-graph models")
    trainset_buckets: tuple[str, ...] = _row((), "buckets of training sets; empty means none")
    max_trainset_bytes: int = _row(64 << 30, "limit of a training set", unit="bytes", low=1)
    default_cleanset: str = _row("", "clean set for models whose config.json names none")
    cleanset_map: tuple[str, ...] = _row(
        (),
        "clean sets by served name or key prefix, comma-separated: NAME=SET, teams/a/=SET, "
        "s3://bucket/teams/a/=SET; the longest prefix wins, a name before all",
    )
    cleanset_from_manifest: bool = _row(
        default=False, text="let config.json name another clean set than cleanset_map does"
    )
    signing_key_file: Path = _row(
        _UNSET, "Ed25519 private key that signs verdicts", derived="<data_dir>/keys/signing.pem"
    )
    trusted_keys_file: Path = _row(
        _UNSET, "public keys whose signatures count", derived="<data_dir>/keys/trusted.json"
    )
    checkpoint_dir: Path = _row(
        _UNSET,
        "folder of the ledger's checkpoints, best on another disk than the database",
        derived="<data_dir>/checkpoints",
    )
    checkpoint_bucket: str = _row(
        "", "bucket that checkpoints are copied to, versioned or locked; empty means none"
    )
    checkpoint_copy: Path | None = _row(
        None, "existing folder on another volume that they are copied to; empty means none"
    )
    torchserve_management: str = _row(
        "http://127.0.0.1:8081", "management address, http://... or unix:/path"
    )
    torchserve_inference: str = _row(
        "http://127.0.0.1:8080", "inference address, http://... or unix:/path"
    )
    torchserve_run_dir: Path = _row(
        _UNSET, "its working folder: key_file.json and tmp/models", derived="<data_dir>/torchserve"
    )
    torchserve_store: Path = _row(
        _UNSET, "model store that only the guard writes", derived="<torchserve_run_dir>/model-store"
    )
    publisher: str = _row("torchserve", "who serves: torchserve, folder or a plug-in's name")
    published_dir: Path = _row(
        _UNSET, "what the publisher `folder` fills", derived="<data_dir>/published"
    )
    scan_seconds: float = _row(3600.0, "time limit of one stage of a scan", unit="s", low=1)
    scan_memory_bytes: int = _row(
        16 << 30, "address space of a scan's child process", unit="bytes", low=1 << 28
    )
    lease_seconds: float = _row(
        120.0, "a scan whose worker is silent for longer may be taken over", unit="s", low=1
    )
    device: str = _row("", "torch device of scans", derived="cuda where there is one, else cpu")
    auto_publish: bool = _row(
        default=True, text="publish cleared and purified models without a person's approval"
    )
    reconcile_seconds: float = _row(
        5.0, "how often served models are compared with those that may be served", unit="s", low=1
    )
    rescan_seconds: float = _row(
        300.0, "how often verdicts that must be renewed are looked for", unit="s", low=1
    )
    rescan_limit: int = _row(4, "most re-scans that are open at once", low=1)
    log_level: str = _row("info", "debug, info, warning or error")
    log_json: bool = _row(default=True, text="log lines as JSON; otherwise as plain text")

    def __post_init__(self) -> None:
        def fill(name: str, value: Any) -> None:
            if getattr(self, name) in ("", (), _UNSET):
                object.__setattr__(self, name, value)

        fill("data_dir", Path.home() / ".local" / "share" / "registry-guard")
        fill("database_url", f"sqlite:///{self.data_dir / 'guard.db'}")
        fill("blob_url", str(self.data_dir / "blobs"))
        fill("intake_buckets", (self.intake_bucket,))
        fill("signing_key_file", self.data_dir / "keys" / "signing.pem")
        fill("trusted_keys_file", self.data_dir / "keys" / "trusted.json")
        fill("checkpoint_dir", self.data_dir / "checkpoints")
        fill("torchserve_run_dir", self.data_dir / "torchserve")
        fill("torchserve_store", self.torchserve_run_dir / "model-store")
        fill("published_dir", self.data_dir / "published")
        _check_names(self.served_name, self.cleanset_map)
        own = ("blob_url", "checkpoint_copy", "plugins", "published_dir", "torchserve_store")
        places = {PREFIX + name.upper(): getattr(self, name) for name in own}
        if self.checkpoint_bucket:
            places[f"{PREFIX}CHECKPOINT_BUCKET"] = f"s3://{self.checkpoint_bucket}"
        keep_apart({*self.intake_buckets, *self.trainset_buckets}, places)
        if self.intake_bucket not in self.intake_buckets:
            raise InputError(
                f"{PREFIX}INTAKE_BUCKETS must name {PREFIX}INTAKE_BUCKET, {self.intake_bucket!r}."
            )


def _check_names(template: str, cleanset_map: tuple[str, ...]) -> None:
    if "{path}" not in template and "{folder}" not in template:
        raise InputError(
            f"{PREFIX}SERVED_NAME must hold {{path}} or {{folder}}; all models would share a name.",
            code="bad_setting",
        )
    for pair in cleanset_map:
        left, _, right = pair.rpartition("=")
        if not left.strip() or not right.strip():
            raise InputError(
                f"{PREFIX}CLEANSET_MAP holds {pair!r}, which is not NAME=SET or PREFIX=SET.",
                code="bad_setting",
            )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One setting as the documentation prints it."""

    name: str
    variable: str
    type: str
    default: str
    unit: str
    help: str


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings out of environment variables.

    Args:
        env: the variables; None means this process's own.

    Raises:
        InputError: a `GUARD_*` variable is unknown, or a value is of the wrong type or out of
            range; the message names the variable.
    """
    env = os.environ if env is None else env
    kinds = get_type_hints(Settings)
    lows = {item.name: item.metadata["low"] for item in fields(Settings)}
    values: dict[str, Any] = {}
    for variable, name in ALIASES.items():
        if env.get(variable):
            values[name] = env[variable]
    for variable, text in env.items():
        if variable.startswith(PREFIX):
            name = variable.removeprefix(PREFIX).lower()
            if name not in kinds or variable != PREFIX + name.upper():
                raise InputError(_unknown(variable, list(kinds)), code="unknown_setting")
            if text.strip():
                values[name] = _parse(variable, text.strip(), kinds[name], lows[name])
    return Settings(**values)


def plugin_folder(env: Mapping[str, str] | None = None) -> Path | None:
    """The folder in `GUARD_PLUGINS`, for a process that reads no other setting."""
    text = (os.environ if env is None else env).get(f"{PREFIX}PLUGINS", "").strip()
    return Path(text).expanduser().absolute() if text else None


def describe() -> list[Row]:
    """All settings in order, for the documentation, with defaults and never values."""
    kinds = get_type_hints(Settings)
    rows = []
    for item in fields(Settings):
        kind = kinds[item.name]
        default = item.metadata["derived"] or (
            "" if item.default in (MISSING, None) else str(item.default)
        )
        rows.append(
            Row(
                name=item.name,
                variable=PREFIX + item.name.upper(),
                type=_type_name(kind),
                default="" if kind is Secret else default,
                unit=item.metadata["unit"],
                help=item.metadata["help"],
            )
        )
    return rows


def _type_name(kind: Any) -> str:
    names = {
        tuple[str, ...]: "list",
        Path | None: "path",
        Path: "path",
        str: "text",
        Secret: "secret",
    }
    return names.get(kind) or str(kind.__name__)


def _unknown(variable: str, names: list[str]) -> str:
    near = difflib.get_close_matches(variable.removeprefix(PREFIX).lower(), names, n=1)
    hint = (
        f"; did you mean {PREFIX}{near[0].upper()}?"
        if near
        else "; docs/settings.md lists all settings."
    )
    return f"{variable} is not a setting{hint}"


def _parse(variable: str, text: str, kind: Any, low: float) -> Any:
    if kind is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise InputError(f"{variable} must be true or false.", code="bad_setting")
        return text.lower() in _TRUE
    if kind in (int, float):
        return _number(variable, text, kind, low)
    if kind in (Path, Path | None):
        named = variable.endswith("POLICY_FILE") and text.replace("-", "").isalnum()
        return Path(text) if named else Path(text).expanduser().absolute()  # a packaged policy
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return kind(text)


def _number(variable: str, text: str, kind: type[int] | type[float], low: float) -> int | float:
    try:
        number = kind(text)
    except ValueError:
        # The text is not repeated, since it may be a secret in the wrong variable.
        wanted = "an integer" if kind is int else "a number"
        raise InputError(f"{variable} must be {wanted}.", code="bad_setting") from None
    if not (math.isfinite(number) and number >= low):
        raise InputError(f"{variable} must be at least {low:g}.", code="bad_setting")
    return number


#: The variables that a scan's child process may see: those that locate Python and the devices, and
#: set the number of threads.
_CHILD_KEEPS = (
    "PATH",
    "LANG",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "COVERAGE_PROCESS_START",
)


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that handles untrusted weights: no credentials, no addresses."""
    env = os.environ if env is None else env
    kept = {name: env[name] for name in _CHILD_KEEPS if name in env}
    if (plugins := plugin_folder(env)) is not None:
        kept[f"{PREFIX}PLUGINS"] = str(plugins)
    # NumPy starts its threads when it is imported, and a job server may fork only while it has one
    # thread. Torch's own threads start with the first computation and are not limited here.
    return {
        **kept,
        "HOME": "/nonexistent",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "OPENBLAS_NUM_THREADS": "1",
    }
