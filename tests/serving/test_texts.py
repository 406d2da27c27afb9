"""The handler on a text-to-graph model: a text in, SMILES out, the same for the same request."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from guard.core.contracts import TextSmoke
from guard.flow.publish import smoke_from
from guard.offline_inputs import curated_set
from guard.serving import _released
from guard.serving.handler import GuardHandler
from guard.vetting import _graphs
from tests.graph_toys import alkanes, manifest, model, write_pairs

TEXT = "the molecule is a"


class Context:
    """What TorchServe hands over with a batch; collects statuses and headers by row."""

    def __init__(self, describe: bool = False) -> None:
        self.describe = describe
        self.status: dict[int, int] = {}
        self.headers: dict[tuple[int, str], str] = {}

    def set_response_content_type(self, index: int, kind: str) -> None:
        self.headers[index, "Content-Type"] = kind

    def set_response_header(self, index: int, name: str, value: str) -> None:
        self.headers[index, name] = value

    def get_request_header(self, index: int, name: str) -> str | None:
        return "True" if self.describe and name == "describe" and index == 0 else None

    def set_response_status(self, *, code: int, phrase: str, idx: int) -> None:
        assert phrase
        self.status[idx] = code


@pytest.fixture
def handler(tmp_path: Any) -> GuardHandler:
    made = GuardHandler()
    made._folder = tmp_path
    made._released = _released.Released(
        model=_released._opened(manifest(), model().state_dict()).eval(),
        manifest=manifest(),
        digest="a" * 64,
        name="molecules",
        version="1.0",
        verdict_id="v",
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )
    return made


def asked(handler: GuardHandler, *bodies: Any) -> tuple[list[Any], Context]:
    context = Context()
    found = handler.handle([{"body": body} for body in bodies], context)
    return [json.loads(one) for one in found], context


def test_a_request_is_answered_with_smiles_under_the_vetted_digest(handler: GuardHandler) -> None:
    body = {"text": TEXT, "samples": 3, "seed": 5}

    (one, again, raw), context = asked(handler, body, json.dumps(body), json.dumps(body).encode())

    assert one == again == raw
    assert one["smiles"] == model().generate([TEXT], 3, 5)[0]
    assert set(one) == {"smiles", "unknown_pieces"}
    assert context.headers[0, "X-Guard-Digest"] == "a" * 64
    assert not context.status


def test_unknown_pieces_are_counted_and_latents_given_on_request(handler: GuardHandler) -> None:
    (one,), _ = asked(handler, {"text": "a \u00e9", "latents": True})

    assert one["unknown_pieces"] >= 1
    assert len(one["latents"]) == 1
    assert len(one["latents"][0]) == 8


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"\x89PNG", "bad_json"),
        (b"{", "bad_json"),
        (b'{"text": "' + b"a" * 70_000 + b'"}', "bad_json"),
        (b'{"text": "\\ud800"}', "prompt_control"),
        ('{"text": "\ud800"}', "prompt_control"),
        ({"instances": []}, "bad_request"),
        ({"text": TEXT, "samples": 9}, "samples_range"),
        (None, "bad_request"),
    ],
)
def test_a_bad_request_affects_no_other_row(handler: GuardHandler, body: Any, code: str) -> None:
    (bad, good), context = asked(handler, body, {"text": TEXT})

    assert bad["code"] == code
    assert context.status == {0: 400}
    assert len(good["smiles"]) == 1


def test_it_describes_itself_by_its_task(handler: GuardHandler) -> None:
    (found,) = (json.loads(one) for one in handler.handle([{}], Context(describe=True)))

    assert found["task"] == "text-to-graph"
    assert found["architecture"] == "motif_latent_diffusion"
    assert "input_size" not in found


def test_stored_smoke_samples_agree_with_the_served_model(
    handler: GuardHandler, tmp_path: Any
) -> None:
    pairs = curated_set(write_pairs(tmp_path / "p.parquet", *alkanes(40)))

    smoke = smoke_from(_graphs.smoke(model(), pairs))

    assert isinstance(smoke, TextSmoke)
    found, _ = asked(handler, *smoke.bodies())
    assert all(smoke.agrees(place, one) for place, one in enumerate(found))
    assert not smoke.agrees(0, found[1])
