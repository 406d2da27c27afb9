"""TorchServe 0.12 as a place to serve, with the guard's own archive, fixed calls, and checks.

Order of a publish: 1 write the archive by digest, 2 register, 3 wait for a worker, 4 compare the
digest that it reports with the one on disk, 5 compare its answers with the vetted ones, 6 make it
the default, 7 drain and delete other versions. A publish that is killed at any line and repeated
gives the same result.
"""

import contextlib
import time
from pathlib import Path
from typing import Any, BinaryIO, Self

import httpx

from guard.core.contracts import AnySmoke, Publisher, Receipt, Served
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

    A renewed verdict makes another archive under the same version. TorchServe cannot hold both, so
    that version is unavailable for the second or two in which its worker starts.

    Args:
        management: `http://127.0.0.1:PORT` or `unix:/path`.
        inference: `http://127.0.0.1:PORT`.
        run_dir: the server's working folder, which holds `key_file.json`.
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

    @classmethod
    def configured(cls, settings: Any) -> Self:
        return cls(
            management=settings.torchserve_management,
            inference=settings.torchserve_inference,
            run_dir=settings.torchserve_run_dir,
            store=settings.torchserve_store,
        )

    def publish(self, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:
        name, version = approved.name, approved.version
        check_names(name, version)
        if not smoke.usable:
            raise InputError("Publishing needs smoke samples, each with the vetted answer.")
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
                f"({error}); check the rights on TorchServe's folders."
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
                # Names such as "../x" can be registered but not described; they must be listed all
                # the same.
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
            found.extend(
                self._served(name, row, default=str(row.get("modelVersion")) in default)
                for row in rows
            )
        return found

    def _served(self, name: str, row: dict[str, Any], *, default: bool) -> Served:
        version, file, ready = (
            str(row.get("modelVersion")),
            str(row.get("modelUrl", "")),
            _ready(row),
        )
        # A foreign handler is not asked: it could keep the guard waiting, and its report proves
        # nothing.
        report = self._report(name, version) if ready and is_ours(file, name, version) else None
        seen = self._look(name, version, file, report)
        detail = {"archive": file} | ({"problem": seen.problem} if seen.problem else {})
        return Served(
            name=name,
            version=version,
            digest=seen.digest,
            ready=ready,
            default=default,
            detail=detail,
        )

    def _look(self, name: str, version: str, file: str, report: dict[str, Any] | None) -> Found:
        """What is served, according to the bytes on disk.

        The handler's own report (None if it did not answer) only has to agree.
        """
        if not is_ours(file, name, version):
            return Found(digest=None, problem="the guard did not publish it")
        folders = self._extracts.of(name, version)
        # A failed registration of the same name leaves a copy behind; the worker reports the folder
        # that it runs in.
        folders = [
            folder for folder in folders if report and folder.name == report.get("extract")
        ] or folders
        seen = Found(digest=None, problem="no unpacked copy of it was found")
        for folder in folders:
            seen = self._extracts.look(folder, file)
            if seen.problem:
                return seen
        if report is not None:
            reported = (report.get("name"), report.get("version"), report.get("digest"))
            if reported != (name, version, seen.digest):
                return Found(
                    digest=None, problem="its worker does not report what its unpacked copy holds"
                )
        return seen

    def _report(self, name: str, version: str) -> dict[str, Any] | None:
        """The handler's report about itself; None if it does not answer in time."""
        try:
            rows = self._api.describe(name, version, handler=True)
        except Unavailable:
            return None
        report = rows[0].get("customizedMetadata") if rows else None
        return report if isinstance(report, dict) else {}

    def _registered(self, approved: Any) -> Archive | None:
        """The archive under which an interrupted publish has registered this very release."""
        for row in self._api.describe(approved.name, approved.version):
            file = str(row.get("modelUrl", ""))
            if is_ours(file, approved.name, approved.version) and same_release(
                release_in(self._store / file), payload_of(approved.release_envelope)
            ):
                if not _ready(row):
                    # TorchServe gives up on a worker for good after some minutes; only setting 0
                    # and then 1 starts it again.
                    self._api.set_workers(approved.name, approved.version, 0)
                    self._api.set_workers(approved.name, approved.version, 1)
                return Archive(file=file, digest=Hashes().of(self._store / file))
        return None

    def _register(self, approved: Any, weights: BinaryIO) -> Archive:
        self._sweep_drafts()
        # It may be an older release, an unfinished registration, or somebody else's model.
        self.withdraw(approved.name, approved.version)
        try:
            archive = write_archive(approved, weights, self._store)
        except OSError as error:
            raise Unavailable(
                f"TorchServe's model store cannot be written ({error}); free space or fix its "
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
        report = self._report(approved.name, approved.version)
        if report is None:
            raise NotReady(
                f"The worker of {approved.name} {approved.version} does not report what it serves."
            )
        seen = self._look(approved.name, approved.version, file, report)
        if seen.problem or seen.digest != approved.digest:
            problem = seen.problem or f"its weights have the digest {str(seen.digest)[:12]}"
            raise IntegrityMismatch(
                f"TorchServe would serve {approved.name} {approved.version} wrongly: {problem}.",
                code="served_other",
            )

    def _check_answers(self, name: str, version: str, smoke: AnySmoke) -> None:
        for place, body in enumerate(smoke.bodies()):
            try:
                answer = self._api.predict(name, version, body)
            except Refusal as refusal:
                if refusal.status >= httpx.codes.INTERNAL_SERVER_ERROR:
                    raise
                raise IntegrityMismatch(
                    f"{name} {version} refuses a vetted {smoke.what}: {refusal.sentence}",
                    code="smoke_refused",
                ) from refusal
            if not smoke.agrees(place, answer):
                raise IntegrityMismatch(
                    f"{name} {version} and the vetted model answer differently to a vetted "
                    f"{smoke.what}.",
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
        """Wait until the queue is empty, because TorchServe drops requests to a deleted version."""
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
        # TorchServe refuses this for a registration without workers; only deleting matters.
        with contextlib.suppress(Refusal):
            self._api.set_workers(name, version, 0)
        try:
            self._api.unregister(name, version)
        except Refusal as refusal:
            others = [other for other in others if other != version]
            if refusal.status == httpx.codes.FORBIDDEN and others:
                # TorchServe does not delete the default as long as there are other versions.
                self._api.set_default(name, others[-1])
                self._api.unregister(name, version)
            elif refusal.status != httpx.codes.NOT_FOUND:
                raise

    def _delete_archive(self, file: str) -> None:
        """Delete the archive of a registration if it lies in the store, and no file elsewhere."""
        if Path(file).name == file and file not in {"", ".", ".."} and not self._in_use(file):
            try:
                (self._store / file).unlink(missing_ok=True)
            except OSError as error:
                raise Unavailable(
                    f"{file} could not be deleted from TorchServe's model store ({error})."
                ) from error

    def _in_use(self, file: str) -> bool:
        """Whether a model, perhaps of another name, is registered from this file."""
        rows = [row for name in self._api.names() for row in self._api.describe(name, "all")]
        return any(row.get("modelUrl") == file for row in rows)

    def _sweep_drafts(self) -> None:
        for draft in self._store.glob(f"{DRAFT}*"):
            try:
                if time.time() - draft.stat().st_mtime > _STALE_DRAFT_SECONDS:
                    draft.unlink(missing_ok=True)
            except OSError:
                # Another publisher was faster, or the write that follows reports what is wrong.
                continue


def _ready(row: dict[str, Any]) -> bool:
    return any(worker.get("status") == "READY" for worker in row.get("workers", []))
