"""Which packages go into the wheel; everything else about the project is in pyproject.toml.

The wheel holds `guard` and `workers` and no third name: the migrations, which stand at the top of
the repository, travel as `guard.migrations` (`guard.store.migrate` looks for them in both places).
"""

from setuptools import find_packages, setup

OURS = find_packages(include=["guard", "guard.*", "workers", "workers.*"])
MIGRATIONS = {
    "guard.migrations": "migrations",
    "guard.migrations.versions": "migrations/versions",
}

setup(packages=[*OURS, *MIGRATIONS], package_dir=MIGRATIONS)
