"""What a scan of one model would cost, without scanning it; `guard scan --estimate`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from guard.core.manifest import Manifest
from guard.offline_inputs import (
    curated_set,
    model_at,
    own_battery,
    policy_for,
    policy_of,
    vettable_at,
)
from guard.policy import Policy
from guard.vetting import examine
from guard.vetting.case import methods_of
from guard.vetting.estimate import Cost, Estimate, Range, estimated
from guard.vetting.modalities import fitted

if TYPE_CHECKING:
    from guard.core.pairs import CuratedPairs
    from guard.ml.cleanset import CuratedSet


@dataclass(frozen=True, kw_only=True)
class ScanEstimate:
    """What a scan of a model under a policy costs on a device.

    `images` are those of the clean set by its parts.
    """

    digest: str
    architecture: str
    classes: int
    input_size: tuple[int, ...]
    cleanset: str
    images: dict[str, int]
    policy: Policy
    device: str
    costs: Estimate

    @property
    def images_in_all(self) -> Range:
        """Images through the model, of all that is known."""
        return self.costs.total(lambda one: one.images)

    @property
    def seconds(self) -> Range:
        """Seconds of all that is known."""
        return self.costs.total(lambda one: one.seconds)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The detectors that the policy's time budget would leave out."""
        budget = self.policy.time_budget
        return () if budget is None else self.costs.left_out(budget)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        speed, reference = self.costs.speed, self.costs.reference
        required = {name: rule.required for name, rule in self.policy.detectors.items()}
        left_out = self.left_out
        return {
            "digest": self.digest,
            "architecture": self.architecture,
            "classes": self.classes,
            "input_size": list(self.input_size),
            "cleanset": self.cleanset,
            "cleanset_images": self.images,
            "policy": self.policy.name,
            "device": self.device,
            "seconds_per_1000": None
            if speed is None
            else {"forward": speed.forward, "search": speed.searched},
            "reference_seconds_per_1000": None
            if reference is None
            else {"forward": reference.forward, "training": reference.searched},
            "detectors": [
                {
                    **one.to_dict(),
                    "required": required[one.name],
                    "left_out": one.name in left_out,
                }
                for one in self.costs.detectors
            ],
            "own": self.costs.own.to_dict(),
            "total": {
                "images": self.images_in_all.to_dict(),
                "seconds": self.seconds.to_dict(),
                "unknown": list(self.costs.unknown),
            },
            "budget": {
                "seconds": self.policy.time_budget,
                "left_out": list(left_out),
                "required_left_out": [name for name in left_out if required[name]],
            },
        }

    def cost(self, name: str) -> Cost:
        """The cost of one detector."""
        return next(one for one in self.costs.detectors if one.name == name)


def estimate(
    path: str | Path,
    *,
    cleanset: "str | Path | CuratedSet | CuratedPairs",
    policy: "str | Path | Policy | None" = None,
    device: str | None = None,
) -> ScanEstimate:
    """Count what a scan would pass through the model, and probe the device for its seconds.

    The file is checked as for a scan, and no detector runs. The arguments are those of
    `guard.offline.scan`.

    Raises:
        InputError: there is no such file, clean set or policy, or the clean set does not fit.
        ArtifactRejected: a rule of the format, the manifest or the architecture is broken.
    """
    rules, given = policy_of(policy), model_at(path)
    with tempfile.TemporaryDirectory() as folder, own_battery():
        inspected = vettable_at(given.path, Path(folder))
        manifest = inspected.manifest
        rules = policy_for(rules, manifest.modality, given=policy is not None)
        curated = fitted(manifest, curated_set(cleanset))
        model = examine.open_model(inspected.canonical, device=device)
    parts = {"search": curated.search, "calibration": curated.calibration}
    images = manifest if isinstance(manifest, Manifest) else None
    return ScanEstimate(
        digest=inspected.digest,
        architecture=manifest.architecture,
        classes=images.num_classes if images else 0,
        input_size=images.input_size if images else (),
        cleanset=curated.facts.name,
        images={name: len(part) for name, part in {**parts, "holdout": curated.holdout}.items()},
        policy=rules,
        device=_device_of(model),
        costs=estimated(model, curated, methods_of(rules)),
    )


def _device_of(model: Any) -> str:
    return str(next(iter(model.parameters())).device)
