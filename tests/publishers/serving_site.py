"""One real TorchServe for the whole test session, started the way `guard up` starts it."""

import atexit
import os
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from guard.local.supervisor import Stack
from guard.publishers._http import read_key
from guard.publishers._management import Management
from guard.publishers.torchserve import Torchserve
from tests.publishers.making import Authority


@dataclass(frozen=True)
class Site:
    """A running TorchServe, its folders, and whom it trusts."""

    management: str
    inference: str
    run_dir: Path
    store: Path
    authority: Authority
    pid: int

    def publisher(self, **options: Any) -> Torchserve:
        return Torchserve(
            management=self.management,
            inference=self.inference,
            run_dir=self.run_dir,
            store=self.store,
            **{"ready_seconds": 40.0, "drain_seconds": 0.3, **options},
        )

    @property
    def api(self) -> Management:
        """The management key in an intruder's hands."""
        return Management(
            management=self.management,
            inference=self.inference,
            keys=self.run_dir / "key_file.json",
            seconds=20,
        )

    @property
    def extracts(self) -> list[Path]:
        return sorted((self.run_dir / "tmp" / "models").iterdir())

    def predict(
        self,
        name: str,
        body: bytes | str,
        kind: str = "image/png",
        version: str = "",
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """What a client sees."""
        key = read_key(self.api._keys, "inference", "TorchServe")
        sent = {"Authorization": f"Bearer {key}", "Content-Type": kind, **(headers or {})}
        path = f"{name}/{version}" if version else name
        return httpx.post(
            f"{self.inference}/predictions/{path}", content=body, headers=sent, timeout=20
        )

    def clear(self) -> None:
        """Nothing is served."""
        publisher = self.publisher()
        for one in sorted(publisher.state(), key=lambda one: one.default):
            publisher.withdraw(one.name, one.version)
        for file in self.store.iterdir():
            file.unlink()


@cache
def the_site() -> Site:
    """Started at the first call; ended with this process."""
    held = ExitStack()
    atexit.register(held.close)
    data = Path(held.enter_context(TemporaryDirectory(prefix="gt-"))) / "d"
    stack = held.enter_context(Stack(data, dict(os.environ), parts=("torchserve",)))
    environment = stack.environment()
    authority = Authority(Path(environment["GUARD_TRUSTED_KEYS_FILE"]))
    stack.start()
    return Site(
        management=environment["GUARD_TORCHSERVE_MANAGEMENT"],
        inference=environment["GUARD_TORCHSERVE_INFERENCE"],
        run_dir=Path(environment["GUARD_TORCHSERVE_RUN_DIR"]),
        store=Path(environment["GUARD_TORCHSERVE_STORE"]),
        authority=authority,
        pid=stack.status()[0].pid or 0,
    )
