"""Apply a calibration file: a probability from features, and a threshold on false alarms.

The file (JSON, written by `guard calibrate`; `guard.vetting.calibrate` fits it) describes the
reference population that it holds for: pairs of architecture family and clean set, and methods with
version and parameters. It does not apply to anything else. Weights are never negative, so that a
more suspicious feature never lowers the probability. Pure Python.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guard.core.digests import is_digest, json_digest
from guard.core.errors import PolicyError

KIND, LAYOUT = "registry-guard calibration", 1
RANKINGS = "honest_rankings"  # a key that files without such a method lack
MAX_BYTES = 4 << 20
MAX_LOG_ODDS = 500.0
_SIZES = {"pico", "atto", "femto", "nano", "tiny", "small", "base", "large", "huge", "xlarge"}


@dataclass(frozen=True)
class Weight:
    """The weight (>= 0) of one feature, which is standardised by mean and scale (> 0) first."""

    name: str
    mean: float
    scale: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A fitted combination of features, and the population that it holds for.

    `honest` holds the out-of-fold log odds of the honest reference models, ascending; `covers`
    pairs of an architecture family and a clean set's digest. `asr_margin` (0..1, or None where the
    population is too small): the true ASR of 95 % of the detected reference models lies at most
    this much above the bound on their recovered trigger. `rankings` holds for each method that
    ranks classes the least p of each honest model, ascending.
    """

    digest: str
    methods: Mapping[str, tuple[int, Mapping[str, Any]]]
    covers: frozenset[tuple[str, str]]
    weights: tuple[Weight, ...]
    intercept: float
    slope: float
    offset: float
    honest: tuple[float, ...]
    asr_margin: float | None = None
    population: Mapping[str, Any] = field(default_factory=dict)
    rankings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def log_odds(self, features: Mapping[str, float]) -> float:
        """Calibrated log odds of a backdoor; infinite where a feature is not finite.

        A missing feature counts as the population's mean, which lies on the suspicious side, since
        the population holds more backdoored than honest models.
        """
        total = self.intercept
        for item in self.weights:
            value = features.get(item.name, item.mean)
            if not math.isfinite(value):
                return math.inf
            total += item.weight * (value - item.mean) / item.scale
        return max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, self.slope * total + self.offset))

    def threshold(self, max_fpr: float) -> float | None:
        """The log odds above which at most a share `max_fpr` of honest models lies.

        It is None where there are too few honest reference models for this share. The threshold is
        conformal: the ceil((n + 1)(1 - a))-th smallest of n honest scores. A new honest model that
        is exchangeable with these exceeds it with probability at most a.
        """
        rank = math.ceil((len(self.honest) + 1) * (1 - max_fpr) - 1e-9)
        return self.honest[max(rank, 1) - 1] if rank <= len(self.honest) else None

    def ranked(self, method: str, p: float) -> tuple[float, int] | None:
        """A valid p value for the least p of a method's ranking, and the honest models behind it.

        It is conformal: the share of n honest models and this one that have a p as small, which is
        never under 1/(n + 1). None where no honest model was ranked by this method.
        """
        honest = self.rankings.get(method, ())
        if not honest:
            return None
        return (1 + sum(one <= p for one in honest)) / (len(honest) + 1), len(honest)

    @property
    def least_fpr(self) -> float:
        """The smallest false-alarm rate that so many honest models can certify."""
        return 1 / (len(self.honest) + 1)


def probability(log_odds: float) -> float:
    """The probability (0..1) that belongs to log odds; NaN counts as certainty of a backdoor."""
    if math.isnan(log_odds) or log_odds == math.inf:
        return 1.0
    return 1 / (1 + math.exp(-max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, log_odds))))


def architecture_family(name: str) -> str:
    """An architecture's name up to sizes and numbers: `vit` for `vit_tiny_patch16`."""
    kept: list[str] = []
    for part in name.removeprefix("torchvision.").split(".")[0].split("_"):
        stem = re.match(r"[a-z]*", part)
        letters = stem.group() if stem is not None else ""
        if letters in _SIZES or (not letters and kept):
            break
        kept.append(letters)
        if letters != part:
            break
    return "_".join(kept) or name


