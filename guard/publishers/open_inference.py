"""The guard's own server of the open inference protocol (KServe and Triton v2) as a place to serve.

Order of a publish: 1 `prepare` has the weights exported to ONNX, and the release that is signed
names that file, 2 file and release go into the store, 3 the server loads them, 4 it is compared
with the release what the server has loaded, 5 its answers are compared with the vetted ones, 6 it
becomes the default, 7 other versions are unloaded. A publish that is killed at any line and
repeated gives the same result.
"""

from pathlib import Path
from typing import Any, BinaryIO, Self

from guard.core.contracts import AnySmoke, Publisher, Receipt, Served, ServedForm, Smoke
from guard.core.digests import json_digest
from guard.core.errors import InputError, IntegrityMismatch, Unavailable
from guard.publishers._archive import check_names
from guard.publishers._export import Exporter, export
from guard.publishers._onnx_store import OnnxStore, served_digest
from guard.publishers._open_inference_api import Api

_BATCH_BYTES = 3 << 20  # base64 of it fits into the server's limit of one body
#: Two classes whose vetted probabilities differ by less are equally good (float32 rounds so).
_TIE = 1e-6


class OpenInference(Publisher):
    """Publishes to one `guard.inference` whose folders are readable here.

    A new version, and a renewed verdict, take over without a gap: the server swaps in one step.

    Args:
        management: `unix:/path`.
        inference: `http://127.0.0.1:PORT`.
        run_dir: the server's working folder, which holds `key_file.json`.
        store: its model store; this process is the only writer.
        trusted: file of the public keys that sign releases.
        export_seconds: how long the export of one model may take.
        call_seconds: limit of one call; loading a model is one.
        exporter: what makes the ONNX file; a child process unless a test runs it here.
    """

    def __init__(
        self,
        *,
        management: str,
        inference: str,
        run_dir: Path,
        store: Path,
        trusted: Path,
        export_seconds: float = 600.0,
        call_seconds: float = 60.0,
        exporter: Exporter = export,
    ) -> None:
        self._called = f"{inference}/v2/models"
        self._keys = run_dir / "key_file.json"
        self._store = OnnxStore(store, trusted, seconds=export_seconds, exporter=exporter)
        self._api = Api(
            management=management, inference=inference, keys=self._keys, seconds=call_seconds
        )

    @classmethod
    def configured(cls, settings: Any) -> Self:
        return cls(
            management=settings.open_inference_management,
            inference=settings.open_inference_address,
            run_dir=settings.open_inference_run_dir,
            store=settings.open_inference_store,
            trusted=settings.trusted_keys_file,
            export_seconds=settings.export_seconds,
        )

    def prepare(self, digest: str, weights: BinaryIO) -> ServedForm:
        try:
            self._store.sweep()
            return self._store.make(digest, weights)
        except OSError as error:
            raise _unwritable(error) from error

    def publish(self, approved: Any, weights: BinaryIO, smoke: AnySmoke) -> Receipt:  # noqa: ARG002 - `prepare` had them
        name, version = approved.name, approved.version
        check_names(name, version)
        if not isinstance(smoke, Smoke) or not smoke.usable:
            raise InputError("Publishing needs smoke images, each with the vetted answer.")
        wanted = served_digest(approved)
        try:
            if not self._store.holds(approved):
                self._store.write(approved)
            if not self._serves(name, version, self._loaded().get((name, version), {})):
                self._api.load(name, version)
            self._check_identity(approved, wanted)
            self._check_answers(name, version, smoke)
        except IntegrityMismatch:
            self.withdraw(name, version)
            raise
        except OSError as error:
            raise _unwritable(error) from error
        finally:
            self._store.forget(approved.digest)
        self._api.make_default(name, version)
        for other, its in {*self._loaded(), *self._store.entries()}:
            if other == name and its != version:
                self.withdraw(other, its)
        digests = self._store.digests(name, version)
        return Receipt(
            publisher="open_inference",
            name=name,
            version=version,
            digest=approved.digest,
            archive_digest=json_digest(digests),
            detail={"members": digests},
        )

    def calling(self, name: str) -> str:
        return (
            f"POST a request of the open inference protocol (KServe, Triton v2) to "
            f"{self._called}/{name}/infer with the header `Authorization: Bearer KEY`; KEY is "
            f"`inference.key` in {self._keys}, another one after each start of the server."
        )

    def withdraw(self, name: str, version: str) -> None:
        for other, its in self._loaded():
            if other == name and version in ("", its):
                self._api.unload(name, its)
        try:
            self._store.remove(name, version)
        except OSError as error:
            raise Unavailable(
                f"{name} {version} does not answer any more, but its files could not be deleted "
                f"({error}); check the rights on the model store."
            ) from error

    def state(self) -> list[Served]:
        rows = self._loaded()
        return [
            self._served(name, version, rows.get((name, version), {}))
            for name, version in sorted({*rows, *self._store.entries()})
        ]

    def _loaded(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The server's entries by name and version; what it refused to load is among them."""
        return {(str(row.get("name")), str(row.get("version"))): row for row in self._api.listed()}

    def _serves(self, name: str, version: str, row: dict[str, Any]) -> bool:
        """Whether the server has loaded the release that lies in the store."""
        return row.get("state") == "READY" and row.get("release") == self._store.release_digest(
            name, version
        )

    def _served(self, name: str, version: str, row: dict[str, Any]) -> Served:
        view, problem = self._store.look(name, version)
        ready = row.get("state") == "READY"
        if not ready:
            problem = str(row.get("reason") or problem or "the server has not loaded it")
        elif view is not None and not self._serves(name, version, row):
            # Another release lies in the store than was loaded: a publish is on its way, or ended
            # half-way. It counts as not served, so that it is published again.
            ready = False
        elif view is not None and (row.get("digest"), row.get("subject")) != (
            view.served and view.served.digest,
            view.digest,
        ):
            problem = "the server holds other bytes than those that were released"
        sound = ready and view is not None and not problem
        return Served(
            name=name,
            version=version,
            digest=view.digest if sound and view is not None else None,
            ready=ready,
            default=row.get("default") is True,
            detail={"problem": problem} if problem else {},
        )

    def _check_identity(self, approved: Any, wanted: str) -> None:
        row = self._loaded().get((approved.name, approved.version), {})
        view, problem = self._store.look(approved.name, approved.version)
        found = (row.get("state"), row.get("digest"), row.get("subject"))
        if problem or view is None or found != ("READY", wanted, approved.digest):
            raise IntegrityMismatch(
                f"The server would serve {approved.name} {approved.version} wrongly: "
                f"{problem or 'it has loaded other bytes'}.",
                code="served_other",
            )

    def _check_answers(self, name: str, version: str, smoke: Smoke) -> None:
        """Compare each image alone, and then as many as fit into one request."""
        batch: list[int] = []
        for place, image in enumerate(smoke.images):
            self._compare(name, version, smoke, [place])
            if sum(len(smoke.images[one]) for one in batch) + len(image) <= _BATCH_BYTES:
                batch.append(place)
        self._compare(name, version, smoke, batch)

    def _compare(self, name: str, version: str, smoke: Smoke, places: list[int]) -> None:
        if not places:
            return
        answer = self._api.infer(name, version, [smoke.images[one] for one in places])
        given, best = answer.get("probabilities", []), answer.get("class", [])
        width = len(smoke.probabilities[places[0]])
        rows = [given[start : start + width] for start in range(0, len(given), width)]
        if (
            len(rows) != len(places)
            or len(best) != len(places)
            or not all(
                smoke.agrees(place, {"probabilities": row})
                and type(one) is int
                and 0 <= one < width
                and smoke.probabilities[place][one] >= max(smoke.probabilities[place]) - _TIE
                for place, row, one in zip(places, rows, best, strict=True)
            )
        ):
            raise IntegrityMismatch(
                f"{name} {version} and the vetted model answer differently to a vetted image.",
                code="smoke_differs",
            )


def _unwritable(error: OSError) -> Unavailable:
    return Unavailable(
        f"The model store cannot be written ({error}); free space or fix its rights."
    )
