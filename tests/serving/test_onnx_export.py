"""The exported file answers as the vetted network does, or there is none."""

import io
import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from guard.core.errors import IntegrityMismatch, NotServable
from guard.core.manifest import PolarizerPlace
from guard.inference.runtime import Session
from guard.ml.networks import architectures
from guard.serving import onnx_export
from guard.serving.onnx_export import exported, main
from tests.publishers.making import Vetted, vetted


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Vetted:
    place = PolarizerPlace(before="linear", channels=4, conditional=True)
    return vetted(tmp_path_factory.mktemp("models"), seed=3, size=(1, 8, 8), polarizer=place)


@pytest.fixture(scope="module")
def data(model: Vetted) -> bytes:
    return exported(model.path, model.digest)


@pytest.mark.parametrize("count", [1, 3, 64])
def test_the_file_answers_as_the_vetted_network_with_its_conditional_polarizer(
    model: Vetted, data: bytes, count: int
) -> None:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
    with torch.inference_mode():
        wanted = model.model(images).softmax(1).numpy()
    found = Session(data).run(images.numpy())

    assert np.allclose(found, wanted, atol=1e-5)
    assert (found.argmax(1) == wanted.argmax(1)).all()


def test_the_file_holds_the_manifest_and_no_trace_of_this_machine(
    model: Vetted, data: bytes
) -> None:
    assert Session(data).manifest == model.manifest.canonical()
    for trace in (str(Path(torch.__file__).parent), str(Path(onnx_export.__file__)), "pkg.torch"):
        assert trace.encode() not in data


def test_other_weights_than_the_named_ones_are_not_exported(model: Vetted, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    answer = main([str(model.path), "0" * 64, str(out)])

    assert answer["changed"] is True
    assert not out.exists()


def test_the_process_answers_with_the_digest_of_what_it_wrote(
    model: Vetted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stdout = tmp_path / "out.onnx", io.StringIO()
    monkeypatch.setattr(sys, "argv", ["", str(model.path), "0" * 64, str(out)])
    monkeypatch.setattr(sys, "stdout", stdout)
    monkeypatch.delitem(sys.modules, "guard.serving.onnx_export")
    runpy.run_module("guard.serving.onnx_export", run_name="__main__")

    assert json.loads(stdout.getvalue())["changed"] is True


def test_a_model_of_another_modality_is_refused(
    model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = SimpleNamespace(modality="text-to-graph")
    monkeypatch.setattr(onnx_export, "read_canonical", lambda _: (graphs, {}))

    with pytest.raises(NotServable, match="image classifiers only"):
        exported(model.path, model.digest)


def test_a_network_that_the_exporter_cannot_express_is_refused(
    model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Endless(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            rows = images.flatten(1)[:, :3]
            while bool(rows.sum() > 1):  # depends on the data
                rows = rows / 2
            return rows

    network = architectures.wrap(model.manifest, Endless()).eval()
    monkeypatch.setattr(onnx_export, "load", lambda *_: network)

    with pytest.raises(NotServable) as caught:
        exported(model.path, model.digest)
    assert caught.value.code == "not_exportable"
    assert "GUARD_PUBLISHER=torchserve" in caught.value.sentence


@pytest.mark.parametrize("answers", [lambda x: x + 0.002, lambda x: x[:, :2], lambda x: x * np.nan])
def test_a_file_that_answers_otherwise_is_refused(
    model: Vetted, data: bytes, monkeypatch: pytest.MonkeyPatch, answers: Any
) -> None:
    session = Session(data)
    other = SimpleNamespace(run=lambda images: answers(session.run(images)))
    monkeypatch.setattr(onnx_export, "Session", lambda _: other)
    monkeypatch.setattr(onnx_export, "_written", lambda *_: data)

    with pytest.raises(NotServable, match="answers otherwise"):
        exported(model.path, model.digest)


def test_a_file_that_cannot_be_run_is_refused(
    model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_written", lambda *_: b"no model")

    with pytest.raises(NotServable) as caught:
        exported(model.path, model.digest)
    assert caught.value.code == "not_exportable"


def test_a_file_that_would_be_too_large_is_refused(
    model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_MAX_BYTES", 100)

    with pytest.raises(NotServable, match="2 GiB"):
        exported(model.path, model.digest)


def test_an_exporter_that_gives_nothing_is_refused(
    model: Vetted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)

    with pytest.raises(NotServable):
        exported(model.path, model.digest)


def test_without_the_exporter_the_process_fails_and_no_model_is_refused(
    model: Vetted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "find_spec", lambda _: None)

    with pytest.raises(ModuleNotFoundError, match="export"):
        main([str(model.path), model.digest, str(tmp_path / "out")])


def test_changed_weights_are_an_integrity_error(model: Vetted) -> None:
    with pytest.raises(IntegrityMismatch):
        exported(model.path, "1" * 64)
