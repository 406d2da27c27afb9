"""Plug-ins from outside the package: the files of one folder, read once, known by their SHA-256.

The folder is the setting `GUARD_PLUGINS`; `use` puts its plug-ins on the shelves. Their code runs
with all rights of this process, so that whoever can change or replace a file there controls the
guard: nothing is loaded unless only root and this process's user can do that. The bytes that were
hashed are the bytes that run, whatever the file holds later (docs/decisions/0021).
"""

import os
import stat
import sys
from collections.abc import Iterator, Mapping
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, module_from_spec
from pathlib import Path
from types import CodeType, ModuleType

from guard.core import shelf
from guard.core.contract_versions import contract_of
from guard.core.digests import sha256
from guard.core.errors import InputError

#: The sub-folders, and the package whose shelf each one extends. Formats are not among them: they
#: parse what strangers upload, and come with the package only.
FOLDERS = {
    "detectors": "guard.detectors",
    "defenses": "guard.defenses",
    "publishers": "guard.publishers",
    "sifters": "guard.sifters",
    "retrainers": "guard.retrainers",
    "architectures": "guard.ml.networks.nets",
}
#: Methods in evidence that are measurements of the guard's own and not detectors.
RESERVED = {"clean_accuracy", "graph_quality", "training_set"}
MAX_BYTES = 1 << 20  # of one file: code, not weights
_MODULES = "guard_plugins"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_MOST_LINKS = 40  # as the kernel's own limit (path_resolution(7))


class _Bytes(InspectLoader):
    """Imports one file from the bytes that were hashed; no bytecode cache is read or written."""

    def __init__(self, source: bytes, path: Path) -> None:
        self._source = source
        self._path = path

    def get_source(self, fullname: str) -> str:
        """The file's text."""
        del fullname
        return decode_source(self._source)

    def get_code(self, fullname: str) -> CodeType:
        """The file's code, with its path for tracebacks."""
        del fullname
        return self.source_to_code(self._source, str(self._path))


class PlugIn:
    """One file: its name on the shelf, its path, the bytes that run, and their SHA-256.

    `contract` is the contract that it is written for.
    """

    def __init__(self, kind: str, path: Path, source: bytes) -> None:
        self.kind = kind
        self.name = path.stem
        self.path = path
        self.digest = sha256(source)
        self.contract = contract_of(source, kind, path)
        self.module_name = f"{_MODULES}.{kind}.{self.name}"
        self.source = source

    def module(self) -> ModuleType:
        """The imported module, the same one every time.

        Raises:
            InputError: its code does not run.
        """
        if self.module_name not in sys.modules:
            loader = _Bytes(self.source, self.path)
            module = module_from_spec(ModuleSpec(self.module_name, loader, origin=str(self.path)))
            module.__file__ = str(self.path)
            sys.modules[self.module_name] = module  # dataclasses look their module up
            try:
                loader.exec_module(module)
            except Exception as error:
                del sys.modules[self.module_name]
                raise InputError(
                    f"Plug-in {self.path} cannot be imported: {type(error).__name__}: {error}.",
                    code="plugin_broken",
                ) from error
        return sys.modules[self.module_name]


_folder: Path | None = None
_plug_ins: dict[str, PlugIn] = {}  # by the name of their module


def use(folder: Path | None) -> None:
    """Put the plug-ins below `folder` on the shelves; with None, only the package's own stay there.

    Their bytes are read once: a change on disk takes effect at the next start.

    Raises:
        InputError: the folder is missing; somebody other than root and this process's user could
            change what is there; a file is no plug-in, its name is taken, or it is written for
            another contract. Then no plug-in of the folder is on a shelf, and the caller must not
            go on.
    """
    global _folder  # noqa: PLW0603 - one folder a process, as one set of shelves
    if folder is not None and folder == _folder:
        return
    _forget()
    if folder is None:
        return
    found = list(_read(folder))
    _refuse_clashes(found)
    for plug_in in found:
        _plug_ins[plug_in.module_name] = plug_in
    for kind, package in FOLDERS.items():
        own = {one.name: one.module for one in found if one.kind == kind}
        sources = {one.name: one.source for one in found if one.kind == kind}
        shelf.extend(package, own, sources)
    _folder = folder


def digests() -> Mapping[str, str]:
    """SHA-256 of every plug-in file in force, by `detectors/my_detector.py`; sorted."""
    return dict(sorted((f"{one.kind}/{one.name}.py", one.digest) for one in _plug_ins.values()))


def contracts() -> Mapping[str, str]:
    """The contract that each file in force is written for, by the same names; sorted."""
    return dict(sorted((f"{one.kind}/{one.name}.py", one.contract) for one in _plug_ins.values()))


def origin(cls: type) -> PlugIn | None:
    """The plug-in file that defines `cls`; None where it comes with the package."""
    return _plug_ins.get(cls.__module__)


