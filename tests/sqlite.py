"""SQLite databases with the newest schema: copies of one, since migrating takes tenths of a second.

tests/migrations makes its own, as do the tests of older schemas.
"""

import shutil
from functools import cache
from pathlib import Path

from guard.settings import Settings
from guard.store.migrate import upgrade
from tests.services import scratch


@cache
def _template() -> Path:
    folder = scratch("db")
    upgrade(f"sqlite:///{folder / 'guard.db'}")
    return folder / "guard.db"


def migrated(folder: Path) -> str:
    """URL of a database of its own in `folder`, which is made; it has no rows."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_template(), folder / "guard.db")
    return f"sqlite:///{folder / 'guard.db'}"


def migrate_like_bootstrap(settings: Settings) -> None:
    """Do for a data folder without a database what `guard.bootstrap.upgrade_database` does.

    A database that is there already was copied with the folder, and stays as it is.
    """
    file = settings.data_dir / "guard.db"
    assert settings.database_url == f"sqlite:///{file}"
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not file.exists():
        migrated(settings.data_dir)
