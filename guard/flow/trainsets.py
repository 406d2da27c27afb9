"""Named training sets: add one, find one, and read one for a model."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from guard.cleansets import curate, load, read_source
from guard.core.errors import CleanSetError, TrainingSetError
from guard.core.manifest import is_bucket_uri, is_stored_name
from guard.core.progress import Progress, part_of, silent
from guard.core.roles import Act
from guard.core.trainset import TrainingSetSource
from guard.flow._acts import note
from guard.flow._seal import settle
from guard.flow._trainset_files import SCHEME, fetch
from guard.flow.principals import permit
from guard.jobs.run import run_job
from guard.store import cleansets, trainsets
from guard.store.rows import TrainingSetRow
from guard.store.session import reading, transaction
from guard.trainsets import MAX_BYTES, MAX_IMAGES, TrainingSet, open_spool

if TYPE_CHECKING:
    import numpy as np

    from guard.core.evidence import CleanSetFacts
    from guard.flow.context import Guard
    from guard.flow.principals import Principal


def add(
    guard: "Guard",
    who: "Principal | str",
    name: str,
    uri: str,
    class_names: tuple[str, ...] = (),
    *,
    progress: Progress = silent,
) -> TrainingSetRow:
    """Read a training set once, and remember under `name` where it lies and what was there.

    Raises:
        Unauthorised, Forbidden: as `guard.flow.principals.permit`; nothing is read.
        TrainingSetError: the name cannot be one, or the set breaks a rule; nothing is stored.
    """
    if not is_stored_name(name):
        raise TrainingSetError(
            f"{name!r:.100} cannot name a training set; use up to 100 letters, digits and . _ -.",
            code="trainset_bad_name",
        )
    with reading(guard.engine) as session:
        permit(guard, session, who, Act.ADD_TRAINSET)
    place = uri if uri.startswith(SCHEME) else str(Path(uri).absolute())
    with guard.workspace() as folder:
        facts = read(guard, TrainingSetSource(uri=place), folder, progress=progress).facts
    if class_names and len(class_names) != len(facts.class_names):
        raise TrainingSetError(
            f"{len(class_names)} class names were given for {len(facts.class_names)} classes; "
            "give one a class.",
            code="trainset_bad_names",
        )
    row = TrainingSetRow(
        name=name, uri=place, class_names=class_names, facts=facts, added_at=guard.now()
    )
    with transaction(guard.engine) as session:
        who = permit(guard, session, who, Act.ADD_TRAINSET)
        trainsets.put(session, row)
        note(guard, session, who, Act.ADD_TRAINSET, facts.digest, name)
    settle(guard)
    return row


def resolve(guard: "Guard", source: TrainingSetSource) -> TrainingSetSource:
    """Where the set lies that a `config.json` names: as it says, or as the stored name says.

    A stored set must still be the one that was added: its digest is asked for, where `source` asks
    for none.

    Raises:
        TrainingSetError: no training set has this name.
    """
    if is_bucket_uri(source.uri):
        return source
    with reading(guard.engine) as session:
        row = trainsets.get_by_name(session, source.uri)
    if row is None:
        raise TrainingSetError(
            f"No training set is called {source.uri!r:.100}; `guard trainset add` stores one.",
            code="trainset_unknown",
        )
    return TrainingSetSource(
        uri=row.uri,
        digest=source.digest or row.facts.origin or row.facts.digest,
        class_names=source.class_names or row.class_names,
    )


def read(
    guard: "Guard",
    source: TrainingSetSource,
    folder: Path,
    *,
    shape: tuple[int, int, int] | None = None,
    max_images: int = MAX_IMAGES,
    progress: Progress = silent,
) -> TrainingSet:
    """Decode a training set into `folder`, in a child process without credentials.

    Args:
        source: with a bucket's URI or a local path (`resolve` turns names into these).
        folder: an empty private folder, which must outlive the set.
        shape: channels, height and width of the model's input; None takes those of the first image.

    Raises:
        TrainingSetError: as `guard.trainsets.read`, or as `fetch` for a set in a bucket.
        MethodFailed: the child took too long or too much memory.
    """
    files, out = folder / "source", folder / "set"
    files.mkdir()
    out.mkdir()
    path = Path(source.uri)
    if source.uri.startswith(SCHEME):
        path = fetch(guard, source.uri, files, progress=part_of(progress, 0, 2, ""))
    run_job(
        "trainset",
        {
            "path": str(path),
            "uri": source.uri,
            "shape": shape,
            "max_images": max_images,
            "max_bytes": MAX_BYTES,
        },
        out,
        limits=guard.limits(),
        on_progress=part_of(progress, 1, 2, ""),
    )
    shutil.rmtree(files)
    return open_spool(out)


def clean_images(guard: "Guard", source: str) -> tuple["CleanSetFacts", "np.ndarray"]:
    """The facts and the images (uint8 M,C,H,W) of a clean set: a path, or a stored name.

    Raises:
        CleanSetError: there is none, or it is unusable.
    """
    path = Path(source)
    if path.exists():
        data, facts = curate(read_source(path), path.stem)
        return facts, load(data, facts.name)[1]
    with reading(guard.engine) as session:
        stored = cleansets.get_by_name(session, source)
    if stored is None:
        raise CleanSetError(
            f"{source!r:.200} is no file, no folder and no stored clean set; `guard cleanset add "
            "NAME PATH` stores one.",
            code="cleanset_unknown",
        )
    facts, images, _, _ = load(guard.blobs.path(stored.digest).read_bytes(), stored.name)
    return facts, images


def source_of(guard: "Guard", name: str) -> TrainingSetSource:
    """The training set that a person names: a bucket's URI, a local path, or a stored name.

    Raises:
        TrainingSetError: it is none of these.
    """
    plain = TrainingSetSource(uri=name)
    if name.startswith(SCHEME) or Path(name).exists():
        return replace(plain, uri=name if name.startswith(SCHEME) else str(Path(name).absolute()))
    return resolve(guard, plain)
