"""Column types that mean the same on SQLite and PostgreSQL.

UTC times, enums as text, envelopes as canonical JSON, a scan's notes.
"""
# ruff: noqa: ARG002 - the dialect is SQLAlchemy's own parameter

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, String, Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from guard.core.digests import canonical_json
from guard.core.errors import IntegrityMismatch
from guard.core.notes import ScanNotes
from guard.core.plain import from_plain, to_plain

#: SQL NULL for Python None; plain `JSON` would write the JSON literal null, which `IS NULL` does
#: not find.
PlainJson = JSON(none_as_null=True)


class Utc(TypeDecorator[datetime]):
    """A timezone-aware time, stored as UTC; on SQLite as text that sorts in the order of time."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(
                "a time without a timezone reached the database; pass datetime.now(UTC)"
            )
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EnumText(TypeDecorator[StrEnum]):
    """A member of a string enum, stored as its value; a value unknown to the enum cannot load."""

    impl = String(16)
    cache_ok = True

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(self.members(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:
        if value is None:
            return None
        try:
            return self.members(value)
        except ValueError as error:
            raise IntegrityMismatch(
                f"The database holds the value {value!r}, which this release does not know; it was "
                "changed by hand or by a newer release.",
                code="unknown_word",
            ) from error


class EnvelopeText(TypeDecorator[dict[str, Any]]):
    """A signed envelope as canonical JSON text, whose bytes no database's JSON type changes."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, dialect: Dialect) -> str | None:
        return None if value is None else canonical_json(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> dict[str, Any] | None:
        if value is None:
            return None
        try:
            data = json.loads(value)
        except ValueError:
            data = None
        # Damaged text is read as an empty envelope: the gate refuses it, and the chain check can
        # still name the row instead of stopping at it.
        return data if isinstance(data, dict) else {}


class Notes(TypeDecorator[ScanNotes]):
    """A scan's notes as JSON: the one place where they are written and read."""

    impl = PlainJson
    cache_ok = True

    def process_bind_param(self, value: ScanNotes | None, dialect: Dialect) -> Any:
        return None if value is None else to_plain(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> ScanNotes | None:
        if value is None:
            return None
        try:
            return from_plain(ScanNotes, value)
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityMismatch(
                f"The notes of a scan cannot be read ({error}); they were changed by hand.",
                code="bad_notes",
            ) from error
