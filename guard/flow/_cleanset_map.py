"""Which clean set a model is examined with: the operator's choice before the uploader's wish.

Whoever chooses the clean set chooses what the detectors can see, so that an upload must not choose
where the operator has.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from guard.settings import Settings
    from guard.store.project_rows import ProjectRow
    from guard.store.rows import ScanRow

_SCHEME = "s3://"


def chosen(
    settings: "Settings", scan: "ScanRow", wish: str | None, project: "ProjectRow | None" = None
) -> str | None:
    """The name of the clean set for a scan's model; None where nobody chose one.

    Args:
        wish: what the model's manifest asks for.
        project: of which the model is; its clean set counts before the mapping.
    """
    if project is not None and project.cleanset is not None:
        return project.cleanset
    mapped = mapping(settings.cleanset_map, scan.bucket, scan.key, scan.name)
    if mapped is not None and not (wish and settings.cleanset_from_manifest):
        return mapped
    return wish


def mapping(pairs: tuple[str, ...], bucket: str, key: str, name: str) -> str | None:
    """What the operator mapped a model to; a name counts before prefixes, a longer one first."""
    best: tuple[int, bool, str] | None = None
    for pair in pairs:
        left, _, cleanset = (part.strip() for part in pair.rpartition("="))
        if left == name:
            return cleanset
        if "/" not in left:
            continue
        whole = f"{_SCHEME}{bucket}/{key}"
        with_bucket = left.startswith(_SCHEME)
        prefix = left if with_bucket else f"{_SCHEME}{bucket}/{left}"
        inside = whole.startswith(prefix.rstrip("/") + "/")
        if inside and (best is None or (len(prefix), with_bucket) > best[:2]):
            best = (len(prefix), with_bucket, cleanset)
    return best and best[2]
