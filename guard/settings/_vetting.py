"""How models are vetted: policy, clean sets, limits of a scan."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass
from pathlib import Path

from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class Vetting:
    """How models are vetted: policy, clean sets, limits of a scan."""

    policy_file: Path | None = row(
        None, "policy TOML, or a packaged one: default, copies, strict, ensemble; empty: default"
    )
    graph_policy_file: Path | None = row(None, "the same for text-to-graph models")
    policy_folder: Path | None = row(
        None,
        "folder of policies that projects may name (`guard project set --policy NAME`): NAME.toml",
    )
    default_cleanset: str = row("", "clean set for models whose config.json names none")
    cleanset_map: tuple[str, ...] = row(
        (),
        "clean sets by served name or key prefix, comma-separated: NAME=SET, teams/a/=SET, "
        "s3://bucket/teams/a/=SET; the longest prefix wins, a name before all",
    )
    cleanset_from_manifest: bool = row(
        default=False, text="let config.json name another clean set than cleanset_map does"
    )
    scan_seconds: float = row(3600.0, "time limit of one stage of a scan", unit="s", low=1)
    scan_memory_bytes: int = row(
        16 << 30, "address space of a scan's child process", unit="bytes", low=1 << 28
    )
    scan_gpu_memory_bytes: int = row(
        0,
        "memory of a GPU that a scan's child process may allocate, so that several share one; "
        "0: all of it",
        unit="bytes",
        low=0,
    )
    lease_seconds: float = row(
        120.0, "a scan whose worker is silent for longer may be taken over", unit="s", low=1
    )
    device: str = row("", "torch device of scans", derived="cuda where there is one, else cpu")
    rescan_seconds: float = row(
        300.0, "how often verdicts that must be renewed are looked for", unit="s", low=1
    )
    rescan_limit: int = row(4, "most re-scans that are open at once", low=1)
