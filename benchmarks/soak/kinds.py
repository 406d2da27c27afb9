"""The kinds of upload, each with the steps of its uploader and the answers that it may get.

Steps name files below the upload's folder. What is good shares few served names, so that uploads
replace each other there; what is refused, or brings a `config.json` of its own, has its own folder.
"""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.soak.models import Bases, State
from guard.formats._write import write_tensors

SAFE, PICKLE, CONFIG = "model.safetensors", "model.pt", "config.json"
LARGEST = 2 << 20  # bytes; GUARD_MAX_UPLOAD_BYTES of the soak
FRESH = 100  # variants that no other kind uploads, so that their digests are new


@dataclass(frozen=True)
class Put:
    """Put an object `after` seconds; `main` versions must be answered."""

    file: str
    body: bytes
    main: bool = False
    after: float = 0.0


@dataclass(frozen=True)
class Delete:
    """Delete the version that was put last."""

    after: float = 0.0


@dataclass(frozen=True)
class Notice:
    """Send the notice of the version that was put last so many times more."""

    times: int
    after: float = 0.0


Step = Put | Delete | Notice


@dataclass(frozen=True)
class Kind:
    """One kind of upload.

    `make` gets the bases and the upload's number; `folder` is formatted with `number`, `name` (of
    the shared ones) and `some` (the number modulo `variants`); `answers` are verdicts, `refused` or
    `ignored`; `weight` is how often it is drawn.
    """

    name: str
    make: Callable[[Bases, int], tuple[Step, ...]]
    answers: tuple[str, ...] = ("unvettable",)
    folder: str = "models/own/{number}"
    variants: int = 1
    weight: float = 1.0


def _safe(own: State) -> bytes:
    buffer = io.BytesIO()
    write_tensors(own, {}, buffer.write)
    return buffer.getvalue()


