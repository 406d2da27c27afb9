"""A served name says where a model lies: two prefixes never share one."""

import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from guard.core.errors import InputError
from guard.flow._served_name import prefix_of, served_name


def name_of(key: str, **rule: str) -> str:
    return served_name("models", key, **{"strip": "models/", **rule})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("models/digits/model.safetensors", "digits"),
        ("models/team-a/fraud_2/m.pt", "team-a--fraud_2"),
        ("teamA/fraud/m.pt", "teama--fraud-_"),
        ("team-a/fraud/m.pt", "team-a--fraud"),
        ("model.safetensors", "model"),
        ("model.v1.safetensors", "model-v1-_"),
        ("a/b/ResNet 18 (best)!/m.pt", "a--b--resnet-18-best-_"),
        ("x/-rf/m.pt", "x--rf-_"),
        ("x/__init__/m.pt", "x--init-_"),
        ("x/fraud./m.pt", "x--fraud-_"),
        ("x/..%2f..%2fetc/m.pt", "x--2f-2fetc-_"),
        ("../x/m.pt", "x-_"),
        ("a//m.pt", "a-_"),
        ("x/my-token-model/m.pt", "x--my-tkn-model-_"),
        ("x/TokenToken/m.pt", "x--tkntkn-_"),
        ("x/totokenken/m.pt", "x--totknken-_"),
        # A Cyrillic letter that looks like e, a Kelvin sign that lower-cases to k, a full-width r:
        # none becomes ASCII.
        ("x/r\u0435snet/m.pt", "x--r-snet-_"),
        ("x/\u212aa/m.pt", "x--a-_"),
        ("x/\uff52esnet/m.pt", "x--esnet-_"),
        ("models/" + "n" * 63 + "/m.pt", "n" * 63),
        ("models/" + "n" * 64 + "/m.pt", "n" * 45 + "-_"),
    ],
)
def test_names_are_the_path_in_plain_letters_and_a_digest_where_that_lost_something(
    key: str, name: str
) -> None:
    found = name_of(key)

    assert re.fullmatch(re.escape(name) + ("[0-9a-f]{16}" if name.endswith("-_") else ""), found)


@pytest.mark.parametrize("key", ["x/模型/m.pt", "x/---/m.pt", "x/../m.pt", ".pt"])
def test_a_key_that_gives_no_name_says_what_to_do(key: str) -> None:
    with pytest.raises(InputError, match="upload the model into a folder"):
        name_of(key)


FAMILIES = [
    ("teamA/fraud/m.pt", "teamB/fraud/m.pt", "teama/fraud/m.pt", "TEAMA/fraud/m.pt"),
    ("payments/fraud-model/m.pt", "payments/Fraud-Model/m.pt", "payments/fraud model/m.pt"),
    ("x/" + "n" * 63 + "a/m.pt", "x/" + "n" * 63 + "b/m.pt", "x/" + "n" * 300 + "/m.pt"),
    ("fraud/1/m.pt", "digits/1/m.pt", "fraud/2/m.pt", "1/m.pt"),
    ("fraud/main/m.pt", "digits/main/m.pt", "fraud/data/m.pt", "digits/artifacts/m.pt"),
    ("a/b-c/m.pt", "a-b/c/m.pt", "a--b/c/m.pt", "a/b--c/m.pt", "a-/b/c/m.pt", "a/-b/c/m.pt"),
    ("x/fraud/m.pt", "x/fraud./m.pt", "x/fraud../m.pt", "x/./fraud/m.pt", "x/../x/fraud/m.pt"),
    ("x/fraud/m.pt", "x//fraud/m.pt", "x/fraud//m.pt", "/x/fraud/m.pt", "x/fraud /m.pt"),
    ("x/fraud/m.pt", "x/fr%61ud/m.pt", "x/fraud%2f/m.pt", "x%2ffraud/m.pt", "x%252ffraud/m.pt"),
    ("x/fraud/m.pt", "x/fr\u0430ud/m.pt", "x/\uff46raud/m.pt", "x/fraud\u0301/m.pt"),
    ("x/\u00e9a/m.pt", "x/e\u0301a/m.pt", "x/\u212ba/m.pt", "x/\u00c5a/m.pt", "x/K/m.pt"),
    ("x/mytoken/m.pt", "x/mytkn/m.pt", "x/MyToken/m.pt"),
]


@pytest.mark.parametrize("keys", FAMILIES, ids=lambda keys: keys[0][:30])
def test_prefixes_that_look_alike_have_names_of_their_own(keys: tuple[str, ...]) -> None:
    assert len({name_of(key, strip="/") for key in keys}) == len(keys)


def test_a_name_with_a_digest_is_no_path_that_somebody_could_upload_to() -> None:
    taken = name_of("payments/Fraud-Model/m.pt")

    assert name_of(f"{taken}/m.pt") != taken
    assert name_of(f"{taken.replace('--', '/')}/m.pt") != taken


ODD = st.sampled_from(
    ["a", "b", "A", "-", "_", "--", "-_", "/", "//", ".", "..", "%2f", "é", "token"]
)
KEYS = st.lists(ODD, min_size=1, max_size=8).map(lambda parts: "".join(parts) + "/m.pt")


@pytest.mark.threat("A19")
@given(KEYS, KEYS)
@example("a--b/m.pt", "a/b/m.pt")
def test_two_prefixes_never_share_a_name(one: str, other: str) -> None:
    assume(prefix_of(one) != prefix_of(other))
    try:
        names = {name_of(one, strip="/"), name_of(other, strip="/")}
    except InputError:
        return
    assert len(names) == 2


@pytest.mark.threat("A19")
@given(st.text(max_size=200), st.sampled_from(["{path}", "{folder}", "{bucket}/{path}", "X{path}"]))
def test_every_name_keeps_to_the_grammar_of_serving(key: str, template: str) -> None:
    try:
        name = name_of(key, template=template)
    except InputError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", name)
    assert "token" not in name


def test_a_site_may_have_another_rule() -> None:
    assert name_of("a/b/m.pt", template="{folder}") == "b"
    assert name_of("a/b/m.pt", template="{bucket}/{path}") == "models--a--b"
    assert name_of("a/b/m.pt", template="prod-{path}") == "prod-a--b"
    assert name_of("models/b/m.pt", strip="/") == "models--b"


def test_a_folder_that_is_spelled_like_a_part_of_the_rule_is_not_filled_in() -> None:
    assert name_of("x/{bucket}/m.pt", template="{folder}") not in {"models", "bucket"}
