"""What vets: policies, clean sets, canaries, plug-ins."""

from collections import Counter
from pathlib import Path

from guard.core import plugins
from guard.core.errors import GuardError, InputError, Unavailable
from guard.core.modality import Modality
from guard.doctor._check import Check, Finding, Ground, failed, ok, unknown, warning
from guard.policy import NamedPolicies, default_policy, load_policy
from guard.store import cleansets, projects, watched

_FIRST = "Mend `database` first."


def policy(ground: Ground) -> Finding:
    """Whether each policy can be read and looks at something."""
    settings, names = ground.settings, []
    for modality, file in (
        (Modality.IMAGES, settings.policy_file),
        (Modality.GRAPHS, settings.graph_policy_file),
    ):
        try:
            found = default_policy(modality) if file is None else load_policy(file)
        except GuardError as error:
            return failed(error.sentence, "Mend the file; `guard policy check FILE` says more.")
        if found.modality is not modality:
            return failed(
                f"Policy {found.name} is for {found.modality}, not for {modality}.",
                "Exchange GUARD_POLICY_FILE and GUARD_GRAPH_POLICY_FILE.",
            )
        names.append(f"{found.name} ({len(found.detectors)} detectors)")
    read = NamedPolicies(settings.policy_folder)
    try:
        with ground.reading() as session:
            own = projects.with_policy(session)
    except Unavailable:
        own = []  # `database` says it
    for project in own:
        try:
            names.append(f"{read(project.policy or '').name} (project {project.name})")
        except GuardError as error:
            return failed(
                f"Project {project.name} clears nothing: {error.sentence}",
                f"Mend the file, or `guard project set {project.name} --policy NAME`.",
            )
    return ok(f"The policies are valid: {', '.join(names)}.")


def clean_sets(ground: Ground) -> Finding:
    """Whether there are clean sets, with their bytes, and those that the settings name."""
    settings = ground.settings
    try:
        with ground.reading() as session:
            found = cleansets.list_all(session)
    except Unavailable:
        return unknown("The database does not answer, or has no tables.", _FIRST)
    if not found:
        return failed(
            "There is no clean set, and every scan ends as inconclusive.",
            "`guard cleanset add NAME PATH`.",
        )
    names = {facts.name for facts in found}
    wanted = {pair.rpartition("=")[2].strip() for pair in settings.cleanset_map}
    missing = sorted(({settings.default_cleanset, *wanted} - {""}) - names)
    if missing:
        return failed(
            f"The settings name the clean set {missing[0]}, which does not exist.",
            f"`guard cleanset add {missing[0]} PATH`.",
        )
    lost = [facts.name for facts in found if not _has(ground, facts.digest)]
    if lost:
        return failed(
            f"The bytes of the clean set {lost[0]} are gone from the blob store.",
            f"`guard cleanset add {lost[0]} PATH` again.",
        )
    if not any((settings.data_dir / "prepared").glob("*.json")):
        return warning(
            f"{len(names)} clean sets are there, and nothing was prepared on this host.",
            "Nothing; the first scan on a host with the queue scan does it, and takes longer.",
        )
    return ok(f"{len(names)} clean sets are there, and detectors were prepared on this host.")


def _has(ground: Ground, digest: str) -> bool:
    url = ground.settings.blob_url
    if not url.startswith("s3://"):
        return (Path(url.removeprefix("file://")) / digest[:2] / digest).is_file()
    from guard.events.bucket import Bucket, ObjectChanged

    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    try:
        Bucket(ground.s3, bucket).head(f"{prefix.strip('/')}/{digest}".lstrip("/"))
    except ObjectChanged:
        return False
    return True


def canaries(ground: Ground) -> Finding:
    """Whether detectors have shown of late that they work."""
    try:
        with ground.reading() as session:
            found = watched.canaries(session, ground.now())
    except Unavailable:
        return unknown("The database does not answer, or has no tables.", _FIRST)
    if found.last is None:
        return warning(
            "No worker has run a canary in the last two days.",
            "Start a worker of the queue scan; its log says `canary_known`.",
        )
    bad = sorted(name for name, passed in found.passed.items() if not passed)
    if bad:
        return failed(
            f"{', '.join(bad)} failed on a model that is known.",
            "`guard alarms list` names the worker; look at its torch version, device and disk.",
        )
    return ok(f"The newest canaries of {found.workers} workers passed.")


def plug_ins(ground: Ground) -> Finding:
    """Whether plug-ins are the guard's user's alone, and written for its contracts."""
    folder = ground.settings.plugins
    if folder is None:
        return ok("There are no plug-ins from outside.")
    try:
        plugins.use(folder)
    except InputError as error:
        return failed(error.sentence, "Mend it as the sentence says; until then nothing starts.")
    kinds = Counter(name.partition("/")[0] for name in plugins.digests())
    return ok(f"The plug-ins are safe and for this guard's contracts: {dict(kinds) or 'none'}.")


CHECKS = (
    Check("policy", policy),
    Check("clean_sets", clean_sets),
    Check("canaries", canaries),
    Check("plug_ins", plug_ins),
)
