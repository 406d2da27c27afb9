import os
import subprocess
import sys
from pathlib import Path

from guard.flow._workspace import workspace

KILLED = """
import os, signal, sys
from pathlib import Path
from guard.flow._workspace import workspace
with workspace(Path(sys.argv[1])) as folder:
    (folder / "weights").write_bytes(b"x" * 1000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode < 0
    (left,) = tmp_path.iterdir()

    with workspace(tmp_path):
        assert left.exists()  # its process may be about to lock it
    os.utime(left, (0, 0))
    with workspace(tmp_path) as mine:
        assert list(tmp_path.iterdir()) == [mine]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_somebody_works_in_stays_however_old_it_is(tmp_path: Path) -> None:
    with workspace(tmp_path) as held:
        os.utime(held, (0, 0))
        with workspace(tmp_path):
            assert held.exists()


def test_a_link_in_place_of_a_folder_leads_nowhere(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(other)
    os.utime(other, (0, 0))

    with workspace(root):
        assert other.exists()
