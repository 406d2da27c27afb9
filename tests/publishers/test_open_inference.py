"""The publisher and its server, each tried on what an intruder, a fault or a kill could do."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guard.core.contracts import Receipt, ServedForm, Smoke, TextSmoke
from guard.core.digests import sha256
from guard.core.errors import InputError, IntegrityMismatch, NotServable, Unavailable
from guard.publishers import _onnx_store
from guard.publishers._export import export
from guard.publishers.open_inference import OpenInference
from tests.publishers.inference_site import Site, the_server
from tests.publishers.making import Authority, Vetted, flip, vetted

NAME, VERSION = "digits", "1.0"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    return vetted(tmp_path_factory.mktemp("models"), seed=1)


@pytest.fixture
def site() -> Iterator[Site]:
    yield the_server()
    the_server().clear()


@pytest.fixture
def publisher(site: Site) -> OpenInference:
    return site.publisher()


def publish(
    publisher: OpenInference,
    authority: Authority,
    model: Vetted,
    *,
    smoke: Any = None,
    name: str = NAME,
    **options: Any,
) -> Receipt:
    with model.open() as weights:
        served = publisher.prepare(model.digest, weights)
        approved = authority.approve(model.digest, name, **{"served": served, **options})
        return publisher.publish(approved, weights, smoke or model.smoke)


def test_the_receipt_names_the_file_and_the_release_that_are_served(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    receipt = publish(publisher, site.authority, model)
    (row,) = site.api.listed()

    assert receipt.detail["members"]["model.onnx"] == row["digest"]
    assert receipt.detail["members"]["release.dsse.json"] == row["release"]
    assert row["subject"] == receipt.digest == model.digest


def test_a_client_is_answered_where_the_publisher_says(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    publish(publisher, site.authority, model)
    one = {"name": "images", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": [0.5] * 64}
    with site.client() as client:
        path = publisher.calling(NAME).split(site.inference)[1].split(" ")[0]
        answer = client.post(path, json={"inputs": [one]})

        assert answer.status_code == 200
        assert answer.headers["X-Guard-Digest"] == model.digest
        publisher.withdraw(NAME, VERSION)
        assert client.post(path, json={"inputs": [one]}).status_code == 404


def test_the_smoke_comparison_takes_down_what_answers_otherwise(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    swapped = tuple(row[::-1] for row in model.smoke.probabilities)
    for wrong in (
        Smoke(images=model.smoke.images, probabilities=swapped),
        Smoke(
            images=model.smoke.images,
            probabilities=tuple((*row[:-1], row[-1] + 0.002) for row in model.smoke.probabilities),
        ),
        Smoke(images=(b"no image",), probabilities=model.smoke.probabilities[:1]),
    ):
        with pytest.raises(IntegrityMismatch) as caught:
            publish(publisher, site.authority, model, smoke=wrong)

        assert caught.value.code in ("smoke_differs", "smoke_refused")
        assert publisher.state() == []


def test_the_best_class_must_be_the_vetted_one_even_within_the_tolerance(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    first = list(model.smoke.probabilities[0])
    best = first.index(max(first))
    loose = Smoke(
        images=model.smoke.images[:1],
        probabilities=(tuple(1.0 if at != best else 0.9 for at in range(3)),),
        tolerance=2.0,
    )

    with pytest.raises(IntegrityMismatch, match="answer differently"):
        publish(publisher, site.authority, model, smoke=loose)


@pytest.mark.parametrize("smoke", [Smoke(images=(), probabilities=()), TextSmoke(prompts=())])
def test_nothing_is_published_that_cannot_be_compared(
    site: Site, publisher: OpenInference, model: Vetted, smoke: Any
) -> None:
    with pytest.raises(InputError):
        publish(publisher, site.authority, model, smoke=smoke)

    assert publisher.state() == []


@pytest.mark.parametrize("served", [None, ServedForm(format="onnx", digest="0" * 64)])
def test_a_release_that_does_not_name_the_exported_file_is_not_served(
    site: Site, publisher: OpenInference, model: Vetted, served: ServedForm | None
) -> None:
    with pytest.raises((IntegrityMismatch, Unavailable)):
        publish(publisher, site.authority, model, served=served)

    assert site.api.listed() == []


def test_a_killed_server_comes_back_empty_and_serves_again_what_is_published_again(
    site: Site, publisher: OpenInference, model: Vetted, tmp_path: Path
) -> None:
    publish(publisher, site.authority, model)
    process = site.stack._processes["open_inference"]
    os.kill(process.pid, signal.SIGKILL)
    process.end(0.0)
    with pytest.raises(Unavailable):
        publisher.state()
    shutil.copytree(site.store, tmp_path / "kept")
    site.stack.restart("open_inference")
    # As on a site that keeps its volume.
    shutil.copytree(tmp_path / "kept", site.store, dirs_exist_ok=True)
    (found,) = publisher.state()

    assert (found.ready, found.digest) == (False, None)
    assert site.api.listed() == []
    publish(publisher, site.authority, model)
    (found,) = publisher.state()
    assert (found.ready, found.default, found.digest) == (True, True, model.digest)


def test_a_file_changed_in_the_store_is_found_although_the_server_holds_the_right_bytes(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    publish(publisher, site.authority, model)
    flip(site.store / NAME / VERSION / "model.onnx")
    (found,) = publisher.state()

    assert found.digest is None
    assert "not the one that was released" in found.detail["problem"]


def envelope_of(folder: Path) -> Path:
    return folder / "release.dsse.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: envelope_of(folder).unlink(),
        lambda folder: envelope_of(folder).write_text("{}"),
        lambda folder: envelope_of(folder).write_text("["),
        lambda folder: (folder / "extra").write_text("x"),
        lambda folder: folder.rename(folder.with_name("2.0")),
    ],
)
def test_a_changed_folder_is_no_sound_model_and_can_be_withdrawn(
    site: Site, publisher: OpenInference, model: Vetted, change: Any
) -> None:
    publish(publisher, site.authority, model)
    folder = site.store / NAME / VERSION
    for file in (folder, *folder.iterdir()):
        file.chmod(0o755)
    change(folder)
    found = publisher.state()

    assert all(one.digest is None and one.detail["problem"] for one in found)
    for one in found:
        publisher.withdraw(one.name, one.version)
    assert publisher.state() == []
    assert list(site.store.iterdir()) == []


def test_a_stray_file_or_link_in_the_store_is_listed_and_removed(
    site: Site, publisher: OpenInference, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_text("x")
    (site.store / "link").symlink_to(tmp_path / "elsewhere")
    (site.store / "file").write_text("x")
    (site.store / "empty").mkdir()
    (site.store / "home").mkdir()
    (site.store / "home" / "1.0").symlink_to(tmp_path / "elsewhere")
    found = publisher.state()

    assert [(one.name, one.version, one.ready) for one in found] == [
        ("empty", "", False),
        ("file", "", False),
        ("home", "1.0", False),
        ("link", "", False),
    ]
    for one in found:
        publisher.withdraw(one.name, one.version)
    assert list(site.store.iterdir()) == []
    assert (tmp_path / "elsewhere" / "kept").is_file()


@pytest.mark.parametrize(("name", "version"), [("..", ""), ("a/b", "1"), ("", ""), ("a", "..")])
def test_withdrawing_leads_nowhere_else(publisher: OpenInference, name: str, version: str) -> None:
    with pytest.raises(IntegrityMismatch):
        publisher.withdraw(name, version)


def test_bytes_that_the_server_reports_and_the_store_does_not_name_are_a_problem(
    site: Site, publisher: OpenInference, model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(publisher, site.authority, model)
    rows = [{**row, "digest": "0" * 64} for row in site.api.listed()]
    monkeypatch.setattr(publisher._api, "listed", lambda: rows)
    (found,) = publisher.state()

    assert found.digest is None
    assert "other bytes" in found.detail["problem"]
    with pytest.raises(IntegrityMismatch, match="wrongly"):
        publish(publisher, site.authority, model)


def test_a_publish_that_ended_half_way_counts_as_not_served_and_is_repeated(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    publish(publisher, site.authority, model, seconds=100.0)
    with model.open() as weights:
        served = publisher.prepare(model.digest, weights)
    publisher._store.write(
        site.authority.approve(model.digest, NAME, VERSION, served=served, seconds=200.0)
    )
    (found,) = publisher.state()

    assert (found.ready, found.digest, found.detail) == (False, None, {})
    publish(publisher, site.authority, model, seconds=200.0)
    assert publisher.state()[0].ready


def test_a_released_file_is_not_exported_again_and_a_planted_one_is_never_signed(
    site: Site, publisher: OpenInference, model: Vetted
) -> None:
    receipt = publish(publisher, site.authority, model)

    def refuse(*_: Any, **__: Any) -> str:
        raise NotServable("exported again")

    again = site.publisher(exporter=refuse)
    with model.open() as weights:
        assert again.prepare(model.digest, weights) == ServedForm(
            format="onnx", digest=receipt.detail["members"]["model.onnx"]
        )
    publisher.withdraw(NAME, VERSION)
    (site.store / f".made-{model.digest}.onnx").write_bytes(b"an intruder's network")
    with model.open() as weights, pytest.raises(NotServable):
        again.prepare(model.digest, weights)
    publisher._store.forget(model.digest)


def test_what_killed_publishes_left_is_swept(
    site: Site, publisher: OpenInference, model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.store / ".incoming-old").mkdir()
    (site.store / ".incoming-old" / "weights").write_text("x")
    (site.store / ".made-old.onnx").write_text("x")
    publish(publisher, site.authority, model)

    assert len(list(site.store.iterdir())) == 3  # they may be another publish's
    monkeypatch.setattr(_onnx_store, "_STALE_SECONDS", -1.0)
    publish(publisher, site.authority, model)

    assert [one.name for one in site.store.iterdir()] == [NAME]


def test_a_store_that_cannot_be_written_or_read_is_tried_again(
    site: Site, publisher: OpenInference, model: Vetted, tmp_path: Path
) -> None:
    (tmp_path / "store").write_text("no folder")
    broken = OpenInference(
        management=site.management,
        inference=site.inference,
        run_dir=site.run_dir,
        store=tmp_path / "store",
        trusted=site.authority.trusted,
    )
    with model.open() as weights:
        with pytest.raises(Unavailable):
            broken.prepare(model.digest, weights)
        served = publisher.prepare(model.digest, weights)
        approved = site.authority.approve(model.digest, NAME, served=served)
        with pytest.raises(Unavailable):
            broken.publish(approved, weights, model.smoke)
    with pytest.raises(Unavailable):
        broken.state()
    with pytest.raises(Unavailable):
        broken.withdraw(NAME, VERSION)


@pytest.mark.parametrize("keys", [None, "{", json.dumps({"management": {"key": "wrong"}})])
def test_without_the_token_of_this_server_nothing_is_asked(
    site: Site, publisher: OpenInference, tmp_path: Path, keys: str | None
) -> None:
    if keys is not None:
        (tmp_path / "key_file.json").write_text(keys)
    stranger = OpenInference(
        management=site.management,
        inference=site.inference,
        run_dir=tmp_path,
        store=site.store,
        trusted=site.authority.trusted,
    )
    with pytest.raises(Unavailable):
        stranger.state()


def test_an_answer_that_is_not_of_the_protocol_is_no_vetted_answer(
    site: Site, publisher: OpenInference, model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher._api, "_ask", lambda *_: {"outputs": [{"name": "class"}]})

    with pytest.raises(IntegrityMismatch):
        publisher._api.infer(NAME, VERSION, [b"x"])


@pytest.mark.parametrize("best", [[True, True], [7, 7], [0], []])
def test_classes_that_are_none_do_not_agree(
    publisher: OpenInference, model: Vetted, monkeypatch: pytest.MonkeyPatch, best: list[Any]
) -> None:
    given = [value for row in model.smoke.probabilities for value in row]
    monkeypatch.setattr(publisher._api, "infer", lambda *_: {"probabilities": given, "class": best})

    with pytest.raises(IntegrityMismatch):
        publisher._compare(NAME, VERSION, model.smoke, [0, 1])


def test_large_images_are_not_sent_in_one_request(
    publisher: OpenInference, model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr(publisher, "_compare", lambda _, __, ___, places: sent.append(places))
    large = replace(model.smoke, images=(b"x" * (2 << 20), b"y" * (2 << 20)))
    publisher._check_answers(NAME, VERSION, large)
    publisher._check_answers(NAME, VERSION, model.smoke)

    assert sent == [[0], [1], [0], [0], [1], [0, 1]]


def test_the_export_runs_in_a_process_of_its_own_without_our_environment(
    model: Vetted, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    digest = export(model.path, model.digest, out, seconds=120)

    assert digest == sha256(out.read_bytes())


@pytest.mark.parametrize(
    ("stdout", "kind", "code"),
    [
        (b'{"sentence": "no", "changed": false}', NotServable, "not_exportable"),
        (b'{"sentence": "no", "changed": true}', IntegrityMismatch, "weights_digest"),
        (b"", Unavailable, "export_failed"),
        (b"Killed", Unavailable, "export_failed"),
        (b"[]", Unavailable, "export_failed"),
    ],
)
def test_an_export_without_a_file_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stdout: bytes,
    kind: type[Exception],
    code: str,
) -> None:
    done = subprocess.CompletedProcess([], -9, stdout, b"no memory")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)

    with pytest.raises(kind) as caught:
        export(tmp_path, "0" * 64, tmp_path / "out", seconds=1)
    assert getattr(caught.value, "code", "") == code


def test_an_export_that_takes_too_long_is_given_up(tmp_path: Path, model: Vetted) -> None:
    with pytest.raises(NotServable) as caught:
        export(model.path, model.digest, tmp_path / "out", seconds=0.01)

    assert caught.value.code == "export_timeout"
