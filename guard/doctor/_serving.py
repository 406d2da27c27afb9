"""Serving: it answers, and its management to nobody without a key."""

import json
import stat
from typing import TYPE_CHECKING

import httpx

from guard.doctor._check import OTHERS_WRITE, Check, Finding, Ground, failed, mode_of, ok, warning

if TYPE_CHECKING:
    from guard.settings import Settings

SECONDS = 5.0
_UNIX = "unix:"
_START = "Start TorchServe, or correct GUARD_TORCHSERVE_MANAGEMENT and GUARD_TORCHSERVE_INFERENCE."


def serving(ground: Ground) -> Finding:
    """Whether what serves is there and takes orders from the guard alone."""
    settings = ground.settings
    if settings.publisher == "torchserve":
        return _torchserve(settings)
    if settings.publisher != "folder":
        return ok(f"Publisher {settings.publisher} has no check of its own.")
    folder = settings.published_dir
    if not folder.is_dir():
        return warning(f"There is no folder {folder} yet.", "The first publication makes it.")
    if mode_of(folder) & OTHERS_WRITE:
        return failed(f"Others than the owner can write to {folder}.", f"chmod go-w {folder}")
    return ok(f"{folder} is its owner's alone to write.")


def _torchserve(settings: "Settings") -> Finding:
    try:
        with _client(settings.torchserve_inference) as client:
            client.get("/ping")
        with _client(settings.torchserve_management) as client:
            open_to_all = client.get("/models").is_success
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return failed(f"TorchServe does not answer ({type(error).__name__}).", _START)
    if open_to_all:
        return failed(
            "TorchServe's management needs no key: whoever reaches it serves anything.",
            "Start it with its token mode on (disable_token_authorization=false).",
        )
    keys = settings.torchserve_run_dir / "key_file.json"
    try:
        key = str(json.loads(keys.read_text())["management"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return failed(
            f"TorchServe's {keys} cannot be read, and the guard cannot publish.",
            "Set GUARD_TORCHSERVE_RUN_DIR to its working folder, on the same host.",
        )
    with _client(settings.torchserve_management) as client:
        answer = client.get("/models", headers={"Authorization": f"Bearer {key}"})
    if not answer.is_success:
        return failed(
            f"TorchServe refuses the key in {keys} ({answer.status_code}).",
            "It was started elsewhere: correct GUARD_TORCHSERVE_RUN_DIR.",
        )
    if keys.stat().st_mode & stat.S_IRWXO:
        return warning(
            f"Everybody on this host can read {keys}.", f"chmod o-rwx {keys}, or its folder."
        )
    return ok("TorchServe answers, and its management only to who has the key.")


def _client(address: str) -> httpx.Client:
    if address.startswith(_UNIX):
        transport = httpx.HTTPTransport(uds=address.removeprefix(_UNIX))
        return httpx.Client(transport=transport, base_url="http://torchserve", timeout=SECONDS)
    return httpx.Client(base_url=address, timeout=SECONDS, trust_env=False)


CHECKS = (Check("serving", serving),)
