"""`/hooks`: a secret is in one answer, and no address or secret is in any other."""

from fastapi.testclient import TestClient

from guard.api.app import create_app
from guard.flow.context import Guard
from tests.api.conftest import TOKEN

ADDRESS = "https://a.example/services/verysecret?token=hidden"


def test_a_secret_is_answered_once_and_an_address_never(guard: Guard) -> None:
    with TestClient(create_app(guard), headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        wanted = {"kind": "webhook", "address": ADDRESS, "types": ["guard.verdict.*"]}
        made = client.post("/hooks", json=wanted)
        assert made.status_code == 201
        secret, hook_id = made.json()["secret"], made.json()["id"]
        assert secret.startswith("whsec_")
        mail = client.post("/hooks", json={"kind": "email", "address": "ops@example.com"})
        assert mail.json()["secret"] is None
        queued = client.post(f"/hooks/{hook_id}/test")
        assert queued.status_code == 202
        answers = [
            client.get("/hooks"),
            client.get(f"/hooks/{hook_id}"),
            client.get("/hooks/deliveries", params={"hook": hook_id}),
            client.post(f"/hooks/{hook_id}/remove"),
        ]

    for answer in answers:
        assert answer.status_code == 200
        for text in ("verysecret", "hidden", secret, "sealed"):
            assert text not in answer.text
    assert {one["shown"] for one in answers[0].json()["hooks"]} == {
        "https://a.example/…",
        "ops@example.com",
    }
    assert answers[2].json()["deliveries"][0]["id"] == queued.json()["delivery_id"]
    assert answers[3].json()["removed_at"] is not None


def test_what_cannot_be_a_destination_is_answered_with_a_reason(guard: Guard) -> None:
    with TestClient(create_app(guard), headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        for body, code in (
            ({"kind": "webhook", "address": "http://169.254.169.254/"}, "address_refused"),
            ({"kind": "slack", "address": "https://2130706433/"}, "address_refused"),
            ({"kind": "email", "address": "a@b, c@d"}, "bad_mail_address"),
        ):
            answer = client.post("/hooks", json=body)
            assert answer.status_code == 400
            assert code in answer.text
