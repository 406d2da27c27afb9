"""Requests of the open inference protocol: what is taken, and that everything else is refused."""

import base64
import io
import json
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from guard.core.errors import InputError
from guard.core.manifest import Manifest
from guard.inference._images import decoded
from guard.inference._requests import MAX_BATCH, Request, parse
from guard.serving import _requests as of_torchserve
from tests.inference.making import body, tensor

SIZE = (3, 2, 2)
OUTPUTS = ("probabilities", "class", "label")
IMAGES = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, *SIZE)
BYTES = np.arange(24, dtype=np.uint8).reshape(2, *SIZE)


def ask(data: bytes, length: str | None = None) -> Request:
    return parse(data, length, SIZE, OUTPUTS)


def raw(parts: bytes, kind: str, shape: list[int], **more: Any) -> tuple[bytes, str]:
    """A request whose tensor follows the JSON, and the header that says where."""
    parameters = {"binary_data_size": len(parts), **more}
    head = body({"name": "images", "datatype": kind, "shape": shape, "parameters": parameters})
    return head + parts, str(len(head))


def png(image: np.ndarray[Any, Any], form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form)
    return buffer.getvalue()


PNG = png(BYTES[0].transpose(1, 2, 0))


def test_flat_and_nested_numbers_are_the_same_images() -> None:
    flat = ask(body(tensor(IMAGES)))
    nested = ask(body(tensor(IMAGES, data=IMAGES.tolist())))

    assert np.array_equal(flat.images, IMAGES)
    assert np.array_equal(nested.images, IMAGES)
    assert flat.images.dtype == np.float32


def test_raw_tensors_are_the_same_images_as_json() -> None:
    assert np.array_equal(ask(*raw(IMAGES.tobytes(), "FP32", [2, *SIZE])).images, IMAGES)
    assert np.array_equal(
        ask(*raw(BYTES.tobytes(), "UINT8", [2, *SIZE])).images, BYTES.astype(np.float32) / 255
    )
    assert np.array_equal(ask(body(tensor(BYTES, "UINT8"))).images, BYTES.astype(np.float32) / 255)


def test_encoded_images_are_taken_raw_and_as_base64() -> None:
    framed = struct.pack("<I", len(PNG)) + PNG
    text = base64.b64encode(PNG).decode()
    one = {"name": "images", "datatype": "BYTES", "shape": [2], "data": [text, text]}
    found = ask(body(one))

    assert np.array_equal(ask(*raw(framed * 2, "BYTES", [2])).images, found.images)
    assert np.array_equal(found.images[0], BYTES[0].astype(np.float32) / 255)


@pytest.mark.parametrize(
    ("mode", "channels", "form"),
    [("L", 1, "PNG"), ("RGB", 3, "PNG"), ("RGBA", 4, "PNG"), ("L", 3, "PNG"), ("RGB", 1, "JPEG")],
)
def test_an_encoded_image_is_read_as_by_the_handler_of_torchserve(
    mode: str, channels: int, form: str
) -> None:
    bands = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    data = png(np.random.default_rng(0).integers(0, 256, (6, 5, *bands), np.uint8), form)
    manifest = Manifest(
        architecture="x",
        num_classes=2,
        input_size=(channels, 6, 5),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )
    wanted, _ = of_torchserve.parse({"body": data}, manifest)

    assert np.array_equal(decoded(data, (channels, 6, 5)), wanted[0].numpy())


def test_outputs_are_all_or_those_that_are_asked_for() -> None:
    every = ask(body(tensor(IMAGES), parameters={"binary_data_output": True}))
    some = ask(
        body(
            tensor(IMAGES),
            outputs=[{"name": "class"}, {"name": "label", "parameters": {"binary_data": True}}],
            id="7",
        )
    )

    assert every.outputs == tuple((name, True) for name in OUTPUTS)
    assert (some.outputs, some.id) == ((("class", False), ("label", True)), "7")


def changed(**more: Any) -> bytes:
    return body(tensor(IMAGES, **more))