def named(kind: str, name: str) -> PlugIn | None:
    """The plug-in file behind a name on a shelf; None where it comes with the package."""
    return _plug_ins.get(f"{_MODULES}.{kind}.{name}")


def marked(cls: type, parameters: dict[str, object]) -> dict[str, object]:
    """`parameters` of a method as evidence records them.

    Those of a method from outside hold the digest of its file: a changed file is another method,
    whatever version it states.
    """
    plug_in = origin(cls)
    return parameters if plug_in is None else {**parameters, "plug_in": plug_in.digest}


def _forget() -> None:
    global _folder  # noqa: PLW0603 - one folder a process, as one set of shelves
    for name in _plug_ins:
        sys.modules.pop(name, None)
    _plug_ins.clear()
    for package in FOLDERS.values():
        shelf.extend(package, {})
    _folder = None


def _read(folder: Path) -> Iterator[PlugIn]:
    """Every plug-in file below `folder`, once the owners and modes on the way to it are checked."""
    root = _resolved(folder)
    for entry in _visible(root):
        if entry.name not in FOLDERS:
            raise InputError(
                f"{entry} does not belong among the plug-ins; GUARD_PLUGINS holds the folders "
                f"{', '.join(FOLDERS)}.",
                code="plugin_misplaced",
            )
        place = _resolved(entry)
        for file in _visible(place):
            if file.suffix != ".py" or not shelf.is_name(file.stem):
                raise InputError(
                    f"{file} is no plug-in; a file is named after its class in snake case, "
                    "my_detector.py for MyDetector.",
                    code="plugin_misplaced",
                )
            yield PlugIn(entry.name, file, _bytes(_resolved(file, folder=False)))


def _visible(folder: Path) -> list[Path]:
    """The entries of a folder without hidden files and a bytecode cache, which are never read."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name != "__pycache__"
    )


def _bytes(path: Path) -> bytes:
    """The content of a file, read through one descriptor whose owner and mode are checked."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        _check(path, facts)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_BYTES:
            raise _unsafe(path, f"is not a regular file of at most {MAX_BYTES} bytes")
        return file.read(MAX_BYTES + 1)


def _resolved(path: Path, *, folder: bool = True) -> Path:
    """`path` without links, once every folder and link on the way to it is checked."""
    rest, at, links = list(path.absolute().parts[1:]), Path("/"), 0
    _check(at, at.lstat(), shared=True)
    while rest:
        part = rest.pop(0)
        if part == "..":
            at = at.parent
            continue
        following = at / part
        try:
            facts = following.lstat()
        except OSError as error:
            raise InputError(
                f"GUARD_PLUGINS: {following}: {error.strerror}.", code="plugins_missing"
            ) from None
        if stat.S_ISLNK(facts.st_mode):
            links += 1
            _check(following, facts)
            target = Path(following.readlink())
            if links > _MOST_LINKS:
                raise _unsafe(following, "is one of too many links")
            if target.is_absolute():
                at = Path("/")
            rest = [one for one in target.parts if one != "/"] + rest
        else:
            _check(following, facts, shared=bool(rest))
            at = following
    if folder and not at.is_dir():
        raise InputError(f"GUARD_PLUGINS: {path} is no folder.", code="plugins_missing")
    return at


def _check(path: Path, facts: os.stat_result, *, shared: bool = False) -> None:
    """Refuse what somebody else owns or may write.

    Args:
        shared: it is a folder on the way, which others may write if it has the sticky bit, as
            /tmp: there they cannot replace what is not theirs.
    """
    if facts.st_uid not in (0, os.geteuid()):
        raise _unsafe(path, f"belongs to user id {facts.st_uid}")
    if stat.S_ISLNK(facts.st_mode):  # its own bits mean nothing; its folder's and its target's do
        return
    if facts.st_mode & _OTHERS_WRITE and not (shared and facts.st_mode & stat.S_ISVTX):
        raise _unsafe(path, "can be written by its group or by others")


def _unsafe(path: Path, why: str) -> InputError:
    return InputError(
        f"GUARD_PLUGINS is refused: {path} {why}, and whoever changes it runs code in the guard; "
        "make the guard's user or root its owner and remove everyone else's permission to write.",
        code="plugins_unsafe",
    )


def _refuse_clashes(found: list[PlugIn]) -> None:
    taken: dict[tuple[str, str], str] = {
        (kind, shelf.class_name(name)): f"the package's {name}"
        for kind, package in FOLDERS.items()
        for name in shelf.built_in(package)
    }
    for one in found:
        key = (one.kind, shelf.class_name(one.name))
        if one.name in RESERVED or key in taken:
            owner = taken.get(key, "the guard's own measurement of that name")
            raise InputError(
                f"Plug-in {one.path} clashes with {owner}; "
                "give the file and its class another name.",
                code="plugin_clash",
            )
        taken[key] = str(one.path)
