"""A folder is a registry: one plug-in a file, file name = method name = class name in snake case.

Names are listed without importing anything, and a name that may come from a request is looked up
before any import. The folder must be a real one, since a zipped package could not be listed
(docs/decisions/0001).
`guard.core.plugins` adds files from outside the package.
"""

import ast
import importlib
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Generic, TypeVar, cast

from guard.core.declared import Declared, Unreadable, declared
from guard.core.errors import UnknownMethod
from guard.core.modality import Modality

T = TypeVar("T")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")  # shorter than what a file can be called
_REMEMBERED = 256  # files by their content, of which parsing one takes some milliseconds
#: Plug-ins from outside the package: by package and name, the function that imports one.
_outside: dict[str, dict[str, Callable[[], ModuleType]]] = {}
_outside_source: dict[str, dict[str, bytes]] = {}


class Shelf(Generic[T]):
    """The plug-ins in one package's folder; files that start with an underscore are machinery.

    Args:
        package: dotted name of the package, e.g. "guard.detectors".
    """

    def __init__(self, package: str) -> None:
        self.package = package

    def names(self) -> list[str]:
        """All names on the shelf, sorted; imports no plug-in."""
        return sorted({*built_in(self.package), *_outside.get(self.package, {})})

    def __contains__(self, name: str) -> bool:
        """Whether `names` has the name, without listing the folder."""
        if name in _outside.get(self.package, {}):
            return True
        folder = _folder(self.package)
        return folder is not None and is_name(name) and (folder / f"{name}.py").is_file()

    def get(self, name: str) -> type[T]:
        """The plug-in class called `name`.

        Raises:
            UnknownMethod: no such file, and nothing was imported; or it lacks the class.
            InputError: a plug-in from outside cannot be imported.
        """
        if name not in self:
            known = ", ".join(self.names())
            raise UnknownMethod(f"{name!r} is not in {self.package}; it holds: {known}.")
        outside = _outside.get(self.package, {})
        if name in outside:
            module = outside[name]()
        else:
            module = importlib.import_module(f"{self.package}.{name}")
        if not hasattr(module, class_name(name)):
            raise UnknownMethod(f"{module.__file__} defines no class {class_name(name)}.")
        return cast("type[T]", getattr(module, class_name(name)))

    def version(self, name: str) -> int:
        """The version of a plug-in, read from its file where it is not imported yet.

        So a process without the packages that the plug-in needs can say which version there is.

        Raises:
            UnknownMethod: as `get`.
            InputError: as `get`, for a plug-in from outside.
        """
        if name not in self:
            self.get(name)
        module = f"{self.package}.{name}"
        if module not in sys.modules and name not in _outside.get(self.package, {}):
            found = _declared(module, class_name(name))
            if found is not None:
                return found
        return int(getattr(self.get(name), "version"))  # noqa: B009 - not every shelf has one

    def declared(self, name: str) -> Declared:
        """What the plug-in's file states, read without running it where it states plain values.

        Raises:
            UnknownMethod: no such file.
            InputError: as `get`, for a plug-in from outside that states other values.
        """
        if name not in self:
            self.get(name)
        try:
            return declared(_source(self.package, name), class_name(name))
        except Unreadable:
            cls = self.get(name)
        return Declared(
            version=getattr(cls, "version", None),
            families=frozenset(map(str, getattr(cls, "families", ()))),
            paper=getattr(cls, "paper", ""),
            about=(sys.modules[cls.__module__].__doc__ or "").strip().partition("\n")[0],
        )

    def of(self, modality: Modality) -> list[str]:
        """The names of the plug-ins for models of one modality, sorted; imports no plug-in."""
        return [name for name in self.names() if self.modality(name) is modality]

    def modality(self, name: str) -> Modality:
        """The modality that the plug-in's file states, read without running it.

        Raises:
            UnknownMethod: no such file, or what it states cannot be read.
        """
        if name not in self:
            raise UnknownMethod(f"{name!r} is not in {self.package}.")
        return _stated(_source(self.package, name), class_name(name))

    def all(self) -> list[type[T]]:
        """Every plug-in class, in the order of names; imports them all."""
        return [self.get(name) for name in self.names()]


def _declared(module: str, name: str) -> int | None:
    """The number that a class's body assigns to `version`; None where it does so otherwise."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return None
    return _version(Path(spec.origin).read_bytes(), name)


@lru_cache(_REMEMBERED)
def _version(source: bytes, name: str) -> int | None:
    for item in ast.parse(source).body:
        if not isinstance(item, ast.ClassDef) or item.name != name:
            continue
        for line in item.body:
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and line.target.id == "version"
                and isinstance(line.value, ast.Constant)
                and isinstance(line.value.value, int)
            ):
                return line.value.value
    return None


def extend(
    package: str,
    plug_ins: Mapping[str, Callable[[], ModuleType]],
    sources: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Add plug-ins to the shelf of `package`, in place of those that an earlier call added.

    `sources` are the bytes of their files, by name.
    """
    _outside[package] = dict(plug_ins)
    _outside_source[package] = dict(sources)


def built_in(package: str) -> list[str]:
    """The names of the files in the package's own folder, sorted."""
    folder = _folder(package)
    files = [] if folder is None else folder.glob("*.py")
    return sorted(file.stem for file in files if is_name(file.stem))


def _folder(package: str) -> Path | None:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _source(package: str, name: str) -> bytes:
    outside, folder = _outside_source.get(package, {}), _folder(package)
    if name in outside or folder is None:
        return outside.get(name, b"")
    return (folder / f"{name}.py").read_bytes()


@lru_cache(_REMEMBERED)  # every policy that is read asks for each of its methods
def _stated(source: bytes, name: str) -> Modality:
    """The `modality` in the body of class `name`: a string, or `Modality.NAME`.

    Raises:
        UnknownMethod: it is neither, or the file cannot be parsed.
    """
    if b"modality" not in source:  # most methods: spare the parsing
        return Modality.IMAGES
    try:
        classes = [one for one in ast.parse(source).body if isinstance(one, ast.ClassDef)]
    except (SyntaxError, ValueError) as error:
        raise UnknownMethod(f"The file of {name} is no Python: {error}.") from error
    for line in (line for one in classes if one.name == name for line in one.body):
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if not any(isinstance(one, ast.Name) and one.id == "modality" for one in targets):
            continue
        value = getattr(line, "value", None)
        if isinstance(value, ast.Constant) and value.value in set(Modality):
            return Modality(value.value)
        if isinstance(value, ast.Attribute) and value.attr in Modality.__members__:
            return Modality[value.attr]
        raise UnknownMethod(f"{name} must state its modality as a string or as Modality.NAME.")
    return Modality.IMAGES


def is_name(text: str) -> bool:
    """Whether `text` can name a plug-in: lower-case letters, digits and underscores."""
    return _NAME.fullmatch(text) is not None


def class_name(name: str) -> str:
    """The class that a plug-in of this name defines: `patch_inversion` -> `PatchInversion`."""
    return "".join(part.capitalize() for part in name.split("_"))
