"""Celery ends a task only after all jobs of its stage had their time.

And Redis hands it to nobody else before.
"""

import pytest

from guard.flow.context import SPARE
from guard.settings import load_settings
from guard.vetting.repair_probes import SECONDS
from workers.app import make_app


@pytest.mark.parametrize("seconds", [5, 3600, 8 * 3600])
def test_a_task_outlives_its_jobs(seconds: int) -> None:
    conf = make_app(load_settings({"GUARD_SCAN_SECONDS": str(seconds)})).conf

    assert conf.task_time_limit > seconds + SECONDS + SPARE  # a repair and its proof
    assert conf.task_time_limit > 3 * (seconds + SPARE)  # canary, what a clean set gives, search
    assert conf.broker_transport_options["visibility_timeout"] > conf.task_time_limit
