"""The second publisher: the guard's own server of the open inference protocol."""
# ruff: noqa: RUF009 - `row` is `dataclasses.field` with our metadata

from dataclasses import dataclass
from pathlib import Path

from guard.settings._row import UNSET, row


@dataclass(frozen=True, kw_only=True)
class OpenInferencePlaces:
    """The second publisher: the guard's own server of the open inference protocol."""

    open_inference_management: str = row(
        "", "its management address, unix:/path", derived="unix:<open_inference_run_dir>/m.sock"
    )
    open_inference_address: str = row("http://127.0.0.1:8090", "its inference address, http://...")
    open_inference_run_dir: Path = row(
        UNSET, "its working folder: key_file.json", derived="<data_dir>/open-inference"
    )
    open_inference_store: Path = row(
        UNSET, "model store that only the guard writes", derived="<open_inference_run_dir>/store"
    )
    export_seconds: float = row(
        600.0, "how long the export of one model to ONNX may take", unit="s", low=1
    )
