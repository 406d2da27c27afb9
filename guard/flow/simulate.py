"""What another policy would say of everything that is stored: no detector runs, nothing is written.

The stored evidence is decided anew, in one pass. Where the policy asks for evidence that is not
there, the answer is that a re-scan is needed, not a verdict.
"""

import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.errors import PolicyError
from guard.core.sift import METHOD
from guard.core.states import Verdict
from guard.flow import _reuse, _waivers
from guard.flow.context import Guard
from guard.policy import Policy, decide, load_policy
from guard.policy.load import packaged, policy_from
from guard.store import census, cleansets, evidence, projects
from guard.store.session import reading
from guard.vetting.case import assumed_in, make_case, methods_of, read_as_grey

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from guard.store.project_rows import ProjectRow


@dataclass(frozen=True, kw_only=True)
class Change:
    """An artifact of which the policy would say something else.

    `after` is None where evidence is missing: only a re-scan can tell. `repair`: a copy would be
    repaired, and only that could be served.
    """

    digest: str
    name: str
    scan_id: str
    served: bool
    before: Verdict
    after: Verdict | None
    reasons: tuple[str, ...]
    repair: bool


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """`counts` is the number of artifacts by (before, after); `after` may be `needs a re-scan`.

    `repairs` is the number of artifacts of which a copy would be repaired.
    """

    policy: str
    artifacts: int
    repairs: int
    counts: dict[tuple[str, str], int]
    changes: tuple[Change, ...] = field(repr=False)


MISSING = "needs a re-scan"


def simulate(guard: Guard, policy: Policy, project: str = "") -> Simulation:
    """Decide about stored evidence by `policy`.

    Args:
        project: only what is in it; by default all that no project's own policy rules.

    Raises:
        UnknownMethod: it names a detector that is not there.
        InputError: there is no such project.
    """
    changes, counted, repairs = list[Change](), Counter[tuple[str, str]](), 0
    for one in _decided(guard, policy, project):
        counted[str(one.before), str(one.after or MISSING)] += 1
        repairs += one.repair
        if one.before is not one.after:
            changes.append(one)
    return Simulation(
        policy=policy.digest,
        artifacts=sum(counted.values()),
        repairs=repairs,
        counts=dict(sorted(counted.items())),
        changes=tuple(changes),
    )


def policy_of(text: str) -> Policy:
    """The policy in a text that somebody sent: TOML without a calibration, or a packaged name.

    Raises:
        PolicyError: it is no valid policy, or names a file, which a sender must not choose.
    """
    if text.strip() in packaged():
        return load_policy(Path(text.strip()))
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"This is not valid TOML: {error}.") from error
    if "calibration" in value:
        raise PolicyError(
            "A calibration is a file beside the policy; use `guard policy simulate` for this one."
        )
    return policy_from(value, folder=Path())


def _decided(guard: Guard, policy: Policy, project: str) -> Iterator[Change]:
    methods, waivers = methods_of(policy), _waivers.every(guard)
    with reading(guard.engine) as session:
        sets = {facts.digest: facts for facts in cleansets.list_all(session)}
        every = projects.list_all(session)
        if project:
            projects.get(session, project)
        for known in census.walk(session):
            if not _concerned(projects.covering(every, known.bucket, known.key), project):
                continue
            if known.cleanset not in sets or sets[known.cleanset].modality is not policy.modality:
                continue
            case = make_case(
                policy,
                known.digest,
                sets[known.cleanset],
                known.evidence,
                known.notes.purification,
                architecture=str(known.manifest["architecture"]) if known.manifest else None,
                methods=methods,
                waivers=waivers.get(known.digest, ()),
                sifted=_parent_sifted(session, known),
                retraining=known.notes.retraining,
                assumed=assumed_in(known.manifest),
                grey=read_as_grey(known.manifest, sets[known.cleanset]),
            )
            decision, whole = decide(policy, case), _reuse.complete(policy, case)
            yield Change(
                digest=known.digest,
                name=known.name,
                scan_id=known.scan_id,
                served=known.served,
                before=known.verdict,
                after=decision.verdict if whole else None,
                reasons=decision.reasons,
                repair=whole and decision.purify,
            )


def _concerned(of: "ProjectRow | None", wanted: str) -> bool:
    """Whether a policy that `wanted` names, or the installation has, would rule what is in `of`."""
    if wanted:
        return of is not None and of.name == wanted
    return of is None or of.policy is None


def _parent_sifted(session: "Session", known: census.Known) -> bool:
    """Whether the set that taught a repaired or retrained artifact's parent was sifted."""
    if known.notes.retraining is not None:
        return True
    repair = known.notes.purification
    if repair is None:
        return False
    return METHOD in {
        method for method, _ in evidence.versions(session, repair.parent, known.cleanset)
    }
