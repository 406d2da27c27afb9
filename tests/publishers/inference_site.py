"""One real inference server for the whole test session, started the way `guard up` starts it."""

import atexit
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from guard.core.digests import sha256
from guard.core.errors import IntegrityMismatch, NotServable
from guard.local.supervisor import Stack
from guard.publishers._http import read_key
from guard.publishers._open_inference_api import Api
from guard.publishers.open_inference import OpenInference
from tests.publishers.making import Authority

_EXPORTED: dict[str, bytes] = {}


@dataclass(frozen=True)
class Site:
    """A running server, its folders, and whom it trusts."""

    stack: Stack
    management: str
    inference: str
    run_dir: Path
    store: Path
    authority: Authority

    def publisher(self, **options: Any) -> OpenInference:
        return OpenInference(
            management=self.management,
            inference=self.inference,
            run_dir=self.run_dir,
            store=self.store,
            trusted=self.authority.trusted,
            **{"exporter": exported_here, **options},
        )

    @property
    def api(self) -> Api:
        """The management key in an intruder's hands."""
        return Api(
            management=self.management,
            inference=self.inference,
            keys=self.run_dir / "key_file.json",
            seconds=20,
        )

    def client(self) -> httpx.Client:
        """What a client with the token of the inference address uses."""
        key = read_key(self.api._keys, "inference", "The inference server")
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.inference, headers=headers, timeout=20, trust_env=False)

    def clear(self) -> None:
        """Nothing is served."""
        publisher = self.publisher()
        for one in publisher.state():
            publisher.withdraw(one.name, one.version)
        for left in self.store.glob(".made-*"):  # of a publish that a test did not finish
            left.unlink()


@cache
def the_server() -> Site:
    """Started at the first call; ended with this process."""
    held = ExitStack()
    atexit.register(held.close)
    data = Path(held.enter_context(TemporaryDirectory(prefix="oi-"))) / "d"
    chosen = dict(os.environ) | {"GUARD_PUBLISHER": "open_inference"}
    stack = held.enter_context(Stack(data, chosen, parts=("open_inference",)))
    environment = stack.environment()
    authority = Authority(Path(environment["GUARD_TRUSTED_KEYS_FILE"]))
    stack.start()
    return Site(
        stack=stack,
        management=environment["GUARD_OPEN_INFERENCE_MANAGEMENT"],
        inference=environment["GUARD_OPEN_INFERENCE_ADDRESS"],
        run_dir=Path(environment["GUARD_OPEN_INFERENCE_RUN_DIR"]),
        store=Path(environment["GUARD_OPEN_INFERENCE_STORE"]),
        authority=authority,
    )


def exported_here(weights: Path, digest: str, out: Path, *, seconds: float) -> str:
    """The real export, in this process, where torch is loaded already; once for each model."""
    from guard.serving import onnx_export

    if digest not in _EXPORTED:
        answer = onnx_export.main([str(weights), digest, str(out)])
        if "sentence" in answer:
            kind = IntegrityMismatch if answer["changed"] else NotServable
            raise kind(str(answer["sentence"]))
        _EXPORTED[digest] = out.read_bytes()
    out.write_bytes(_EXPORTED[digest])
    return sha256(_EXPORTED[digest])
