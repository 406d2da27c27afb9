"""All settings, each with name, default, unit and help; only this file reads the environment.

The rows are in one file a group beside this one; documentation shows the groups in the order of
Settings' base classes from the last to the first.

A setting called `name` is the variable `GUARD_NAME`. An unknown `GUARD_*` variable is an error,
since a misspelt limit would not be in force.
"""

import difflib
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from guard.core.errors import InputError
from guard.core.places import keep_apart
from guard.core.secret import Secret as Secret  # a type of settings, also for others
from guard.settings._access import Access
from guard.settings._intake import Intake
from guard.settings._keeping import Keeping
from guard.settings._notifying import Notifying
from guard.settings._observing import Observing
from guard.settings._open_inference import OpenInferencePlaces
from guard.settings._places import Places
from guard.settings._registries import Registries
from guard.settings._row import UNSET
from guard.settings._serving import Serving
from guard.settings._signon import SignOn
from guard.settings._vetting import Vetting

PREFIX = "GUARD_"
#: Names that platforms usually set; the GUARD_ name wins where both are set.
ALIASES = {"DATABASE_URL": "database_url", "REDIS_URL": "redis_url", "HF_HOME": "hf_home"}
_TRUE, _FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off"}


@dataclass(frozen=True, kw_only=True)
class Settings(
    Registries,
    Keeping,
    Notifying,
    Observing,
    OpenInferencePlaces,
    Serving,
    Vetting,
    SignOn,
    Access,
    Intake,
    Places,
):
    """The settings of one process; paths are absolute once loaded from the environment."""

    def __post_init__(self) -> None:
        def fill(name: str, value: Any) -> None:
            if getattr(self, name) in ("", (), UNSET):
                object.__setattr__(self, name, value)

        fill("data_dir", Path.home() / ".local" / "share" / "registry-guard")
        fill("hf_home", Path.home() / ".cache" / "huggingface")
        fill("database_url", f"sqlite:///{self.data_dir / 'guard.db'}")
        fill("blob_url", str(self.data_dir / "blobs"))
        fill("intake_buckets", (self.intake_bucket,))
        fill("signing_key_file", self.data_dir / "keys" / "signing.pem")
        fill("model_signing_key_file", self.data_dir / "keys" / "model-signing.pem")
        fill("trusted_keys_file", self.data_dir / "keys" / "trusted.json")
        fill("hooks_key_file", self.data_dir / "keys" / "hooks.key")
        fill("checkpoint_dir", self.data_dir / "checkpoints")
        fill("torchserve_run_dir", self.data_dir / "torchserve")
        fill("torchserve_store", self.torchserve_run_dir / "model-store")
        fill("open_inference_run_dir", self.data_dir / "open-inference")
        fill("open_inference_management", f"unix:{self.open_inference_run_dir / 'm.sock'}")
        fill("open_inference_store", self.open_inference_run_dir / "store")
        fill("published_dir", self.data_dir / "published")
        _check_names(self.served_name, self.cleanset_map)
        if self.smtp_tls not in {"starttls", "tls", "none"}:
            raise InputError(f"{PREFIX}SMTP_TLS must be starttls, tls or none.", code="bad_setting")
        _check_sources(self.mlflow_sources)
        stores = ("torchserve_store", "open_inference_store")
        own = ("blob_url", "checkpoint_copy", "plugins", "published_dir", *stores)
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


def _check_sources(pairs: tuple[str, ...]) -> None:
    for pair in pairs:
        start, _, target = pair.rpartition("=")
        if not start or not target.startswith("s3://"):
            raise InputError(
                f"{PREFIX}MLFLOW_SOURCES holds {pair!r}, which is not FROM=s3://BUCKET/PREFIX.",
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
            values[name] = _parse(variable, env[variable], kinds[name], lows[name])
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
