"""ONNX: a graph with its weights; recognised and refused."""

from guard.formats._refused import Refused

_IR_VERSION = 0x08  # field 1, a number
_LATER_FIELDS = (
    b"\x12\x1a\x22\x28\x32\x3a\x42\x72"  # producer, domain, versions, doc, graph, opset, metadata
)
_MAX_IR_VERSION = 32


class Onnx(Refused):
    """ONNX has no signature: it is a protobuf whose IR version precedes another model field."""

    code = "onnx"
    thing = (
        "an ONNX graph, which computes what its own nodes say, whatever network is vetted in its "
        "place"
    )

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return (
            len(head) > 2
            and head[0] == _IR_VERSION
            and 0 < head[1] <= _MAX_IR_VERSION
            and head[2] in _LATER_FIELDS
        )
