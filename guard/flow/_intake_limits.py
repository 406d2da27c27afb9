"""The limits of intake, as the settings give them."""

from typing import Protocol


class IntakeSettings(Protocol):
    """The settings that intake reads."""

    @property
    def max_upload_bytes(self) -> int: ...
    @property
    def manifest_grace_seconds(self) -> float: ...
    @property
    def allow_unversioned(self) -> bool: ...
    @property
    def uploader_scans(self) -> int: ...
    @property
    def served_name(self) -> str: ...
    @property
    def served_name_strip(self) -> str: ...
