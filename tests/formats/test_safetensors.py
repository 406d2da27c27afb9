"""Every rule of the safetensors parser, by its error code, and random damage."""

import io
import json
import struct
import tempfile
import zipfile
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from guard.core.contracts import Budget
from guard.core.errors import ArtifactRejected
from guard.formats.safetensors import Safetensors

BUDGET = Budget(
    file_bytes=1 << 20, header_bytes=1 << 16, tensors=50, metadata_bytes=1000, parameters=10_000
)
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def sample() -> bytes:
    tensors = {
        "layer.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3),
        "layer.bias": torch.ones(2, dtype=torch.float16),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False]),
    }
    return safetensors.torch.save(tensors, {"format": "pt"})


def raw(header: Any, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def refused(data: bytes, budget: Budget = BUDGET) -> str:
    with pytest.raises(ArtifactRejected) as caught:
        Safetensors().tensors(io.BytesIO(data), budget=budget)
    return caught.value.code


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {**F32, **changes}}


def pair(first: list[int], second: list[int]) -> dict[str, Any]:
    return {"a": {**F32, "data_offsets": first}, "b": {**F32, "data_offsets": second}}


def test_values_and_types_survive() -> None:
    found = Safetensors().tensors(io.BytesIO(sample()), budget=BUDGET)

    expected = safetensors.torch.load(sample())
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert tensor.dtype == found[name].dtype
        assert torch.equal(tensor, found[name])


def test_the_header_is_told_without_reading_the_tensors() -> None:
    text = json.dumps(
        {"w": {"dtype": "F32", "shape": [1 << 26], "data_offsets": [0, 1 << 28]}}
    ).encode()
    with tempfile.TemporaryFile() as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + (1 << 28))  # sparse: nothing is written
        counting = CountingFile(file)

        header = Safetensors().inspect(counting, budget=Budget())  # type: ignore[arg-type]

    assert header.tensors[0].shape == (1 << 26,)
    assert counting.count < 200_000


class CountingFile:
    def __init__(self, file: Any) -> None:
        self.file, self.count = file, 0

    def seek(self, *args: int) -> int:
        return self.file.seek(*args)

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        self.count += len(data)
        return data


@pytest.mark.row(9)
@pytest.mark.threat("C03", "C04", "C05")
@pytest.mark.parametrize(
    ("code", "data"),
    [
        ("file_too_small", b"\x00" * 7),
        ("header_too_large", struct.pack("<Q", 2**62) + b"{}"),
        ("header_too_large", struct.pack("<Q", (1 << 16) + 1) + b"{}" + bytes(1 << 17)),
        ("header_truncated", struct.pack("<Q", 100) + b"{}"),
        ("header_start", raw(b" {}")),
        ("header_start", raw(b"")),
        ("header_not_utf8", raw(b'{"\xff":1}')),
        ("header_not_json", raw(b"{")),
        ("header_not_json", raw(b'{"a":NaN}')),
        ("header_not_json", raw(b'{"a":1e3}')),
        ("header_not_json", raw(b'{"a":' + b"9" * 5000 + b"}")),
        ("header_too_deep", raw(b'{"a":' + b"[" * 60 + b"]" * 60 + b"}")),
        ("too_many_tensors", raw(b'{"a":' + b"[" * 9000)),
        ("too_many_tensors", raw({f"w{i}": F32 for i in range(51)})),
        ("too_many_keys", raw(b'{"__metadata__":{' + b'"a":"",' * 2300 + b'"b":""}}')),
        ("duplicate_key", raw(b'{"w":1,"w":1}')),
        (
            "duplicate_key",
            raw(b'{"w":{"dtype":"F32","dtype":"U8","shape":[2],"data_offsets":[0,8]}}'),
        ),
        ("duplicate_key", raw(b'{"w":1,"\\u0077":1}')),
        ("no_tensors", raw({}, b"")),
        ("no_tensors", raw({"__metadata__": {"a": "b"}}, b"")),
        ("metadata_not_text", raw({"__metadata__": {"a": 1}, **entry()})),
        ("metadata_not_text", raw({"__metadata__": [], **entry()})),
        ("metadata_too_large", raw({"__metadata__": {"a": "b" * 1000}, **entry()})),
        ("metadata_control", raw({"__metadata__": {"a": "\x1b[31m"}, **entry()})),
        ("name_bad", raw({"../w": F32})),
        ("name_bad", raw({"a..b": F32})),
        ("name_bad", raw({"": F32})),
        ("name_bad", raw({"w\0": F32})),
        ("name_bad", raw({"w\x1b[0m": F32})),
        ("name_bad", raw({"\uff57": F32})),
        ("name_bad", raw({"w\n": F32})),
        ("name_too_long", raw({"w" * 513: F32})),
        ("entry_malformed", raw({"w": [1]})),
        ("entry_malformed", raw(entry(more=1))),
        ("dtype_not_allowed", raw(entry(dtype="F8_E4M3"))),
        ("dtype_not_allowed", raw(entry(dtype=["F32"]))),
        ("shape_malformed", raw(entry(shape=[-2]))),
        ("shape_malformed", raw(entry(shape=[True, 2]))),
        ("shape_malformed", raw(entry(shape="2"))),
        ("rank_too_large", raw(entry(shape=[1] * 9))),
        ("empty_tensor", raw(entry(shape=[0, 9007199254740991], data_offsets=[0, 0]))),
        ("dimension_too_large", raw(entry(shape=[2**31]))),
        ("offsets_malformed", raw(entry(data_offsets=[8, 0]))),
        ("offsets_malformed", raw(entry(data_offsets=[0, 4, 8]))),
        ("length_mismatch", raw(entry(shape=[3]))),
        (
            "length_mismatch",
            raw(entry(shape=[2**30, 2**30, 2**2], data_offsets=[0, 0])),
        ),  # 2**64 bytes wrap to 0
        (
            "too_many_parameters",
            raw(
                {"w": {"dtype": "U8", "shape": [10_001], "data_offsets": [0, 10_001]}},
                bytes(10_001),
            ),
        ),
        ("offsets_overlap", raw(pair([0, 8], [4, 12]), bytes(12))),
        ("offsets_overlap", raw(pair([0, 8], [0, 8]))),
        ("offsets_hole", raw(pair([0, 8], [9, 17]), bytes(17))),
        ("offsets_hole", raw(entry(data_offsets=[4, 12]), bytes(12))),
        ("data_truncated", raw(entry(), bytes(7))),
        ("trailing_bytes", raw(entry(), bytes(9))),
        ("bool_value", raw(entry(dtype="BOOL", data_offsets=[0, 2]), b"\x01\x02")),
        ("not_finite", raw(entry(), struct.pack("<ff", 0, float("nan")))),
        ("not_finite", raw(entry(), struct.pack("<ff", float("-inf"), 0))),
        ("not_finite", raw(entry(dtype="BF16", data_offsets=[0, 4]), b"\x80\x7f\x00\x00")),
        ("not_finite", raw(entry(dtype="F64", shape=[1]), struct.pack("<d", float("inf")))),
    ],
)
def test_each_broken_rule_has_its_name(code: str, data: bytes) -> None:
    assert code == refused(data)


