"""What the offline API takes, opened: a model file, a clean set, a policy."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core import plugins
from guard.core.errors import CleanSetError, InputError, ManifestRejected, PolicyError
from guard.core.modality import HOLDS, Modality
from guard.core.pairs import CuratedPairs
from guard.core.shards import is_index
from guard.policy import Policy, default_policy, load_policy
from guard.reports.report import Report
from guard.settings import load_settings, plugin_folder
from guard.vetting import battery_secret, examine, hub_cache, modalities
from guard.vetting.model_path import locate, manifest_bytes

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from guard.flow.context import Guard
    from guard.ml.cleanset import CuratedSet


@dataclass(frozen=True)
class GivenModel:
    """Where a model lies, and what a report calls it if its path does not say that."""

    path: Path
    name: str | None = None
    source: str | None = None

    def named(self, report: Report) -> Report:
        """The report under the model's own name, with its source."""
        if self.name is None:
            return report
        return replace(report, name=self.name, source=self.source)


def model_at(path: "str | Path") -> GivenModel:
    """A model that was given as a path, or as `hf://ORG/NAME[@REVISION]`.

    Raises:
        InputError, IntegrityMismatch: as `guard.vetting.hub_cache.find`.
    """
    if not str(path).startswith(hub_cache.SCHEME):
        return GivenModel(Path(path))
    found = hub_cache.find(str(path), load_settings().hf_home / "hub")
    return GivenModel(found.folder, found.name, found.source)


def inspect_at(path: Path, out: Path) -> examine.Inspected:
    """Check the model at `path`, and write its canonical file into the folder `out`.

    Raises:
        InputError: there is no such file.
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken.
    """
    from guard.flow.budget import budget_of

    weights, manifest = locate(path)
    budget = budget_of(load_settings())
    text = manifest_bytes(manifest) if manifest else None
    return examine.inspect_upload(weights, weights.name, text, out, budget=budget)


def vettable_at(path: Path, out: Path) -> examine.Inspected:
    """As `inspect_at`, for a model that is to be vetted.

    Raises:
        ManifestRejected: it has a layer of a repair that this guard did not make.
        Unavailable: the database does not answer, so that nobody can know.
    """
    inspected = inspect_at(path, out)
    if inspected.manifest.polarizer is None:
        return inspected
    from guard.bootstrap import open_guard
    from guard.flow.foreign_layers import FOREIGN_POLARIZER, made_here
    from guard.store.session import reading

    guard = open_guard()
    if not nothing_stored(guard):
        with reading(guard.engine) as session:
            if made_here(session, inspected.digest):
                return inspected
    raise ManifestRejected(FOREIGN_POLARIZER, code="manifest_foreign_polarizer")


def name_of(path: Path) -> str:
    """The name of a model that was given as a path: its folder's name, or the file's own."""
    path = path.resolve()
    usual = path.is_file() and (path.stem in {"model", "pytorch_model"} or is_index(path.name))
    return path.parent.name if usual else path.stem


def own_battery() -> "AbstractContextManager[None]":
    """Draw batteries of changes from this machine's secret, made once a detector needs it."""
    return battery_secret.of_folder(lambda: load_settings().data_dir)


def policy_of(policy: "str | Path | Policy | None") -> Policy:
    """The policy, read once the plug-ins that it may name are on the shelves."""
    plugins.use(plugin_folder())
    return (
        policy
        if isinstance(policy, Policy)
        else load_policy(Path(policy) if policy is not None else None)
    )


def policy_for(rules: Policy, modality: Modality, *, given: bool) -> Policy:
    """`rules` if they are for models of this modality, else the packaged policy for them.

    Where there is none, that is one under which every decision is inconclusive.

    Raises:
        PolicyError: a person has named (`given`) a policy for other models.
    """
    if rules.modality is modality:
        return rules
    if given:
        raise PolicyError(
            f"Policy {rules.name} is for {rules.modality} models, and this is a {modality} model."
        )
    return default_policy(modality)


def require_images(modality: Modality) -> None:
    """Refuse a model of another modality for what needs a training set.

    Raises:
        InputError: it is one.
    """
    if modality is not Modality.IMAGES:
        raise InputError(
            f"A training set is used for {Modality.IMAGES} models, and this is a {modality} model.",
            code="modality",
        )


def image_set(source: "str | Path | CuratedSet") -> "CuratedSet":
    """A clean set of images; raises as `curated_set`, and for a set of another modality."""
    found = curated_set(source)
    if found.facts.modality is not Modality.IMAGES:
        raise CleanSetError(
            f"Clean set {found.facts.name!r} holds {HOLDS[found.facts.modality]}; name one of "
            f"{HOLDS[Modality.IMAGES]}.",
            code="cleanset_wrong_kind",
        )
    images: CuratedSet = found
    return images


def curated_set(source: "str | Path | CuratedSet | CuratedPairs") -> Any:
    """A clean set of any modality from a stored name or a path.

    Raises:
        CleanSetError: there is no such path and no such name, or the data is unusable.
        MissingExtra: it holds pairs, and RDKit is not installed.
        Unavailable: it is no path, and the database does not answer.
    """
    from guard.cleansets import curated_source, kind_of
    from guard.ml.cleanset import CuratedSet

    if isinstance(source, (CuratedSet, CuratedPairs)):
        return source
    path = Path(source)
    if path.exists():
        data, facts = curated_source(path, path.stem)
        return modalities.of(facts.modality).read_clean(data, facts.name)
    stored = _stored_cleanset(str(source))
    if stored is None:
        raise CleanSetError(
            f"{str(source)!r} is no file, no folder and no stored clean set; `guard cleanset add "
            "NAME PATH` stores one.",
            code="cleanset_unknown",
        )
    return modalities.of(kind_of(stored[0])).read_clean(*stored)


def _stored_cleanset(name: str) -> tuple[bytes, str] | None:
    """The bytes and the name of a stored clean set; None where there is none of that name.

    Raises:
        Unavailable: the database does not answer, which does not prove that the set is missing.
    """
    from guard.bootstrap import open_guard
    from guard.store import cleansets
    from guard.store.session import reading

    guard = open_guard()
    if nothing_stored(guard):
        return None
    with reading(guard.engine) as session:
        stored = cleansets.get_by_name(session, name)
    if stored is None:
        return None
    return guard.blobs.path(stored.digest).read_bytes(), stored.name


def nothing_stored(guard: "Guard") -> bool:
    """Whether no database was ever made here; a query must not create one."""
    url = guard.engine.url
    return url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file()
