"""Publishing what is made from the weights: the gate first, and its digest in the release."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from guard.attest import dsse
from guard.attest.views import read_release
from guard.core.contracts import ServedForm
from guard.core.digests import canonical_json
from guard.core.errors import NotServable
from guard.core.manifest import Manifest
from guard.core.states import ScanState
from guard.flow import run_stage
from guard.flow.reconcile import Kind, reconcile_guard
from guard.formats._canonical import read_canonical
from guard.ml import samples
from guard.ml.cleanset import Labelled
from guard.ml.networks import architectures
from guard.publishers.folder import Folder
from guard.store import alarms, publications
from guard.store.session import reading
from tests.flow.place import Place, finding
from tests.inference.making import put
from tests.publishers.inference_site import the_server
from tests.publishers.making import flip, vetted

FORM = ServedForm(format="onnx", digest="1" * 64)


class Converting(Folder):
    """A folder that says what it would make of the weights."""

    def __init__(self, root: Path, *, refuses: str = "") -> None:
        super().__init__(root)
        self.asked: list[str] = []
        self.refuses = refuses

    def prepare(self, digest: str, weights: BinaryIO) -> ServedForm:
        assert weights.read(1)
        self.asked.append(digest)
        if self.refuses:
            raise NotServable(self.refuses, code="not_exportable")
        return FORM


def smoke_of(path: Path) -> bytes:
    """What a real scan leaves for the comparison."""
    manifest, tensors = read_canonical(path)
    assert isinstance(manifest, Manifest)
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    held = Labelled(images, torch.zeros(2, dtype=torch.int64))
    return canonical_json(
        {
            "images": [base64.b64encode(one).decode() for one in samples.as_png(held)],
            "probabilities": samples.probabilities(architectures.load(manifest, tensors), held),
        }
    )


def cleared(place: Place, publisher: Converting | None = None) -> str:
    """A scan that is to be published."""
    if publisher is not None:
        place.guard = replace(place.guard, make_publisher=lambda: publisher)
    scan_id = place.upload()
    assert run_stage.work(place.guard, "inspect", scan_id)
    digest = place.scan(scan_id).canonical_digest or ""
    place.with_evidence(
        scan_id, finding(suspicious=False), smoke=smoke_of(place.guard.blobs.path(digest))
    )
    assert run_stage.work(place.guard, "decide", scan_id)
    return scan_id


@pytest.mark.threat("A23")
def test_the_signed_release_binds_the_file_to_the_vetted_weights(tmp_path: Path) -> None:
    place = Place(tmp_path)
    publisher = Converting(tmp_path / "served")
    scan_id = cleared(place, publisher)
    assert run_stage.work(place.guard, "publish", scan_id)
    with reading(place.guard.engine) as session:
        (row,) = publications.active(session)
    release = read_release(dsse.verify(row.envelope, place.guard.trusted))

    assert (release.served, release.digest) == (FORM, row.digest)
    assert publisher.asked == [row.digest]


def test_a_model_that_cannot_be_made_ends_with_the_sentence_and_an_alarm(tmp_path: Path) -> None:
    place = Place(tmp_path)
    publisher = Converting(tmp_path / "served", refuses="no such operator")
    scan_id = cleared(place, publisher)
    assert run_stage.work(place.guard, "publish", scan_id)
    with reading(place.guard.engine) as session:
        raised = [row.kind for row in alarms.open_alarms(session)]

    assert place.scan(scan_id).state is ScanState.FAILED
    assert place.scan(scan_id).error == "no such operator"
    assert raised == ["publish_refused"]
    assert publisher.state() == []


def test_nothing_is_made_of_what_the_gate_refuses(tmp_path: Path) -> None:
    place = Place(tmp_path)
    publisher = Converting(tmp_path / "served")
    scan_id = cleared(place, publisher)
    place.clock += timedelta(days=1000)
    assert run_stage.work(place.guard, "publish", scan_id)

    assert place.scan(scan_id).state is ScanState.FAILED
    assert publisher.asked == []


@pytest.mark.threat("A05", "A08")
def test_what_the_inference_server_holds_follows_the_ledger(tmp_path: Path) -> None:
    site = the_server()
    site.clear()
    keys = site.authority.trusted
    place = Place(
        tmp_path,
        {
            "GUARD_TRUSTED_KEYS_FILE": str(keys),
            "GUARD_SIGNING_KEY_FILE": str(keys.with_name("signing.pem")),
        },
    )
    place.clock = datetime.now(UTC)
    place.guard = replace(place.guard, make_publisher=site.publisher)
    scan_id = cleared(place)
    assert run_stage.work(place.guard, "publish", scan_id)
    (served,) = site.publisher().state()
    assert (served.digest, served.default) == (place.scan(scan_id).canonical_digest, True)
    assert reconcile_guard(place.guard) == []

    # A model that even a trusted key released, and that the ledger does not know.
    stranger = vetted(tmp_path, seed=1)
    put(site.store, stranger, site.authority, name="stranger")
    site.api.load("stranger", "1.0")
    (gone,) = reconcile_guard(place.guard)
    assert (gone.kind, gone.name) == (Kind.WITHDRAWN, "stranger")
    assert [row["name"] for row in site.api.listed()] == [served.name]

    # A changed file is taken down, and the next round has it published again.
    flip(site.store / served.name / served.version / "model.onnx")
    kinds = [one.kind for one in (*reconcile_guard(place.guard), *reconcile_guard(place.guard))]
    assert kinds[0] is Kind.WITHDRAWN
    assert Kind.REPUBLISHED in kinds
    assert run_stage.work(place.guard, "publish", scan_id)
    assert reconcile_guard(place.guard) == []
    site.clear()
