"""What methods for models other than images must hold to."""

import json
import subprocess
import sys
from typing import Any

from guard.core.modality import Modality
from guard.core.states import FAMILIES
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS

OTHERS = [modality for modality in Modality if modality is not Modality.IMAGES]
IMPORTED = """
import sys
sys.modules["rdkit"] = None
from guard.defenses import DEFENSES
from guard.detectors import DETECTORS
from guard.retrainers import RETRAINERS
from guard.sifters import SIFTERS
for shelf in (DETECTORS, DEFENSES, SIFTERS, RETRAINERS):
    shelf.all()
import guard.serving.handler, guard.offline, guard.jobs.child
print(sorted(name for name in sys.modules if name.startswith("guard.graphs.")))
"""


def test_every_method_and_the_whole_path_of_images_is_imported_without_rdkit() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "guard.graphs.model" not in done.stdout


def test_each_has_a_version_plain_parameters_and_families_of_its_modality() -> None:
    for modality in OTHERS:
        for name in DETECTORS.of(modality):
            detector: Any = DETECTORS.get(name)()
            assert detector.version >= 1
            assert json.loads(json.dumps(detector.parameters())) == detector.parameters()
            assert detector.families <= FAMILIES[modality]
        for name in DEFENSES.of(modality):
            defense: Any = DEFENSES.get(name)()
            assert json.loads(json.dumps(defense.parameters())) == defense.parameters()
    assert set(DETECTORS.names()) == {name for each in Modality for name in DETECTORS.of(each)}
