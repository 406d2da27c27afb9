"""A stand-in for an MLflow server: what `guard mlflow sync` asks, answered as a real one did.

`test_mlflow.py` holds it to `mlflow_contract.json`, which `benchmarks.bench_mlflow` recorded from a
real server (a real one takes 683 MB, too much for every run of the tests).
"""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

ROOT = "/api/2.0/mlflow/"


class Missing(Exception):
    """The registry knows no such thing."""


class Registry:
    """Registered models in memory; `headers` are those of the last request."""

    def __init__(self) -> None:
        self.models: dict[str, list[dict[str, Any]]] = {}
        self.aliases: dict[str, dict[str, str]] = {}
        self.logged: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.broken: tuple[int, bytes] | None = None

    def answer(
        self, method: str, path: str, query: dict[str, str], body: dict[str, str]
    ) -> dict[str, Any]:
        given = {**query, **body}
        if path.startswith("logged-models/"):
            return {"model": {"info": {"artifact_uri": self._logged(path.partition("/")[2])}}}
        if (method, path) == ("POST", "registered-models/create"):
            self.models[given["name"]] = []
            self.aliases[given["name"]] = {}
            return {"registered_model": {"name": given["name"]}}
        if (method, path) == ("GET", "registered-models/search"):
            return self._page("registered_models", [self._model(one) for one in self.models], query)
        if (method, path) == ("GET", "model-versions/search"):
            name = given["filter"].removeprefix("name='").removesuffix("'")
            return self._page("model_versions", self.models.get(name, [])[::-1], query)
        return self._of_model(method, path, given)

    def _of_model(self, method: str, path: str, given: dict[str, str]) -> dict[str, Any]:
        if given["name"] not in self.models:
            raise Missing
        versions = self.models[given["name"]]
        if (method, path) == ("POST", "model-versions/create"):
            versions.append(_version(given["name"], len(versions) + 1, given["source"]))
            return {"model_version": versions[-1]}
        if (method, path) == ("GET", "registered-models/get"):
            return {"registered_model": self._model(given["name"])}
        if (method, path) == ("DELETE", "registered-models/alias"):
            self.aliases[given["name"]].pop(given["alias"], None)
            return {}
        found = next((one for one in versions if one["version"] == given["version"]), None)
        if found is None:
            raise Missing
        if (method, path) == ("POST", "registered-models/alias"):
            self.aliases[given["name"]][given["alias"]] = given["version"]
        else:
            tags = {one["key"]: one["value"] for one in found.get("tags", [])}
            tags[given["key"]] = given["value"]
            found["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        return {}

    def _model(self, name: str) -> dict[str, Any]:
        versions = self.models[name]
        aliases = [{"alias": key, "version": value} for key, value in self.aliases[name].items()]
        return {
            "name": name,
            **({"latest_versions": versions[-1:]} if versions else {}),
            **({"aliases": aliases} if aliases else {}),
        }

    def _page(self, key: str, items: list[Any], query: dict[str, str]) -> dict[str, Any]:
        start = 0
        if token := query.get("page_token"):
            start = json.loads(base64.b64decode(token))["offset"]
        end = start + int(query["max_results"])
        more = base64.b64encode(json.dumps({"offset": end}).encode()).decode()
        return {
            **({key: items[start:end]} if items else {}),
            **({"next_page_token": more} if end < len(items) else {}),
        }

    def _logged(self, name: str) -> str:
        if name not in self.logged:
            raise Missing
        return self.logged[name]


def _version(name: str, number: int, source: str) -> dict[str, Any]:
    return {
        "name": name,
        "version": str(number),
        "current_stage": "None",
        "description": "",
        "source": source,
        "status": "READY",
        "run_link": "",
    }


@contextmanager
def serving(registry: Registry) -> Iterator[str]:
    """The address of a server of a registry, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            registry.headers = dict(self.headers)
            size = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(size)) if size else {}
            parts = urlsplit(self.path)
            path = parts.path.removeprefix(ROOT)
            if registry.broken is not None:
                self._send(*registry.broken)
                return
            try:
                value = registry.answer(self.command, path, dict(parse_qsl(parts.query)), body)
                status, data = 200, json.dumps(value).encode()
            except Missing:
                status, data = 404, json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST"}).encode()
            self._send(status, data)

        def _send(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815 - the standard library's names

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as above
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
