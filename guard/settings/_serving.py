"""What is served, under which names, and by whom."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass
from pathlib import Path

from guard.settings._row import UNSET, row


@dataclass(frozen=True, kw_only=True)
class Serving:
    """What is served, under which names, and by whom."""

    served_name: str = row(
        "{path}", "rule for served names, of {path}, {folder} (the last of it) and {bucket}"
    )
    served_name_strip: str = row(
        "models", "first folder of a key that is no part of the served name's {path}; / for none"
    )
    publisher: str = row("torchserve", "torchserve, open_inference, folder or a plug-in's name")
    published_dir: Path = row(
        UNSET, "what the publisher `folder` fills", derived="<data_dir>/published"
    )
    torchserve_management: str = row(
        "http://127.0.0.1:8081", "management address, http://... or unix:/path"
    )
    torchserve_inference: str = row(
        "http://127.0.0.1:8080", "inference address, http://... or unix:/path"
    )
    torchserve_run_dir: Path = row(
        UNSET, "its working folder: key_file.json and tmp/models", derived="<data_dir>/torchserve"
    )
    torchserve_store: Path = row(
        UNSET, "model store that only the guard writes", derived="<torchserve_run_dir>/model-store"
    )
    auto_publish: bool = row(
        default=True, text="publish cleared and purified models without a person's approval"
    )
    reconcile_seconds: float = row(
        5.0, "how often served models are compared with those that may be served", unit="s", low=1
    )
