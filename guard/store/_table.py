"""What all tables share: the base class, the types of ids and digests, and partial indexes."""

from sqlalchemy import Index, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase

ID = String(32)  # uuid4().hex
DIGEST = String(64)  # SHA-256, lower-case hexadecimal


class Base(DeclarativeBase):
    """Names every constraint, so that migrations can refer to it on both databases."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def only(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    """An index on the rows for which the SQL condition `where` holds."""
    return Index(
        name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where)
    )