def _pickle(value: Any, *, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def _with_config(bases: Bases, file: str, body: bytes, **changes: Any) -> tuple[Step, ...]:
    config = json.dumps({**bases.config, **changes}).encode()
    return Put(CONFIG, config), Put(file, body, main=True)


def _under(prefix: str, own: State) -> State:
    return {prefix + name: part for name, part in own.items()}


def _sharded(bases: Bases, number: int) -> tuple[Step, ...]:
    own = list(bases.variant(2 * FRESH + number).items())
    names = [f"model-0000{place}-of-00002.safetensors" for place in (1, 2)]
    parts = [dict(own[: len(own) // 2]), dict(own[len(own) // 2 :])]
    listed = {key: file for file, part in zip(names, parts, strict=True) for key in part}
    index = json.dumps({"metadata": {}, "weight_map": listed}).encode()
    return (
        Put(CONFIG, json.dumps(bases.config).encode()),
        *(Put(file, _safe(part)) for file, part in zip(names, parts, strict=True)),
        Put("model.safetensors.index.json", index, main=True),
    )


def _bomb() -> bytes:
    """A checkpoint of a few hundred KiB that unfolds to 256 MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/version", b"3\n")
        archive.writestr("archive/data/0", bytes(256 << 20))
    return buffer.getvalue()


def _nan(own: State) -> State:
    first = min(name for name, part in own.items() if part.is_floating_point() and part.dim() > 1)
    return {**own, first: torch.full_like(own[first], float("nan"))}


def _two(own: State) -> State:
    return _under("student.", own) | _under("teacher.", own)


def _late(bases: Bases, number: int) -> tuple[Step, ...]:
    config, weights = _with_config(bases, SAFE, _safe(bases.variant(number)))
    assert isinstance(config, Put)
    return weights, Put(config.file, config.body, after=8.0)


def _random(number: int) -> bytes:
    return bytes(torch.randint(256, (4096,), generator=torch.Generator().manual_seed(number)))


GOOD, SHARED = ("cleared",), "models/{name}"
BARE = (Put(SAFE, b"", main=True),)
KINDS = (
    Kind(
        "honest safetensors",
        lambda b, n: _with_config(b, SAFE, _safe(b.variant(n % 8))),
        GOOD, SHARED, weight=2,
    ),
    Kind(
        "honest checkpoint (.pt)",
        lambda b, n: _with_config(b, PICKLE, _pickle(b.variant(n % 8))),
        GOOD, SHARED,
    ),
    Kind(
        "older pickle form",
        lambda b, n: _with_config(b, PICKLE, _pickle(b.variant(n % 8), old=True)),
        GOOD, SHARED,
    ),
    Kind(
        "float16 weights",
        lambda b, _n: _with_config(
            b,
            SAFE,
            _safe({k: t.half() if t.is_floating_point() else t for k, t in b.honest.items()}),
        ),
        GOOD, SHARED,
    ),
    Kind(
        "prefix `module.`",
        lambda b, n: _with_config(b, PICKLE, _pickle(_under("module.", b.variant(n % 8)))),
        GOOD, SHARED,
    ),
    Kind("shards with an index", _sharded, GOOD, "models/shards-{some}", variants=2),
    Kind(
        "the same bytes again",
        lambda b, _n: _with_config(b, SAFE, _safe(b.honest)),
        GOOD, SHARED, weight=2,
    ),
    Kind(
        "same key twice, the older verdict later",
        lambda b, n: (
            *_with_config(b, SAFE, _safe(b.variant(FRESH + n))),
            Put(SAFE, _safe(b.honest), main=True, after=0.5),
        ),
        GOOD, SHARED,
    ),
    Kind(
        "notice sent four times",
        lambda b, n: (*_with_config(b, SAFE, _safe(b.variant(n % 8))), Notice(3)),
        GOOD, SHARED,
    ),
    Kind("config.json after its weights", _late, GOOD, "models/late-{number}", weight=0.2),
    Kind(
        "backdoored",
        lambda b, n: _with_config(b, SAFE, _safe(b.variant(n % 3, bad=True))),
        ("rejected", "held"), "models/bad-{some}", variants=3,
    ),
    Kind(
        "backdoored, in a pickle with a payload",
        lambda b, _n: _with_config(b, PICKLE, _pickle({**b.backdoored, "note": b.payload})),
    ),
    Kind(
        "two state dicts in one file",
        lambda b, n: _with_config(b, PICKLE, _pickle(_two(b.variant(n % 8)))),
    ),
    Kind(
        "cut off in the middle",
        lambda b, n: _with_config(b, SAFE, (full := _safe(b.variant(n % 8)))[: len(full) // 2]),
    ),
    Kind("unfolds to 256 MiB", lambda b, _n: _with_config(b, PICKLE, _bomb())),
    Kind("weights that are NaN", lambda b, _n: _with_config(b, SAFE, _safe(_nan(b.honest)))),
    Kind(
        "other num_classes",
        lambda b, _n: _with_config(
            b, SAFE, _safe(b.honest), num_classes=7, label_names=list("abcdefg")
        ),
    ),
    Kind(
        "shapes over budget",
        lambda b, _n: _with_config(
            b, SAFE, _safe(b.honest), model_args={"in_chans": 1, "depths": [9, 9], "width": 16384}
        ),
    ),
    Kind("no config.json", lambda b, n: (Put(SAFE, _safe(b.variant(n % 8)), main=True),)),
    Kind("random bytes", lambda b, n: _with_config(b, SAFE, _random(n))),
    Kind(
        "larger than the limit",
        lambda b, _n: _with_config(b, SAFE, bytes(LARGEST + 1)),
        ("refused",),
    ),
    Kind("empty", lambda _b, _n: BARE, ("refused",)),
    Kind(
        "a key that cannot be shown",
        lambda b, n: (Put(f"tfe\u202ern-{n}.safetensors", _safe(b.honest), main=True),),
        ("refused",),
    ),
    Kind(
        "another prefix asks for the name",
        lambda b, _n: _with_config(b, SAFE, _safe(b.honest)),
        ("refused",), "{name}",
    ),
    Kind(
        "deleted at once",
        lambda b, _n: (*_with_config(b, SAFE, _safe(b.honest)), Delete()),
        ("refused", "cleared", "gone"), "models/gone-{some}", variants=2,
    ),
    Kind(
        "no model: a document",
        lambda _b, _n: (Put("README.md", b"nothing to vet", main=True),),
        ("ignored",),
    ),
)  # fmt: skip
