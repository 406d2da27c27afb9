"""The measurement of a large training set measures what it says, on a small one."""

from pathlib import Path

from benchmarks import bench_trainset


def test_reading_takes_little_memory_and_each_row_is_seen(tmp_path: Path) -> None:
    found = bench_trainset.measure(3000, tmp_path)

    assert found["rows"] == 3000
    assert found["checksum"] > 3000
    assert found["overlap"] == 0
    assert found["read_mib"] < 500
    assert list(tmp_path.iterdir()) == []
