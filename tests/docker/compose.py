"""What `docker compose` makes of compose.yaml: interpolation, env files, profiles.

Written from the Compose Specification, for the part of it that docker/ uses; anything else fails.
"""

import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.house.sources import ROOT

FOLDER = ROOT / "docker"
COMPOSE = FOLDER / "compose.yaml"
OPEN_INFERENCE = FOLDER / "open-inference.yaml"
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:?[-?])([^${}]*))?\})")


class Missing(Exception):
    """A variable that the file insists on is not set."""


@dataclass(frozen=True)
class Mount:
    """A volume: `source` is its name, or a path of the host."""

    source: str
    target: str
    read_only: bool

    @property
    def named(self) -> bool:
        return not self.source.startswith((".", "/"))


def new_env(*device: str) -> dict[str, str]:
    """The `.env` that docker/new-env prints, with secrets of its own."""
    printed = subprocess.run(
        [str(FOLDER / "new-env"), *device], capture_output=True, text=True, check=True
    )
    lines = [line for line in printed.stdout.splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def interpolate(text: str, env: Mapping[str, str]) -> str:
    """`text` with its variables replaced; raises Missing as compose does for `${NAME:?reason}`."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if name is None:
            return "$"
        found = env.get(name)
        unset = found is None or ((operator or "").startswith(":") and not found)
        if unset and operator and operator.endswith("?"):
            raise Missing(f"{name}: {rest}")
        return rest if unset and operator and operator.endswith("-") else found or ""

    assert "$" not in _VARIABLE.sub("", text), f"no variable of ours: {text}"
    return _VARIABLE.sub(value, text)


def _merge(under: Any, over: Any) -> Any:
    if isinstance(under, dict) and isinstance(over, dict):
        return under | {key: _merge(under.get(key), value) for key, value in over.items()}
    return over


def load(env: Mapping[str, str], *files: Path) -> dict[str, Any]:
    """The model of `files` (compose.yaml alone if none), with all profiles, without extensions."""
    merged: dict[str, Any] = {}
    for path in files or (COMPOSE,):
        merged = _merge(merged, _replaced(yaml.safe_load(path.read_text()), env))
    for network in merged["networks"].values():
        if isinstance(network.get("internal"), str):  # compose reads a variable's text as a boolean
            network["internal"] = {"true": True, "false": False}[network["internal"]]
    return {key: value for key, value in merged.items() if not key.startswith("x-")}


def running(model: Mapping[str, Any], profiles: Iterable[str] = ()) -> dict[str, Any]:
    """The services that `up` starts, each behind those that it depends on."""
    wanted = set(profiles)
    active = {
        name: service
        for name, service in model["services"].items()
        if not service.get("profiles") or wanted & set(service["profiles"])
    }
    order: dict[str, Any] = {}

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, f"{above} in a circle"
        for other, how in active[name].get("depends_on", {}).items():
            if other in active:
                visit(other, (*above, name))
            else:
                assert how.get("required") is False, f"{name} needs {other}, which is not started"
        order.setdefault(name, active[name])

    for name in active:
        visit(name, ())
    return order


def mounts(service: Mapping[str, Any]) -> list[Mount]:
    """The volumes of a service."""
    parts = [text.split(":") for text in service.get("volumes", [])]
    return [Mount(part[0], part[1], part[2:] == ["ro"]) for part in parts]


def in_memory(service: Mapping[str, Any]) -> list[str]:
    """The folders of a service that are gone when it ends."""
    return [text.split(":")[0] for text in service["tmpfs"]]


def environment(service: Mapping[str, Any], folder: Path = FOLDER) -> dict[str, str]:
    """A service's own variables, over those of its env files in `folder`."""
    found: dict[str, str] = {}
    for file in service.get("env_file", []):
        path = folder / file["path"]
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if line and line[0] != "#"]
            found |= dict(line.split("=", 1) for line in lines)
        else:
            assert file["required"] is False, f"{path} is missing"
    return found | {name: str(value) for name, value in service.get("environment", {}).items()}


def _replaced(value: Any, env: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _replaced(item, env) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, env) for item in value]
    return interpolate(value, env) if isinstance(value, str) else value
