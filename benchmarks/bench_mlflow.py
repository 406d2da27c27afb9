"""Record how a real MLflow server answers what `guard mlflow sync` asks, for tests to hold to.

`python -m benchmarks.bench_mlflow http://127.0.0.1:5000` against an empty server writes
`tests/registries/mlflow_contract.json`. MLflow itself takes 683 MB and pins of its own, so that it
is no dependency: start one from an environment of its own, with an S3 address as
`--default-artifact-root`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx

OUT = Path(__file__).parents[1] / "tests" / "registries" / "mlflow_contract.json"
NAME = "fraud x"
#: Method, path, query, body; in this order, on an empty server.
ASKED: tuple[tuple[str, str, dict[str, str], dict[str, str] | None], ...] = (
    ("POST", "registered-models/create", {}, {"name": NAME}),
    *(
        ("POST", "model-versions/create", {}, {"name": NAME, "source": f"s3://models/fraud/v{one}"})
        for one in (1, 2)
    ),
    ("GET", "registered-models/search", {"max_results": "100"}, None),
    ("GET", "model-versions/search", {"filter": f"name='{NAME}'", "max_results": "1"}, None),
    ("GET", "registered-models/get", {"name": NAME}, None),
    *(
        (
            "POST",
            "model-versions/set-tag",
            {},
            {"name": NAME, "version": "1", "key": "guard.verdict", "value": value},
        )
        for value in ("cleared", "")
    ),
    ("POST", "registered-models/alias", {}, {"name": NAME, "alias": "serving", "version": "1"}),
    ("GET", "registered-models/get", {"name": NAME}, None),
    ("GET", "model-versions/search", {"filter": f"name='{NAME}'", "max_results": "100"}, None),
    ("DELETE", "registered-models/alias", {}, {"name": NAME, "alias": "serving"}),
    ("GET", "registered-models/get", {"name": NAME}, None),
    ("GET", "registered-models/get", {"name": "nobody"}, None),
    ("GET", "model-versions/search", {"filter": "name='nobody'", "max_results": "100"}, None),
    ("GET", "logged-models/m-none", {}, None),
    ("POST", "registered-models/alias", {}, {"name": NAME, "alias": "serving", "version": "9"}),
)
#: What differs from run to run.
_VOLATILE = re.compile(
    r"timestamp|sqlstate|error_class|run_id|model_id|user_id|stack_trace|message"
)


def plain(value: Any) -> Any:
    """A value without what differs from run to run."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if not _VOLATILE.search(key)}
    return [plain(item) for item in value] if isinstance(value, list) else value


def ask(url: str) -> list[dict[str, Any]]:
    """Each question with the answer of the server at an address."""
    found = []
    with httpx.Client(base_url=f"{url}/api/2.0/mlflow/", trust_env=False) as client:
        for method, path, query, body in ASKED:
            answer = client.request(method, path, params=query, json=body)
            value = plain(answer.json() if answer.content else {})
            found.append(
                {
                    "method": method,
                    "path": path,
                    "query": query,
                    "body": body,
                    "status": answer.status_code,
                    "answer": value,
                }
            )
    return found


def main() -> None:
    """Ask the server at the given address and write its answers."""
    (url,) = sys.argv[1:]
    version = httpx.get(f"{url}/version", trust_env=False).text
    OUT.write_text(json.dumps({"mlflow": version, "asked": ask(url)}, indent=1) + "\n")
    print(OUT)


if __name__ == "__main__":
    main()
