"""A folder is a registry: one plug-in a file, file name = method name = class name in snake case.

Names are listed without importing anything, and a name that may come from a request is looked up
before any import. Needs a real folder: a zipped import could not be listed (docs/decisions/0001).
"""

import importlib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar, cast

from guard.core.errors import UnknownMethod

T = TypeVar("T")
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Shelf(Generic[T]):
    """The plug-ins in one package's folder; files that start with an underscore are machinery.

    Args:
        package: dotted name of the package, e.g. "guard.detectors".
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def names(self) -> list[str]:
        """All names on the shelf, sorted; imports no plug-in."""
        spec = find_spec(self.package)
        if spec is None or not spec.submodule_search_locations:
            return []
        folder = Path(next(iter(spec.submodule_search_locations)))
        return sorted(file.stem for file in folder.glob("*.py") if _NAME.fullmatch(file.stem))

    def get(self, name: str) -> type[T]:
        """The plug-in class called `name`.

        Raises:
            UnknownMethod: no such file; nothing was imported.
        """
        if name not in self.names():
            known = ", ".join(self.names())
            raise UnknownMethod(f"{name!r} is not in {self.package}; it holds: {known}.")
        module = importlib.import_module(f"{self.package}.{name}")
        return cast("type[T]", getattr(module, class_name(name)))

    def all(self) -> list[type[T]]:
        """Every plug-in class, in the order of names; imports them all."""
        return [self.get(name) for name in self.names()]


def class_name(name: str) -> str:
    """`patch_inversion` -> `PatchInversion`."""
    return "".join(part.capitalize() for part in name.split("_"))
