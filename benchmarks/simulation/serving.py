"""What the folder that is served from holds, read by nobody's code but this."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from guard.attest import dsse
from guard.attest.keys import TrustedKeys
from guard.attest.views import ReleaseView, read_release
from guard.core.digests import sha256
from guard.core.errors import GuardError


@dataclass(frozen=True)
class Served:
    """One version that is served: the digest of its bytes, and its release."""

    name: str
    version: str
    digest: str
    release: ReleaseView
    default: bool


def served(root: Path, keys: Mapping[str, bytes]) -> Iterator[tuple[str, str, str, Served | None]]:
    """What the folder serves: name, version, what is wrong, and if nothing is the rest."""
    if not root.is_dir():
        return
    for home in root.iterdir():
        if home.name.startswith(".") or not home.is_dir():
            continue
        default = (home / "default").read_text() if (home / "default").exists() else ""
        for folder in home.iterdir():
            if folder.name.startswith(".") or folder.name == "default":
                continue
            try:
                digest = sha256((folder / "weights.safetensors").read_bytes())
                envelope = json.loads((folder / "release.dsse.json").read_bytes())
                release = read_release(dsse.verify(envelope, TrustedKeys(keys)))
            except (OSError, ValueError, GuardError) as error:
                yield home.name, folder.name, str(error), None
                continue
            made = Served(home.name, folder.name, digest, release, default == folder.name)
            told = (release.digest, release.name, release.version)
            wrong = "" if told == (digest, home.name, folder.name) else f"released is {told}"
            yield home.name, folder.name, wrong, None if wrong else made
