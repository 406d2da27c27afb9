"""The limits of an upload, as the settings have them."""

from typing import TYPE_CHECKING

from guard.core.contracts import Budget

if TYPE_CHECKING:
    from guard.settings import Settings


def budget_of(settings: "Settings") -> Budget:
    """What an upload may need; the rest is as `Budget` has it."""
    return Budget(
        file_bytes=settings.max_upload_bytes,
        parameters=settings.max_parameters,
        network_tensors=settings.max_network_tensors,
        image_operations=settings.max_image_operations,
        molecule_operations=settings.max_molecule_operations,
        network_bytes=settings.max_network_bytes,
        classes=settings.max_classes,
    )