def why_not(
    calibration: Calibration,
    *,
    architecture: str | None,
    cleanset: str,
    versions: Mapping[str, int],
    parameters: Mapping[str, Mapping[str, Any]],
    reporting: Sequence[str],
    max_fpr: float,
) -> str | None:
    """Why the calibration does not apply to a case, as a clause; None where it applies.

    Args:
        versions, parameters: of the methods as they run now.
        reporting: the methods that have usable evidence.
    """
    for name, (version, params) in sorted(calibration.methods.items()):
        if name not in reporting:
            return f"there is no evidence of {name}, which it was fitted with"
        if versions.get(name) != version:
            return f"it was fitted with {name} version {version}, not {versions.get(name)}"
        if name not in parameters or plain(parameters[name]) != plain(params):
            return f"it was fitted with other parameters of {name}"
    if architecture is None:
        return "the architecture is not known"
    family = architecture_family(architecture)
    if family not in {covered for covered, _ in calibration.covers}:
        return f"it was fitted on no models of the family {family}"
    if (family, cleanset) not in calibration.covers:
        return f"it was fitted on no models of the family {family} with this clean set"
    if calibration.threshold(max_fpr) is None:
        return (
            f"its {len(calibration.honest)} honest models certify no less than "
            f"{calibration.least_fpr:.1%} false alarms, and {max_fpr:.1%} are allowed"
        )
    return None


def parse(data: bytes) -> Calibration:
    """Read a calibration file.

    Raises:
        PolicyError: it is not exactly what `guard calibrate` writes; the sentence names the broken
            rule.
    """
    if len(data) > MAX_BYTES:
        raise _bad(f"it is larger than {MAX_BYTES} bytes")
    try:
        value = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is not valid JSON ({error})") from error
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise _bad(f'it is not a JSON object of the kind "{KIND}"')
    if value.get("layout") != LAYOUT:
        raise _bad(f"its layout is not {LAYOUT}")
    digest = value.pop("digest", None)
    if digest != json_digest(value):
        raise _bad("its digest does not fit its content; it was changed by hand or cut short")
    try:
        return _read(value, digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _bad(f"{error}") from error


def plain(value: Any) -> Any:
    """Parameters as JSON stores them: tuples become lists."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _read(value: dict[str, Any], digest: str) -> Calibration:
    weights = tuple(_weight(item) for item in value["features"])
    if not weights or len({item.name for item in weights}) != len(weights):
        raise ValueError("features must be a list of different names")
    honest = tuple(_number(item, "honest_log_odds") for item in value["honest_log_odds"])
    if not honest or list(honest) != sorted(honest):
        raise ValueError("honest_log_odds must be ascending numbers, at least one")
    covers = frozenset(
        (_text(item["architecture"]), _text(item["cleanset"])) for item in value["covers"]
    )
    if not covers or not all(is_digest(cleanset) for _, cleanset in covers):
        raise ValueError("covers must name an architecture family and a clean set's digest each")
    methods = {
        _text(name): (_whole(item["version"]), dict(item["parameters"]))
        for name, item in value["methods"].items()
    }
    if not methods:
        raise ValueError("methods must not be empty")
    margin = value["asr_margin"]
    rankings = {
        _text(name): tuple(_number(item, RANKINGS, low=0.0, high=1.0) for item in items)
        for name, items in value.get(RANKINGS, {}).items()
    }
    if any(list(items) != sorted(items) or not items for items in rankings.values()):
        raise ValueError(f"{RANKINGS} must hold ascending numbers, at least one a method")
    return Calibration(
        digest=digest,
        methods=methods,
        covers=covers,
        weights=weights,
        honest=honest,
        intercept=_number(value["intercept"], "intercept"),
        offset=_number(value["offset"], "offset"),
        slope=_number(value["slope"], "slope", low=0.0),
        asr_margin=None if margin is None else _number(margin, "asr_margin", low=0.0, high=1.0),
        population=dict(value["population"]),
        rankings=rankings,
    )


def _weight(item: Any) -> Weight:
    scale = _number(item["scale"], "scale", low=0.0)
    if scale == 0:
        raise ValueError("scale must be over 0")
    return Weight(
        _text(item["name"]),
        _number(item["mean"], "mean"),
        scale,
        _number(item["weight"], "weight", low=0.0),
    )


def _number(value: Any, name: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    if type(value) not in (int, float) or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(
            f"{name} must be a number" + (f" in {low:g}..{high:g}" if low > -math.inf else "")
        )
    return float(value)


def _whole(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("version must be a whole number from 1")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("a name must be a string that is not empty")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")


def _bad(why: str) -> PolicyError:
    return PolicyError(
        f"The calibration file cannot be used: {why}; write it again with `guard calibrate`.",
        code="bad_calibration",
    )
