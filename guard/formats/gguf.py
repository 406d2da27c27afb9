"""GGUF: quantised language models; recognised and refused."""

from guard.formats._refused import Refused


class Gguf(Refused):
    """The file starts with the four letters GGUF."""

    code = "gguf"
    thing = "a GGUF file of quantised weights"

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head.startswith(b"GGUF")
