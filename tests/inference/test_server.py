"""The two applications over real models: protocol, tokens, limits, load and unload."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.testclient import TestClient

from guard.core.secret import Secret
from guard.core.states import GateMode, Verdict, WouldBe
from guard.core.verdict import Gated
from guard.inference import _clients, _web
from guard.inference._clients import Clients
from guard.inference._keys import admits, make_keys
from guard.inference._management import Management
from guard.inference._models import Models
from tests.inference.making import NAME, VERSION, body, put, tensor
from tests.publishers.making import Authority, Vetted, flip

KEY = Secret("a key of clients")
OTHER = Secret("the key of the guard")
INFER = f"/v2/models/{NAME}/infer"


def opened(app: Any, key: Secret) -> TestClient:
    headers = {"Authorization": f"Bearer {key.reveal()}"}
    return TestClient(app, headers=headers, raise_server_exceptions=False)


@pytest.fixture
def clients(models: Models) -> TestClient:
    models.load(NAME, VERSION, datetime.now(UTC))
    models.make_default(NAME, VERSION)
    return opened(Clients(models, workers=1).app(KEY), KEY)


@pytest.fixture
def guard(models: Models) -> TestClient:
    return opened(Management(models).app(OTHER), OTHER)


def floats(model: Vetted) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = model.pictures.floats().numpy()
    return found


def test_liveness_and_readiness_need_no_token_and_everything_else_does(
    clients: TestClient,
) -> None:
    clients.headers.pop("Authorization")

    assert clients.get("/v2/health/live").status_code == 200
    assert clients.get("/v2/health/ready").status_code == 200
    for path in ("/v2", f"/v2/models/{NAME}", f"/v2/models/{NAME}/ready", "/models", "/nothing"):
        answer = clients.get(path)

        assert (answer.status_code, answer.json()["code"]) == (401, "no_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert clients.post(INFER, content=b"").status_code == 401


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer a key", "Basic a key of clients", "Bearer a key of clients2"],
)
def test_a_wrong_token_is_refused(clients: TestClient, header: str) -> None:
    assert clients.get("/v2", headers={"Authorization": header}).status_code == 401


def test_tokens_are_fresh_long_and_for_this_user_alone(tmp_path: Path) -> None:
    first, second = make_keys(tmp_path), make_keys(tmp_path)
    file = tmp_path / "key_file.json"
    written = {kind: one["key"] for kind, one in json.loads(file.read_text()).items()}

    assert written == {kind: key.reveal() for kind, key in second.items()}
    assert len({key.reveal() for key in (*first.values(), *second.values())}) == 4
    assert min(len(key) for key in written.values()) >= 43
    assert file.stat().st_mode & 0o777 == 0o600
    assert admits(second["inference"], f"bearer {written['inference']}")
    assert not admits(second["inference"], f"Bearer {written['management']}")


def test_the_server_and_a_model_are_described_as_the_protocol_wants_it(
    clients: TestClient, model: Vetted
) -> None:
    server = clients.get("/v2").json()
    by_name = clients.get(f"/v2/models/{NAME}")
    described = by_name.json()

    assert set(server) == {"name", "version", "extensions"}
    assert (described["name"], described["versions"]) == (NAME, [VERSION])
    assert described["platform"] == "onnxruntime_onnx"
    assert described["inputs"] == [{"name": "images", "datatype": "FP32", "shape": [-1, 3, 8, 8]}]
    assert described["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "class", "datatype": "INT64", "shape": [-1]},
        {"name": "label", "datatype": "BYTES", "shape": [-1]},
    ]
    assert described["parameters"]["digest"] == model.digest
    assert by_name.headers["X-Guard-Digest"] == model.digest
    assert clients.get(f"/v2/models/{NAME}/versions/{VERSION}").json() == described
    for path in (f"/v2/models/{NAME}", f"/v2/models/{NAME}/versions/{VERSION}"):
        assert clients.get(f"{path}/ready").json()["ready"] is True


def test_an_answer_is_that_of_the_vetted_network(clients: TestClient, model: Vetted) -> None:
    images = floats(model)
    answer = clients.post(INFER, content=body(tensor(images), id="a"))
    outputs = {one["name"]: one for one in answer.json()["outputs"]}
    wanted = np.array(model.smoke.probabilities)

    assert answer.headers["Content-Type"] == "application/json"
    assert {key: answer.json()[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": NAME,
        "model_version": VERSION,
        "id": "a",
    }
    assert outputs["probabilities"]["shape"] == [2, 3]
    assert np.allclose(np.reshape(outputs["probabilities"]["data"], (2, 3)), wanted, atol=1e-5)
    assert outputs["class"]["data"] == wanted.argmax(1).tolist()
    assert outputs["label"]["data"] == [model.manifest.label_names[one] for one in wanted.argmax(1)]


def test_bytes_are_answered_as_raw_tensors_where_they_are_asked_for(
    clients: TestClient, model: Vetted
) -> None:
    images = floats(model)
    head = body(
        {
            "name": "images",
            "datatype": "FP32",
            "shape": list(images.shape),
            "parameters": {"binary_data_size": images.nbytes},
        },
        parameters={"binary_data_output": True},
    )
    answer = clients.post(
        f"/v2/models/{NAME}/versions/{VERSION}/infer",
        content=head + images.tobytes(),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    length = int(answer.headers["Inference-Header-Content-Length"])
    outputs = json.loads(answer.content[:length])["outputs"]
    sizes = [one["parameters"]["binary_data_size"] for one in outputs]
    rest = answer.content[length:]
    best = np.array(model.smoke.probabilities).argmax(1)

    assert sum(sizes) == len(rest)
    assert np.allclose(
        np.frombuffer(rest[: sizes[0]], "<f4").reshape(2, 3), model.smoke.probabilities, atol=1e-5
    )
    assert np.frombuffer(rest[sizes[0] : sizes[0] + sizes[1]], "<i8").tolist() == best.tolist()
    labels = [model.manifest.label_names[one].encode() for one in best]
    assert rest[sizes[0] + sizes[1] :] == b"".join(struct.pack("<I", len(x)) + x for x in labels)


def test_a_png_is_answered_as_the_vetted_network_answers_it(
    clients: TestClient, model: Vetted
) -> None:
    data = [base64.b64encode(one).decode() for one in model.smoke.images]
    one = {"name": "images", "datatype": "BYTES", "shape": [2], "data": data}
    answer = clients.post(INFER, content=body(one, outputs=[{"name": "probabilities"}])).json()[
        "outputs"
    ][0]

    assert np.allclose(np.reshape(answer["data"], (2, 3)), model.smoke.probabilities, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v2/models/other", 404, "no_such_model"),
        ("GET", f"/v2/models/{NAME}/versions/9", 404, "no_such_model"),
        ("GET", "/v2/models/other/ready", 404, "no_such_model"),
        ("POST", "/v2/models/..%2f..%2fetc/infer", 404, "no_such_path"),
        ("POST", "/v2/repository/index", 404, "no_such_path"),
        ("GET", INFER, 405, "no_such_path"),
        ("DELETE", f"/v2/models/{NAME}", 405, "no_such_path"),
        ("GET", "/models", 404, "no_such_path"),
        ("POST", INFER, 400, "bad_json"),
    ],
)
def test_an_error_has_a_sentence_and_a_code(
    clients: TestClient, method: str, path: str, status: int, code: str
) -> None:
    answer = clients.request(method, path)

    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["error"]


def test_a_body_over_the_limit_is_not_read(
    clients: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_clients, "MAX_BODY", 10)

    def parts() -> Any:  # without a length
        yield b"x" * 8
        yield b"x" * 8

    for content in (b"x" * 11, parts()):
        answer = clients.post(INFER, content=content)

        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


def test_a_compressed_body_is_refused_before_it_could_unfold(clients: TestClient) -> None:
    answer = clients.post(INFER, content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_inputs")
    assert "uncompressed" in answer.json()["error"]


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_web, "BODY_SECONDS", 0.05)

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(10)
        raise AssertionError

    scope = {"type": "http", "headers": [], "method": "POST", "path": "/"}
    with pytest.raises(_web.Refused) as caught:
        asyncio.run(_web.body_of(Request(scope, receive), 10))

    assert caught.value.code == "too_slow"


def test_no_more_requests_are_admitted_at_one_time_than_may_be(models: Models) -> None:
    models.load(NAME, VERSION, datetime.now(UTC))
    models.make_default(NAME, VERSION)
    full = opened(Clients(models, workers=1, waiting=0).app(KEY), KEY)
    answer = full.post(INFER, content=b"{")

    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["Retry-After"]
    one = opened(Clients(models, workers=1, waiting=1).app(KEY), KEY)
    for _ in range(3):  # each gives its place back, also where it is refused
        assert one.post(INFER, content=b"{").status_code == 400


def test_a_release_that_has_expired_answers_no_request(clients: TestClient, models: Models) -> None:
    entry = models.find(NAME)
    ended = replace(entry.release, expires_at=datetime.now(UTC))
    models._entries[NAME, VERSION] = replace(entry, release=ended)

    for answer in (clients.post(INFER, content=b"{}"), clients.get(f"/v2/models/{NAME}/ready")):
        assert (answer.status_code, answer.json()["code"]) == (403, "release_expired")


def test_numbers_that_are_not_finite_are_not_answered(
    clients: TestClient, models: Models, model: Vetted
) -> None:
    class Broken:
        def run(self, images: Any) -> Any:
            return np.full((len(images), 3), np.nan, np.float32)

    entry = models.find(NAME)
    models._entries[NAME, VERSION] = replace(entry, session=Broken())  # type: ignore[arg-type]
    answer = clients.post(INFER, content=body(tensor(floats(model))))

    assert (answer.status_code, answer.json()["code"]) == (500, "non_finite")


def test_a_fault_of_the_server_is_not_shown_to_clients(
    clients: TestClient, models: Models, model: Vetted
) -> None:
    class Faulty:
        def run(self, images: Any) -> Any:
            raise OSError("/secret/path")

    entry = models.find(NAME)
    models._entries[NAME, VERSION] = replace(entry, session=Faulty())  # type: ignore[arg-type]
    answer = clients.post(INFER, content=body(tensor(floats(model))))

    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_a_client_that_goes_away_is_no_fault() -> None:
    async def gone() -> AsyncIterator[bytes]:
        raise ClientDisconnect
        yield b""

    answer = asyncio.run(_web.on_disconnect(Request({"type": "http"}), ClientDisconnect()))

    assert answer.status_code == 400


def test_what_a_warning_gate_let_through_is_said_in_every_answer(
    clients: TestClient, models: Models
) -> None:
    entry = models.find(NAME)
    gate = Gated(mode=GateMode.WARN, would_be=WouldBe.REJECTED)
    warned = replace(entry.release, verdict=Verdict.REJECTED, gate=gate)
    models._entries[NAME, VERSION] = replace(entry, release=warned)
    answer = clients.get(f"/v2/models/{NAME}")

    assert answer.headers["X-Guard-Gate"] == "warn"
    assert answer.headers["X-Guard-Would-Be"] == str(WouldBe.REJECTED)


def test_the_guard_loads_makes_default_and_unloads(
    guard: TestClient, models: Models, model: Vetted
) -> None:
    clients = opened(Clients(models, workers=1).app(KEY), KEY)
    path = f"/models/{NAME}/{VERSION}"

    assert guard.put(path).status_code == 200
    (row,) = guard.get("/models").json()["models"]
    assert (row["state"], row["default"], row["subject"]) == ("READY", False, model.digest)
    assert clients.get(f"/v2/models/{NAME}").status_code == 404  # not the default yet
    assert guard.put(f"{path}/default").status_code == 200
    assert clients.get(f"/v2/models/{NAME}").status_code == 200
    assert guard.delete(path).status_code == 200
    assert guard.delete(path).status_code == 200
    assert guard.get("/models").json()["models"] == []
    assert clients.get(f"/v2/models/{NAME}/versions/{VERSION}").status_code == 404
    assert guard.put(f"{path}/default").status_code == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "GET"])
def test_the_token_of_clients_loads_and_unloads_nothing(guard: TestClient, method: str) -> None:
    headers = {"Authorization": f"Bearer {KEY.reveal()}"}

    for path in (f"/models/{NAME}/{VERSION}", "/models"):
        assert guard.request(method, path, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "path", ["/models/..%2f..%2fetc/1.0", "/models/Big/1.0", "/models/a..b/1.0", "/models/a/1..0"]
)
def test_no_name_leads_out_of_the_store(guard: TestClient, path: str) -> None:
    assert guard.put(path).status_code in (400, 404)
    assert guard.get("/models").json()["models"] == []


def test_a_file_that_was_changed_is_refused_and_what_was_loaded_is_dropped(
    guard: TestClient, folder: Path
) -> None:
    path = f"/models/{NAME}/{VERSION}"
    guard.put(path)
    flip(folder / "model.onnx")
    answer = guard.put(path)
    (row,) = guard.get("/models").json()["models"]

    assert (answer.status_code, answer.json()["code"]) == (409, "load_refused")
    assert (row["state"], row["digest"]) == ("UNAVAILABLE", None)
    assert "does not name this file" in row["reason"]


def test_a_model_of_another_key_is_refused(
    guard: TestClient, tmp_path: Path, model: Vetted, folder: Path
) -> None:
    put(folder.parents[1], model, Authority(tmp_path / "intruder" / "trusted.json"))

    assert guard.put(f"/models/{NAME}/{VERSION}").status_code == 409
