"""The workers' application with one more task, which says that it runs and then does not end."""

import time
from pathlib import Path

from workers.app import app


@app.task(name="sleep", acks_late=True)
def sleep(begun: str) -> None:
    Path(begun).touch()
    time.sleep(600)
