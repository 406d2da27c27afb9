"""Small checkpoints whose pickles hold nothing forbidden, and that computing alone could go on at.

All pass the guard's list of opcodes and torch's own; what stops them is the time that a file of
their size may take.
"""

import struct

import torch

from tests.formats.torch_zips import members_of, saved, zipped

_START, _END = b"\x80\x02}", b"."


def nested_key(depth: int = 60) -> bytes:
    """A dictionary's key is a tuple of itself, twice, `depth` times: its hash takes 2^depth."""
    steps = b"".join(b"q%ch%c\x86" % (number, number) for number in range(depth))
    return _START + b")" + steps + b"Ns" + _END


def colliding_keys(count: int = 30_000) -> bytes:
    """A dictionary of integers with one hash, each of which is compared with all before it."""
    prime = (1 << 61) - 1
    numbers = (number * prime for number in range(1, count + 1))
    keys = b"".join(b"\x8a\x0b" + number.to_bytes(11, "little") + b"N" for number in numbers)
    return _START + b"(" + keys + b"u" + _END


def deep_nesting(depth: int = 200_000) -> bytes:
    """Many notes of one thing, then lists in lists, then a key of tuples in tuples.

    What walks down them needs as much stack; the hash of the key calls itself as often.
    """
    memos = b"".join(b"r" + struct.pack("<I", number) for number in range(depth))
    lists = b"X\x01\x00\x00\x00a" + b"]" * depth + b"a" * (depth - 1) + b"s"
    return _START + memos + lists + b")" + b"\x85" * depth + b"Ns" + _END


def checkpoint(pickled: bytes) -> bytes:
    """The archive of torch.save with another pickle in it."""
    members = members_of(saved({"a": torch.zeros(1)}))
    program = next(name for name in members if name.endswith("data.pkl"))
    return zipped({**members, program: pickled})
