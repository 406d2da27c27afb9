"""Plug-in files as a stranger writes them, in folders with real permissions."""

from pathlib import Path
from textwrap import dedent

DETECTOR = dedent(
    '''
    """It looks at nothing and reports one finding."""

    from dataclasses import dataclass
    from typing import ClassVar

    from torch import nn

    from guard.core.evidence import Finding
    from guard.core.progress import Progress
    from guard.detectors._base import Detector
    from guard.ml.cleanset import CleanSet


    @dataclass(frozen=True, kw_only=True)
    class FromOutside(Detector):
        """An example."""

        version: ClassVar[int] = 1
        paper: ClassVar[str] = "none"
        families: ClassVar[frozenset[str]] = frozenset({"patch"})

        steps: int = 1

        def examine(
            self, model: nn.Module, clean: CleanSet, *, progress: Progress
        ) -> list[Finding]:
            progress(1.0)
            statement = f"It came from outside and saw {clean.classes} classes."
            return [
                Finding(
                    family="patch", target=None, suspicious=False, score=0.0, statement=statement
                )
            ]
    '''
).lstrip()

NETWORK = dedent(
    '''
    """A network of one layer."""

    from torch import Tensor, nn


    class {name}(nn.Module):
        """Logits are linear in the pixels."""

        def __init__(self, num_classes: int = 10, in_chans: int = 1, side: int = 12) -> None:
            super().__init__()
            self.head = nn.Linear(in_chans * side * side, num_classes)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(images.flatten(1))
    '''
).lstrip()


def folder(root: Path, files: dict[str, str]) -> Path:
    """A folder of plug-ins that only its owner can write, whatever the umask is."""
    root.mkdir(mode=0o700)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
    return root


def outside(root: Path) -> Path:
    """A folder with the detector `from_outside`."""
    return folder(root, {"detectors/from_outside.py": DETECTOR})
