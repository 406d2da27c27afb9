"""The `Guard`: everything that a use case needs, put together by `guard.bootstrap`."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from guard.core.contracts import Publisher
from guard.core.errors import PolicyError
from guard.core.modality import Modality
from guard.flow._workspace import workspace
from guard.jobs.run import Limits
from guard.policy import NamedPolicies, Policy

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from guard.attest.keys import Signer, TrustedKeys
    from guard.blobs import Blobs
    from guard.events.bucket import Bucket
    from guard.settings import Settings

SPARE = 60.0  # seconds that a job has beside its methods, to start, to read and to write


def utc_now() -> datetime:
    """The present time in UTC; the guard's only clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Guard:
    """Everything a use case works with.

    The signer is made on first use, since only workers that sign have the key. `policy` is the one
    in force for what is worked on, `others` are those for models of other modalities (`of`), and
    `named_policy` reads one that a project names. `project` is the project whose own policy is in
    force (`under`), `lacking` why that one cannot be read, and `base` this guard without it.
    """

    settings: "Settings"
    engine: "Engine"
    blobs: "Blobs"
    policy: Policy
    make_bucket: Callable[[str], "Bucket"]
    make_signer: Callable[[], "Signer"]
    make_trusted: Callable[[], "TrustedKeys"]
    make_publisher: Callable[[], Publisher]
    child_environment: dict[str, str]
    now: Callable[[], datetime] = utc_now
    others: Mapping[Modality, Policy] = field(default_factory=dict)
    named_policy: Callable[[str], Policy] = field(default_factory=NamedPolicies)
    project: str = ""
    lacking: str = ""
    base: "Guard | None" = None

    def of(self, modality: Modality) -> "Guard":
        """This guard with the installation's policy for models of a modality in force.

        Where none is configured, that is one under which every decision is inconclusive.
        """
        if self.base is not None:
            return self.base.of(modality)
        if modality is self.policy.modality:
            return self
        policy = self.others.get(modality) or Policy.none(modality)
        return replace(
            self, policy=policy, others={**self.others, self.policy.modality: self.policy}
        )

    def under(self, project: str, name: str) -> "Guard":
        """This guard with the policy `name` of a project in force.

        A policy for models of another modality leaves it as it is. In place of one that cannot be
        read stands one under which every decision is inconclusive.
        """
        modality, lacking = self.policy.modality, ""
        try:
            policy = self.named_policy(name)
        except PolicyError as error:
            policy = replace(Policy.none(modality), name=f"{name} (unreadable)")
            lacking = (
                f"The policy {name!r} of project {project} cannot be used, so that nothing of it "
                f"is cleared: {error.sentence}"
            )
        if policy.modality is not modality:
            return self
        return replace(
            self, policy=policy, project=project, lacking=lacking, base=self.base or self
        )

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All policies that the installation has, that for images first; no project's own."""
        if self.base is not None:
            return self.base.policies
        known = {**self.others, self.policy.modality: self.policy}
        return tuple(known[one] for one in Modality if one in known and known[one].detectors)

    @cached_property
    def signer(self) -> "Signer":
        """The signer with the private key; raises InputError where this process has none."""
        return self.make_signer()

    @property
    def trusted(self) -> "TrustedKeys":
        """The public keys in force, read at each call so that a rotation needs no restart."""
        return self.make_trusted()

    @cached_property
    def publisher(self) -> Publisher:
        """The publisher, which puts approved artifacts into the serving system."""
        return self.make_publisher()

    def limits(self, seconds: float | None = None) -> Limits:
        """The limits on one job's time and memory."""
        return Limits(
            seconds=seconds or self.settings.scan_seconds,
            memory_bytes=self.settings.scan_memory_bytes,
            environment=self.child_environment,
            gpu_memory_bytes=self.settings.scan_gpu_memory_bytes,
        )

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A private folder that is removed at the end of the block.

        It lies below the data folder, so that large files do not fill /tmp.
        """
        with workspace(Path(self.settings.data_dir) / "work") as folder:
            yield folder
