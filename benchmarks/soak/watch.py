"""What must hold while the soak runs, and what must hold once it rests."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from sqlalchemy.exc import SQLAlchemyError

from benchmarks.demo.story import Endpoint
from benchmarks.soak import books
from benchmarks.soak.books import SERVABLE, Books
from benchmarks.soak.ground import Ground, memory
from benchmarks.soak.models import images
from benchmarks.soak.sender import Sent
from guard.core.digests import sha256
from guard.core.errors import GuardError
from guard.events.bucket import ObjectFacts
from guard.flow.verify import verify

CONFIG_FILES = ("config.json",)


@dataclass
class Watch:
    """Looks again and again; keeps every violation once, and what it measured.

    Attributes:
        looks: how often everything was compared; `missed`: how often something was away.
        open: what was not at rest when the time ended.
        sizes: part -> process -> resident MiB (alone, with children) at each look.
    """

    ground: Ground
    canary: Path  # the file that a payload would make
    violations: dict[str, float] = field(default_factory=dict)
    looks: int = 0
    missed: int = 0
    open: list[str] = field(default_factory=list)
    sizes: dict[str, dict[int, list[tuple[int, int]]]] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def note(self, violation: str) -> None:
        """Keep a violation with the second in which it was first seen."""
        if violation not in self.violations:
            self.violations[violation] = round(time.monotonic() - self.began, 1)
            print(f"{self.violations[violation]:7.1f} s  ! {violation}", flush=True)

    def look(self) -> Books | None:
        """Compare serving, database and ledger as they are now; None where one is away."""
        for part, (pid, own, whole) in memory(self.ground).items():
            self.sizes.setdefault(part, {}).setdefault(pid, []).append((own, whole))
        if self.canary.exists():
            self.note("payload: the code in a pickle ran")
        try:
            served = self.ground.guard.publisher.state()
        except (GuardError, httpx.HTTPError, OSError, ValueError):
            served = []
            self.missed += 1
        try:
            # Read after serving: a verdict is older than what is served by it.
            found = books.read(self.ground.guard.engine)
        except SQLAlchemyError:
            self.missed += 1
            return None
        self.looks += 1
        for one in served:
            if one.digest is None:
                continue  # nothing answers under it
            verdict = found.newest(one.digest)
            if verdict not in SERVABLE:
                self.note(
                    f"served: {one.name} {one.version} is {one.digest[:12]}, about which the "
                    f"ledger has {verdict or 'nothing'}"
                )
            elif not any(
                row["name"] == one.name and row["canonical_digest"] == one.digest
                for row in found.all_scans
            ):
                self.note(f"served: {one.digest[:12]} under {one.name}, as which nobody sent it")
        for text in standing(found):
            self.note(text)
        return found


def standing(found: Books) -> Iterator[str]:
    """What holds in the database at every moment."""
    for scan, count in Counter(row["scan_id"] for row in found.verdicts).items():
        if count > 1:
            yield f"two verdicts: scan {scan[:8]} was given {count}"
    kinds: dict[str, set[str]] = {}
    for row in found.verdicts:
        if row["verdict"] != "inconclusive":
            kinds.setdefault(row["artifact_digest"], set()).add(row["verdict"])
    for digest, several in kinds.items():
        if len(several) > 1:
            yield f"two verdicts: {digest[:12]} is {' and '.join(sorted(several))}"
    for row in found.publications:
        if row["state"] == "active" and found.newest(row["digest"]) not in SERVABLE:
            yield f"published: {row['name']} {row['version']} without a verdict that permits it"


def final(watch: Watch, sent: list[Sent], found: Books) -> dict[str, books.Answer]:
    """Check everything at rest; returns the answer to each version by `key version`."""
    guard = watch.ground.guard
    known = {(key, version): one for one in sent for key, version in one.versions if not one.failed}
    bucket = guard.make_bucket(guard.settings.intake_bucket)
    there = {(facts.key, facts.pin) for facts in bucket.versions() if _main(facts, known)}
    latest = {(facts.key, facts.pin) for facts in bucket.latest()}
    answers = {}
    for key, version in sorted(set(known) | there):
        answer = books.answer_to(found, key, version)
        one = known.get((key, version))
        if answer.kind == "none" and one and one.deleted:
            answer = books.Answer("gone", "It was deleted before anybody looked.")
        if answer.kind == "none" and (key, version) not in latest:
            # Its notice was lost, and the sweep takes up what is there now.
            answer = books.Answer("replaced", "It was replaced before anybody looked.")
        answers[f"{key} {version}"] = answer
        for text in _wrong(answer, one):
            watch.note(f"{text} ({key!r} {version[:12]})")
    for rows in found.scans.values():
        pins = Counter(str(row["version_id"]) for row in rows)
        for pin, count in pins.items():
            if count > 1:
                watch.note(f"two verdicts: {rows[0]['key']!r} {pin[:12]} has {count} scans")
    watch.open = books.open_work(found)
    for text in [*_unread(found), *verify(guard), *_serving(watch, found)]:
        # Serving switches before the database records it.
        if not any(
            row["state"] == "publishing" and f"{row['name']} " in text for row in found.all_scans
        ):
            watch.note(text)
    if not watch.open:
        for text in [*_held(watch, found), *leftovers(watch.ground)]:
            watch.note(text)
    return answers


def _held(watch: Watch, found: Books) -> Iterator[str]:
    now = watch.ground.guard.now()
    for row in found.all_scans:
        if row["lease_until"] and books.moment(row["lease_until"]) > now:
            yield f"lease: scan {row['id'][:8]} is still held"


def _main(facts: ObjectFacts, known: dict[tuple[str, str], Sent]) -> bool:
    """Whether a version in the store needs an answer of its own: no config, no part of a model."""
    name = facts.key.rpartition("/")[2]
    aside = name in CONFIG_FILES or "-of-" in name
    return (facts.key, facts.pin) in known or not aside


def _wrong(answer: books.Answer, one: Sent | None) -> Iterator[str]:
    if answer.kind == "open":
        return
    if answer.kind == "none":
        yield "unanswered"
    elif not books.readable(answer.reason):
        yield f"unreadable: {answer.kind}: {answer.reason[:300]!r}"
    elif one is not None and answer.kind not in (*one.upload.kind.answers, "replaced"):
        yield f"unexpected: {one.upload.kind.name} is {answer.kind}: {answer.reason[:200]}"


def _unread(found: Books) -> Iterator[str]:
    for row in found.letters:
        if not books.readable(row["error"]):
            yield f"unreadable: dead letter {row['task']}: {row['error'][:200]!r}"
    for row in found.all_scans:
        if row["error"] and not books.readable(row["error"]):
            yield f"unreadable: error of a scan: {row['error'][:200]!r}"


def _serving(watch: Watch, found: Books) -> Iterator[str]:
    """Of each name a client gets the digest that was published last, and each name is there."""
    active = {row["name"]: row for row in found.publications if row["state"] == "active"}
    for row in [row for row in found.publications if row["state"] == "active"]:
        if active[row["name"]] is not row:
            yield f"published: {row['name']} has two active versions"
    pixels, _ = images(1, seed=3)
    import torch

    with Endpoint(watch.ground.guard) as endpoint:
        for name, row in active.items():
            try:
                _, digest = endpoint.ask(name, torch.from_numpy(pixels[0]))
            except httpx.HTTPError as error:
                yield f"served: {name} does not answer: {error}"
                continue
            if digest != row["digest"]:
                yield f"served: {name} answers with {digest[:12]}, not {row['digest'][:12]}"


def leftovers(ground: Ground) -> list[str]:
    """Files that nobody will look at again: what killed processes left behind, a while later."""
    data = ground.folder / "stack"
    for path in [*(data / "work").glob("*"), *(data / "blobs").glob(".*")]:
        with suppress(OSError):
            os.utime(path, (0, 0))
    with ground.guard.workspace():
        ground.guard.blobs.put_bytes(b"a write like any other")
    found = [f"leftover: work/{path.name}" for path in (data / "work").glob("*")]
    found += [f"leftover: blobs/{path.name}" for path in (data / "blobs").glob(".*")]
    found += [
        f"leftover: tmp/{path.name}"
        for path in (ground.folder / "tmp").iterdir()
        # Python's own, of each process that loads multiprocessing: empty, once its process is gone.
        if not path.is_socket() and not (path.name.startswith("pymp-") and not list(path.iterdir()))
    ]
    for path in (data / "blobs").glob("??/*"):
        if sha256(path.read_bytes()) != path.name:
            found.append(f"leftover: blob {path.name[:12]} holds other bytes")
    return found + _archives(ground)


def _archives(ground: Ground) -> list[str]:
    """Archives and unpacked copies of TorchServe that belong to nothing registered."""
    settings = ground.guard.settings
    used = {str(one.detail.get("archive")) for one in ground.guard.publisher.state()}
    store = Path(settings.torchserve_store)
    return [f"leftover: archive {path.name}" for path in store.iterdir() if path.name not in used]


def at_rest(ground: Ground) -> bool:
    """Whether nothing is open in the database."""
    try:
        return not books.open_work(books.read(ground.guard.engine))
    except SQLAlchemyError:
        return False


def scratch() -> Path:
    """A private folder with a short path, which PostgreSQL's user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    folder.chmod(0o755)
    return folder
