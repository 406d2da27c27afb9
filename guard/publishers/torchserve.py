"""TorchServe 0.12 as a place to serve.

The guard's own archive, fixed calls, and a look at what is really there.

Order of a publish: 1 write the archive by digest, 2 register, 3 wait for a worker, 4 compare the
digest that it and the disk tell, 5 compare its answers with the vetted ones, 6 make it the default,
7 drain and delete other versions. Killed at any line and run again, the result is the same.
"""

import contextlib
import time
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from guard.core.contracts import Publisher, Receipt, Served, Smoke
from guard.core.errors import InputError, IntegrityMismatch, Unavailable
from guard.publishers._archive import (
    DRAFT,
    Archive,
    check_names,
    is_ours,
    names_in,
    payload_of,
    release_in,
    same_release,
    write_archive,
)
from guard.publishers._extracts import Extracts, Found
from guard.publishers._management import Management, Refusal
from guard.publishers._weights import Hashes

_POLL_SECONDS = 0.1
_DRAIN_LIMIT_SECONDS = 30.0
_STALE_DRAFT_SECONDS = 3600.0


class NotReady(Unavailable):
    """No worker could load the model in time."""

    code = "not_ready"


class Torchserve(Publisher):
    """Publishes to one TorchServe whose folders are readable here.

    A verdict that is renewed makes another archive under the same version; TorchServe cannot hold
    both, so that version is away for the second or two in which its worker starts.

    Args:
        management: `http://127.0.0.1:PORT` or `unix:/path`.
        inference: `http://127.0.0.1:PORT`.
        run_dir: the server's working folder; holds `key_file.json`.
        store: its model store; this process is the only writer.
        tmp: its `java.io.tmpdir`, `run_dir/tmp` if not given; archives are unpacked in
            `tmp/models`.
        ready_seconds: how long a worker may take to load a model.
        request_seconds: how long one request may take before TorchServe kills the worker.
        drain_seconds: how long an older version must have been idle before it is deleted; longer
            than a request.
        call_seconds: limit of one call to TorchServe.
    """

    def __init__(
        self,
        *,
        management: str,
        inference: str,
        run_dir: Path,
        store: Path,
        tmp: Path | None = None,
        ready_seconds: float = 60.0,
        request_seconds: float = 10.0,
        drain_seconds: float = 2.0,
        call_seconds: float = 15.0,
    ) -> None:
        self._store = store
        self._ready_seconds = ready_seconds
        self._request_seconds = request_seconds
        self._drain_seconds = drain_seconds
        self._api = Management(
            management=management,
            inference=inference,
            keys=run_dir / "key_file.json",
            seconds=call_seconds,
        )
        self._extracts = Extracts((tmp or run_dir / "tmp") / "models", store)

    def publish(self, approved: Any, weights: BinaryIO, smoke: Smoke) -> Receipt:
        name, version = approved.name, approved.version
        check_names(name, version)
        if not smoke.images or len(smoke.images) != len(smoke.probabilities):
            raise InputError(
                "Publishing needs smoke samples, one row of probabilities for each picture."
            )
        archive = self._registered(approved) or self._register(approved, weights)
        try:
            self._await_ready(name, version)
            self._check_identity(approved, archive.file)
            self._check_answers(name, version, smoke)
        except (IntegrityMismatch, NotReady, Refusal):
            self.withdraw(name, version)
            raise
        self._api.set_default(name, version)
        self._retire_others(name, version)
        return Receipt(
            publisher="torchserve",
            name=name,
            version=version,
            digest=approved.digest,
            archive_digest=archive.digest,
            detail={"archive": archive.file},
        )

    def withdraw(self, name: str, version: str) -> None:
        for row in self._api.describe(name, version or None):
            self._unregister(name, str(row.get("modelVersion")))
            self._delete_archive(str(row.get("modelUrl", "")))
        try:
            for file in self._store.glob("*.mar"):
                if is_ours(file.name, name, version) and names_in(file) == (name, version):
                    file.unlink(missing_ok=True)
            self._extracts.purge(name, version)
        except OSError as error:
            raise Unavailable(
                f"{name} {version} does not answer any more, but its files could not be deleted "
                f"({error}); check the "
                "rights on TorchServe's folders."
            ) from error
        if self._api.describe(name, version or None) or (not version and name in self._api.names()):
            raise IntegrityMismatch(
                f"TorchServe still lists {name!r} {version!r} and cannot remove it; restart it, "
                "it starts empty.",
                code="cannot_withdraw",
            )

    def state(self) -> list[Served]:
        found: list[Served] = []
        for name in self._api.names():
            rows = self._api.describe(name, "all")
            default = {str(row.get("modelVersion")) for row in self._api.describe(name)}
            if not rows:
                # Names such as "../x" can be registered but not asked about; they must not escape
                # the list.
                found.append(
                    Served(
                        name=name,
                        version="",
                        digest=None,
                        ready=True,
                        default=True,
                        detail={"problem": "TorchServe cannot describe it"},
                    )
                )
            for row in rows:
                found.append(
                    self._served(name, row, default=str(row.get("modelVersion")) in default)
                )
        return found

    def _served(self, name: str, row: dict[str, Any], *, default: bool) -> Served:
        version, file, ready = (
            str(row.get("modelVersion")),
            str(row.get("modelUrl", "")),
            _ready(row),
        )
        # A stranger's handler is not asked: it could keep us waiting, and what it says counts for
        # nothing.
        said = self._said(name, version) if ready and is_ours(file, name, version) else None
        seen = self._look(name, version, file, said)
        detail = {"archive": file} | ({"problem": seen.problem} if seen.problem else {})
        return Served(
            name=name,
            version=version,
            digest=seen.digest,
            ready=ready,
            default=default,
            detail=detail,
        )

    def _look(self, name: str, version: str, file: str, said: dict[str, Any] | None) -> Found:
        """What is served, by the bytes on the disk.

        The handler's own word (None: no answer) only has to agree.
        """
        if not is_ours(file, name, version):
            return Found(digest=None, problem="the guard did not publish it")
        folders = self._extracts.of(name, version)
        # A failed registration of the same name leaves a copy behind; the worker says which one it
        # lives in.
        folders = [
            folder for folder in folders if said and folder.name == said.get("extract")
        ] or folders
        seen = Found(digest=None, problem="no unpacked copy of it was found")
        for folder in folders:
            seen = self._extracts.look(folder, file)
            if seen.problem:
                return seen
        told = None if said is None else (said.get("name"), said.get("version"), said.get("digest"))
        if told is not None and told != (name, version, seen.digest):
            return Found(
                digest=None, problem="its worker does not report what its unpacked copy holds"
            )
        return seen

    def _said(self, name: str, version: str) -> dict[str, Any] | None:
        """What the handler tells of itself.

        None where it gives no answer in time, as a busy one may.
        """
        try:
            rows = self._api.describe(name, version, handler=True)
        except Unavailable:
            return None
        said = rows[0].get("customizedMetadata") if rows else None
        return said if isinstance(said, dict) else {}

    def _registered(self, approved: Any) -> Archive | None:
        """The archive under which this very release is registered already.

        By a publish that was cut short.
        """
        for row in self._api.describe(approved.name, approved.version):
            file = str(row.get("modelUrl", ""))
            if is_ours(file, approved.name, approved.version) and same_release(
                release_in(self._store / file), payload_of(approved.release_envelope)
            ):
                if not _ready(row):
                    # TorchServe gives up on a worker for good after some minutes; only 0 and then 1
                    # wakes it.
                    self._api.set_workers(approved.name, approved.version, 0)
                    self._api.set_workers(approved.name, approved.version, 1)
                return Archive(file=file, digest=Hashes().of(self._store / file))
        return None

    def _register(self, approved: Any, weights: BinaryIO) -> Archive:
        self._sweep_drafts()
        self.withdraw(
            approved.name, approved.version
        )  # an older release, a half-made registration, somebody's own
        try:
            archive = write_archive(approved, weights, self._store)
        except OSError as error:
            raise Unavailable(
                f"TorchServe's model store cannot be written ({error}); make room or fix its "
                "rights."
            ) from error
        self._api.register(
            archive.file,
            startup_seconds=self._ready_seconds,
            response_seconds=self._request_seconds,
        )
        return archive

    def _await_ready(self, name: str, version: str) -> None:
        deadline = time.monotonic() + self._ready_seconds
        while time.monotonic() < deadline:
            if any(_ready(row) for row in self._api.describe(name, version)):
                return
            if reason := self._extracts.refusal(name, version):
                raise IntegrityMismatch(
                    f"The handler refused {name} {version}: {reason}", code="handler_refused"
                )
            time.sleep(_POLL_SECONDS)
        raise NotReady(
            f"TorchServe had no worker for {name} {version} after {self._ready_seconds:g} s; see "
            "its log."
        )

    def _check_identity(self, approved: Any, file: str) -> None:
        said = self._said(approved.name, approved.version)
        if said is None:
            raise NotReady(
                f"The worker of {approved.name} {approved.version} does not say what it serves."
            )
        seen = self._look(approved.name, approved.version, file, said)
        if seen.problem or seen.digest != approved.digest:
            problem = seen.problem or f"its weights have the digest {str(seen.digest)[:12]}"
            raise IntegrityMismatch(
                f"TorchServe would serve {approved.name} {approved.version} wrongly: {problem}.",
                code="served_other",
            )

    def _check_answers(self, name: str, version: str, smoke: Smoke) -> None:
        for picture, expected in zip(smoke.images, smoke.probabilities, strict=True):
            try:
                answer = self._api.predict(name, version, picture)
            except Refusal as refusal:
                if refusal.status >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                raise IntegrityMismatch(
                    f"{name} {version} refuses a vetted picture: {refusal.sentence}",
                    code="smoke_refused",
                ) from refusal
            given = answer.get("probabilities") if isinstance(answer, dict) else None
            # Written so that NaN, and anything that is no list of numbers, does not pass.
            close = (
                isinstance(given, list)
                and len(given) == len(expected)
                and all(
                    isinstance(one, float | int) and abs(one - other) <= smoke.tolerance
                    for one, other in zip(given, expected, strict=True)
                )
            )
            if not close:
                raise IntegrityMismatch(
                    f"{name} {version} answers a vetted picture otherwise than the vetted model.",
                    code="smoke_differs",
                )

    def _retire_others(self, name: str, keep: str) -> None:
        for row in self._api.describe(name, "all"):
            version = str(row.get("modelVersion"))
            if version != keep:
                if _ready(row):
                    self._drain(name, version)
                self.withdraw(name, version)

    def _drain(self, name: str, version: str) -> None:
        """Wait until nobody waits.

        Whoever is in the queue of a deleted version never gets an answer.
        """
        start = idle_since = time.monotonic()
        while (
            now := time.monotonic()
        ) - idle_since < self._drain_seconds and now - start < _DRAIN_LIMIT_SECONDS:
            for row in self._api.describe(name, version):
                if row.get("jobQueueStatus", {}).get("pendingRequests"):
                    idle_since = now
            time.sleep(_POLL_SECONDS)

    def _unregister(self, name: str, version: str) -> None:
        others = [str(row.get("modelVersion")) for row in self._api.describe(name, "all")]
        with contextlib.suppress(
            Refusal
        ):  # a registration without workers; deleting is what counts
            self._api.set_workers(name, version, 0)
        try:
            self._api.unregister(name, version)
        except Refusal as refusal:
            others = [other for other in others if other != version]
            if refusal.status == httpx.codes.FORBIDDEN and others:
                # TorchServe keeps a default as long as there are other versions.
                self._api.set_default(name, others[-1])
                self._api.unregister(name, version)
            elif refusal.status != httpx.codes.NOT_FOUND:
                raise

    def _delete_archive(self, file: str) -> None:
        """Delete what a registration came from, if it lies in the store.

        Other places are not ours to touch.
        """
        if Path(file).name == file and file not in {"", ".", ".."} and not self._in_use(file):
            try:
                (self._store / file).unlink(missing_ok=True)
            except OSError as error:
                raise Unavailable(
                    f"{file} could not be deleted from TorchServe's model store ({error})."
                ) from error

    def _in_use(self, file: str) -> bool:
        """Whether a model is registered from this file.

        One archive may be registered under a second name.
        """
        rows = [row for name in self._api.names() for row in self._api.describe(name, "all")]
        return any(row.get("modelUrl") == file for row in rows)

    def _sweep_drafts(self) -> None:
        for draft in self._store.glob(f"{DRAFT}*"):
            try:
                if time.time() - draft.stat().st_mtime > _STALE_DRAFT_SECONDS:
                    draft.unlink(missing_ok=True)
            except OSError:
                # Another publisher was faster, or the write that follows says what is wrong
                continue


def _ready(row: dict[str, Any]) -> bool:
    return any(worker.get("status") == "READY" for worker in row.get("workers", []))
