"""The short form of `benchmarks/bench_soak.py`: what nobody may serve, and what dies meanwhile."""

import json
import time
from collections import Counter

from safetensors.torch import load_file

from benchmarks.demo.models import Payload
from benchmarks.soak import books
from benchmarks.soak.ground import kill_tree
from benchmarks.soak.kinds import KINDS
from benchmarks.soak.models import Bases
from benchmarks.soak.schedule import Upload
from benchmarks.soak.sender import Sender
from tests.e2e.site import Site

#: Three that are served under one name, from the same bytes, and nine that are not.
SOME = {
    "the same bytes again",
    "prefix `module.`",
    "notice sent four times",
    "backdoored, in a pickle with a payload",
    "two state dicts in one file",
    "cut off in the middle",
    "weights that are NaN",
    "other num_classes",
    "no config.json",
    "random bytes",
    "empty",
    "a key that cannot be shown",
}
OUTAGE = 2.0  # seconds


def test_each_upload_gets_one_answer_that_a_person_can_read_though_processes_die(
    site: Site,
) -> None:
    kinds = [kind for kind in KINDS if kind.name in SOME]
    assert len(kinds) == len(SOME)
    honest, backdoored = (site.models[name] for name in ("honest", "backdoored"))
    bases = Bases(
        load_file(honest / "model.safetensors"),
        load_file(backdoored / "model.safetensors"),
        Payload(site.canary),
        json.loads((honest / "config.json").read_text()),
    )
    uploads = [
        Upload(8 * place, 0.2 * place, kind, kind.folder.format(name="soaked", number=place))
        for place, kind in enumerate(kinds)
    ]
    sender = Sender(site.guard.settings, site.stack.api_address, bases, uploads)
    sender.start()
    site.until(lambda: sender.done > 2, why="the first uploads")
    for part in ("valkey", "worker-inspect"):
        kill_tree(site.pid(part))
        time.sleep(OUTAGE)
        site.stack.restart(part)
    site.until(lambda: not sender.is_alive(), why="the uploads")

    def answers() -> dict[str, books.Answer] | None:
        found = books.read(site.guard.engine)
        mine = {
            sent.upload.kind.name: books.answer_to(found, *sent.versions[-1])
            for sent in sender.sent.values()
        }
        return None if any(one.kind in {"open", "none"} for one in mine.values()) else mine

    for kind, answer in zip(kinds, site.until(answers, why="the answers").values(), strict=True):
        assert answer.kind in kind.answers, (kind.name, answer)
        assert books.readable(answer.reason), (kind.name, answer)
        assert answer.scans <= 1
    rows = books.read(site.guard.engine).verdicts
    assert max(Counter(row["scan_id"] for row in rows).values()) == 1
    assert not site.canary.exists()