REFUSED = {
    "no JSON": (b"{", "bad_json"),
    "no UTF-8": (b"\xff\xfe", "bad_json"),
    "too deep": (b"[" * 100_000, "bad_json"),
    "a number of a million digits": (b'{"inputs": ' + b"1" * 100_000 + b"}", "bad_json"),
    "a list": (b"[]", "bad_json"),
    "NaN": (b'{"inputs": [NaN]}', "bad_json"),
    "Infinity": (body(tensor(IMAGES)).replace(b"0.0", b"-Infinity", 1), "bad_json"),
    "no inputs": (b"{}", "bad_inputs"),
    "two inputs": (body(tensor(IMAGES), tensor(IMAGES)), "bad_inputs"),
    "an input that is a list": (b'{"inputs": [[]]}', "bad_inputs"),
    "an id that is a number": (body(tensor(IMAGES), id=7), "bad_inputs"),
    "an id of a million characters": (body(tensor(IMAGES), id="x" * 1_000_000), "bad_inputs"),
    "parameters that are a list": (body(tensor(IMAGES), parameters=[]), "bad_inputs"),
    "shared memory": (changed(parameters={"shared_memory_region": "x"}), "bad_inputs"),
    "a sequence": (body(tensor(IMAGES), parameters={"sequence_id": 4}), "bad_inputs"),
    "another name": (changed(name="picture"), "bad_inputs"),
    "another type": (changed(datatype="FP64"), "bad_inputs"),
    "a type that is a list": (changed(datatype=[]), "bad_inputs"),
    "no shape": (changed(shape=None), "bad_shape"),
    "channels last": (changed(shape=[2, 2, 2, 3]), "bad_shape"),
    "no image": (changed(shape=[0, *SIZE], data=[]), "bad_shape"),
    "a negative number of images": (changed(shape=[-2, *SIZE]), "bad_shape"),
    "a shape of fractions": (changed(shape=[2.0, *SIZE]), "bad_shape"),
    "a shape of truth values": (changed(shape=[True, *SIZE]), "bad_shape"),
    "a batch that is too large": (changed(shape=[MAX_BATCH + 1, *SIZE]), "bad_shape"),
    "an enormous shape": (changed(shape=[10**18, *SIZE]), "bad_shape"),
    "too little data": (changed(data=[0.5]), "bad_shape"),
    "other nesting": (changed(data=IMAGES.reshape(2, 12).tolist()), "bad_shape"),
    "ragged lists": (changed(data=[[0.5], [0.5, 0.5]]), "bad_numbers"),
    "text": (changed(data=["0.5"] * 24), "bad_numbers"),
    "truth values": (changed(data=[True] * 24), "bad_numbers"),
    "no data": (changed(data=None), "bad_numbers"),
    "a huge integer": (changed(data=[10**400] * 24), "bad_numbers"),
    "infinite by overflow": (body(tensor(IMAGES)).replace(b"0.0", b"1e999", 1), "bad_range"),
    "over one": (changed(data=[1.01] * 24), "bad_range"),
    "under zero": (changed(data=[-0.01] * 24), "bad_range"),
    "a byte over 255": (body(tensor(BYTES, "UINT8", data=[256] * 24)), "bad_range"),
    "fractions of bytes": (body(tensor(BYTES, "UINT8", data=[0.5] * 24)), "bad_range"),
    "an unknown output": (body(tensor(IMAGES), outputs=[{"name": "logits"}]), "bad_inputs"),
    "outputs that are no list": (body(tensor(IMAGES), outputs={"name": "class"}), "bad_inputs"),
    "an output twice": (body(tensor(IMAGES), outputs=[{"name": "class"}] * 2), "bad_inputs"),
    "classification": (
        body(tensor(IMAGES), outputs=[{"name": "class", "parameters": {"classification": 3}}]),
        "bad_inputs",
    ),
    "raw bytes that are not there": (
        changed(data=None, parameters={"binary_data_size": 96}),
        "bad_binary_size",
    ),
    "texts that are no base64": (
        body({"name": "images", "datatype": "BYTES", "shape": [1], "data": ["%"]}),
        "bad_picture",
    ),
    "texts that are numbers": (
        body({"name": "images", "datatype": "BYTES", "shape": [1], "data": [7]}),
        "bad_picture",
    ),
    "another number of texts": (
        body({"name": "images", "datatype": "BYTES", "shape": [2], "data": ["AA=="]}),
        "bad_numbers",
    ),
}


@pytest.mark.parametrize(("data", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_malformed_request_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as caught:
        ask(data)

    assert caught.value.code == code


BAD_RAW = {
    "a length that is no number": ((body(tensor(IMAGES)), "-1"), "bad_binary_size"),
    "a length of other digits": ((body(tensor(IMAGES)), "٣"), "bad_binary_size"),
    "a length beyond the body": ((b"{}", "3"), "bad_binary_size"),
    "an endless length": ((b"{}", "9" * 5000), "bad_binary_size"),
    "bytes that nobody claims": ((body(tensor(IMAGES)) + b"x", "AT END"), "bad_binary_size"),
    "another size": (raw(IMAGES.tobytes(), "FP32", [2, *SIZE], binary_data_size=8), None),
    "too few bytes": (raw(IMAGES.tobytes()[:-1], "FP32", [2, *SIZE]), None),
    "an element beyond the end": (raw(struct.pack("<I", 99) + b"x", "BYTES", [1]), None),
    "fewer elements": (raw(struct.pack("<I", 1) + b"x", "BYTES", [2]), None),
    "bytes behind the elements": (raw(struct.pack("<I", 1) + b"xx", "BYTES", [1]), None),
    "NaN": (raw(np.full_like(IMAGES, np.nan).tobytes(), "FP32", [2, *SIZE]), "bad_range"),
    "infinity": (raw(np.full_like(IMAGES, np.inf).tobytes(), "FP32", [2, *SIZE]), "bad_range"),
    "no image": (raw(struct.pack("<I", 4) + b"%PDF", "BYTES", [1]), "bad_picture"),
    "half an image": (
        raw(struct.pack("<I", len(PNG) // 2) + PNG[: len(PNG) // 2], "BYTES", [1]),
        "bad_picture",
    ),
}


@pytest.mark.parametrize(("sent", "code"), BAD_RAW.values(), ids=BAD_RAW.keys())
def test_malformed_raw_bytes_are_refused(sent: tuple[bytes, str], code: str | None) -> None:
    data, length = sent
    with pytest.raises(InputError) as caught:
        ask(data, str(len(data) - 1) if length == "AT END" else length)

    assert caught.value.code == (code or "bad_binary_size")


@pytest.mark.parametrize(
    ("data", "size", "code"),
    [
        (png(np.zeros((3, 2, 3), np.uint8)), SIZE, "bad_shape"),
        (png(np.zeros((2, 2), np.uint16)), SIZE, "bad_depth"),
        (PNG, (5, 2, 2), "bad_channels"),
    ],
)
def test_images_that_would_have_to_be_changed_are_refused(
    data: bytes, size: tuple[int, int, int], code: str
) -> None:
    with pytest.raises(InputError) as caught:
        decoded(data, size)

    assert caught.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["inputs", "outputs", "name", "shape", "datatype", "data", "parameters"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(JSON, st.sampled_from([None, "0", "5", "1000"]))
def test_no_json_does_anything_but_be_refused(value: Any, length: str | None) -> None:
    with pytest.raises(InputError):
        ask(json.dumps(value).encode(), length)
