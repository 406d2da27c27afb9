"""`guard bom`: of what is served, of a name, a digest or a scan."""

import json
from collections.abc import Callable
from pathlib import Path

from guard.core.states import Verdict
from guard.store import publications
from guard.store.session import transaction
from tests.cli.conftest import Answer, Service
from tests.reports.official import bom_faults

Cli = Callable[..., Answer]


def test_a_model_is_named_as_people_name_it(service: Service, cli: Cli) -> None:
    scan = service.scan(Verdict.HELD, name="digits")
    boms = [cli("bom", one) for one in ("digits", scan.canonical_digest, scan.id, scan.id[:8])]

    assert {one.code for one in boms} == {5}
    assert len({one.out for one in boms}) == 1
    assert bom_faults(json.loads(boms[0].out)) == []
    assert json.loads(boms[0].out)["metadata"]["component"]["name"] == "digits"


def test_of_a_served_name_it_is_the_model_that_is_served(service: Service, cli: Cli) -> None:
    old = service.scan(Verdict.CLEARED, name="digits", data=b"served")
    service.scan(Verdict.REJECTED, name="digits", data=b"newer")
    with transaction(service.guard.engine) as session:
        publications.add(
            session,
            name="digits",
            version="1.0",
            digest=old.canonical_digest or "",
            publication_id="p1",
            publisher="folder",
            archive_digest="0" * 64,
            receipt={},
            envelope={},
            now=service.guard.now(),
        )
    answer = cli("bom", "digits")

    assert answer.code == 0
    (hashed,) = json.loads(answer.out)["metadata"]["component"]["hashes"]
    assert hashed["content"] == old.canonical_digest


def test_what_nobody_knows_or_judged_is_refused(service: Service, cli: Cli) -> None:
    fresh = service.scan(name="fresh")

    assert cli("bom", "nothing").code == 4
    assert cli("bom", fresh.id).code == 4
    assert cli("bom", "f" * 64).code == 4


def test_a_bom_is_written_whole(service: Service, cli: Cli, tmp_path: Path) -> None:
    service.scan(Verdict.CLEARED)
    answer = cli("bom", "digits", "--out", tmp_path / "bom.json")

    assert answer.out == f"cleared digits {tmp_path / 'bom.json'}\n"
    assert bom_faults(json.loads((tmp_path / "bom.json").read_text())) == []
    assert cli("bom", "digits", "--out", tmp_path / "no" / "bom.json").code == 4
