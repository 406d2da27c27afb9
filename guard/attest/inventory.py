"""What a back-up holds, signed: the digest of each of its files, and what the database was then.

Without it, whoever can write to a back-up could add a token, or take a finding out, before it is
restored.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from guard.attest import dsse
from guard.attest.keys import Signer, TrustedKeys
from guard.attest.statement import STATEMENT_TYPE
from guard.core.digests import is_digest
from guard.core.errors import IntegrityMismatch
from guard.core.plain import Text, from_plain, to_plain

BACKUP_TYPE = "https://registry-guard.dev/backup/v1"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """When a back-up was made, by which release, and how far the ledger had come.

    `schema` is the database's revision, `checkpoint` the number of the newest checkpoint (0 where
    there was none), `tables` the number of rows of each table, `blobs` how many it names.
    """

    made_at: datetime
    release: Text
    schema: Text
    checkpoint: int
    tables: dict[str, int]
    blobs: int


def sign(files: Mapping[str, str], facts: Facts, signer: Signer) -> dict[str, Any]:
    """The envelope around an inventory; `files` are SHA-256 by name."""
    return dsse.sign(
        {
            "_type": STATEMENT_TYPE,
            "subject": [
                {"name": name, "digest": {"sha256": digest}}
                for name, digest in sorted(files.items())
            ],
            "predicateType": BACKUP_TYPE,
            "predicate": to_plain(facts),
        },
        signer,
    )


def read(envelope: Mapping[str, Any], trusted: TrustedKeys) -> tuple[dict[str, str], Facts]:
    """The files and facts of an inventory that a trusted key signed.

    Raises:
        IntegrityMismatch: it is none, or no trusted key signed it.
    """
    statement = dsse.verify(envelope, trusted)
    try:
        if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, BACKUP_TYPE):
            raise ValueError("another type")
        files = {str(item["name"]): str(item["digest"]["sha256"]) for item in statement["subject"]}
        if not files or not all(map(is_digest, files.values())):
            raise ValueError("no files")
        return files, from_plain(Facts, statement["predicate"])
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityMismatch(
            f"The inventory of the back-up cannot be read ({error}).", code="bad_statement"
        ) from error
