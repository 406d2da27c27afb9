"""Runs handlers as a TorchServe worker does, in an isolated Python.

Jobs in as JSON, what happened out as JSON.

    python -I -B -X guard_trust=FILE isolated.py < jobs
"""

import base64
import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ts.context import Context, RequestProcessor

from guard.serving.handler import GuardHandler


def run(job: dict[str, Any]) -> dict[str, Any]:
    context = Context(
        job["name"], job["folder"], {"model": {"modelVersion": job["version"]}}, 1, None, "0.12.0"
    )
    handler = GuardHandler()
    try:
        handler.initialize(context)
    except ValueError as error:
        return {"refused": str(error)}
    if "expired" in job:  # as if it had been served until now
        handler._released = replace(handler._released, expires_at=datetime.now(UTC))
    processors = [RequestProcessor(row.get("headers", {})) for row in job.get("rows", [])]
    context.request_processor = processors
    rows = [
        {"body": base64.b64decode(row["bytes"])} if "bytes" in row else row.get("row", {})
        for row in job.get("rows", [])
    ]
    answers = handler.handle(rows, context) if rows else []
    return {
        "answers": [
            {
                "body": json.loads(answer),
                "status": processor.get_response_status_code(),
                "headers": processor.get_response_headers(),
            }
            for answer, processor in zip(answers, processors, strict=True)
        ]
    }


if __name__ == "__main__":
    json.dump([run(job) for job in json.load(sys.stdin)], sys.stdout)