def test_a_file_over_budget_is_refused_before_it_is_read() -> None:
    assert refused(bytes((1 << 20) + 1)) == "file_too_large"


def test_tensors_over_the_memory_budget_are_refused() -> None:
    assert refused(raw(entry()), Budget(memory_bytes=7)) == "over_memory_budget"


@pytest.mark.threat("C06")
def test_a_zip_attached_behind_the_tensors_is_refused() -> None:
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n")

    assert refused(sample() + tail.getvalue()) == "trailing_bytes"


@pytest.mark.row(10)
@pytest.mark.threat("C06")
@pytest.mark.parametrize("junk", [0, 3])
def test_a_zip_hidden_inside_a_tensor_is_refused(junk: int) -> None:
    """Zip readers start at the end and forgive a few bytes behind it, so a file can be both."""
    tail = io.BytesIO()
    with zipfile.ZipFile(tail, "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n")
    data = tail.getvalue() + bytes(junk)
    header = {"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}

    assert refused(raw(header, data)) == "polyglot"


@pytest.mark.threat("C13")
def test_names_in_sentences_cannot_steer_a_terminal() -> None:
    with pytest.raises(ArtifactRejected) as caught:
        Safetensors().inspect(io.BytesIO(raw({"\x1b[2J\r\n": F32})), budget=BUDGET)

    assert caught.value.sentence.isprintable()


@given(st.integers(0, len(sample()) - 1))
def test_a_truncated_file_is_always_refused(length: int) -> None:
    assert refused(sample()[:length])


@pytest.mark.threat("C04")
@given(
    st.lists(
        st.tuples(st.integers(0, len(sample()) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )
)
def test_what_we_accept_of_a_damaged_file_the_reference_reads_alike(
    changes: list[tuple[int, int]],
) -> None:
    data = bytearray(sample())
    for position, value in changes:
        data[position] = value
    try:
        found = Safetensors().tensors(io.BytesIO(data), budget=BUDGET)
    except ArtifactRejected:
        return

    reference = safetensors.torch.load(bytes(data))
    assert reference.keys() == found.keys()
    assert all(torch.equal(reference[name], found[name]) for name in found)


@pytest.mark.threat("C03")
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["F32", "U8", "w"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["w", "dtype", "shape", "data_offsets", "__metadata__"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_header_or_a_refusal(header: Any) -> None:
    try:
        Safetensors().tensors(io.BytesIO(raw(header)), budget=BUDGET)
    except ArtifactRejected as error:
        assert error.code != "artifact_rejected"  # noqa: PT017 - every refusal names its rule
