"""MLflow's model registry over its REST interface.

API: https://mlflow.org/docs/latest/rest-api.html (2.0; tried with the server named in
docs/how-to/exchange.md).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from guard.core.errors import InputError, Unavailable
from guard.core.secret import Secret

_PAGE = 100
_MOST_PAGES = 10_000
_SECONDS = 10.0
_MISSING = "RESOURCE_DOES_NOT_EXIST"
_LOGGED_MODEL = "models:/m-"


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """One version of a registered model; `source` is where its files are."""

    name: str
    version: int
    source: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Mlflow:
    """One registry.

    Args:
        url: of the server, `http://HOST:PORT` or `https://...`.
        token: a bearer token, or `USER:PASSWORD`; empty for none.

    Raises:
        InputError: the address is none.
    """

    def __init__(self, url: str, token: Secret) -> None:
        if not url.startswith(("http://", "https://")):
            raise InputError(
                "GUARD_MLFLOW_URL must be the address of an MLflow server, such as "
                "http://127.0.0.1:5000.",
                code="mlflow_url",
            )
        user, colon, password = token.reveal().partition(":")
        self._client = httpx.Client(
            base_url=f"{url.rstrip('/')}/api/2.0/mlflow/",
            timeout=_SECONDS,
            follow_redirects=False,
            trust_env=False,
            auth=httpx.BasicAuth(user, password) if colon else None,
            headers={"Authorization": f"Bearer {user}"} if user and not colon else {},
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def names(self) -> list[str]:
        """The names of all registered models."""
        found = self._pages("registered-models/search", {}, "registered_models")
        return [str(item["name"]) for item in found]

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, the newest first."""
        # A quote in a name ends MLflow's own quoting; such a name is not asked for.
        if "'" in name:
            raise InputError(
                f"{name!r} holds a quote; MLflow cannot search it.", code="mlflow_name"
            )
        asked = {"filter": f"name='{name}'"}
        found = [
            ModelVersion(
                name=name,
                version=int(item["version"]),
                source=self._located(str(item.get("source", ""))),
                tags={str(tag["key"]): str(tag.get("value", "")) for tag in item.get("tags", [])},
            )
            for item in self._pages("model-versions/search", asked, "model_versions")
            if item.get("name") == name
        ]
        return sorted(found, key=lambda one: -one.version)

    def aliased(self, name: str, alias: str) -> int | None:
        """The version that an alias of a model points to."""
        answer = self._call("GET", "registered-models/get", query={"name": name})
        for item in answer.get("registered_model", {}).get("aliases", []):
            if item.get("alias") == alias:
                return int(item["version"])
        return None

    def tag(self, name: str, version: int, key: str, value: str) -> None:
        """Set a tag of a version."""
        asked = {"name": name, "version": str(version), "key": key, "value": value}
        self._call("POST", "model-versions/set-tag", body=asked)

    def point(self, name: str, alias: str, version: int) -> None:
        """Point an alias at a version."""
        asked = {"name": name, "alias": alias, "version": str(version)}
        self._call("POST", "registered-models/alias", body=asked)

    def unpoint(self, name: str, alias: str) -> None:
        """Delete an alias."""
        asked = {"name": name, "alias": alias}
        self._call("DELETE", "registered-models/alias", body=asked)

    def _located(self, source: str) -> str:
        """Where the files of a source are: of a logged model its own folder."""
        if not source.startswith(_LOGGED_MODEL):
            return source
        model = source.removeprefix("models:/").partition("/")[0]
        if not model.replace("-", "").isalnum():
            return source
        try:
            answer = self._call("GET", f"logged-models/{model}")
        except _Missing:
            return source
        return str(answer.get("model", {}).get("info", {}).get("artifact_uri", source))

    def _pages(self, path: str, query: Mapping[str, str], key: str) -> Iterator[dict[str, Any]]:
        page = ""
        for _ in range(_MOST_PAGES):
            more = {"page_token": page} if page else {}
            answer = self._call("GET", path, query={**query, "max_results": str(_PAGE), **more})
            yield from answer.get(key, [])
            page = str(answer.get("next_page_token") or "")
            if not page:
                return
        raise Unavailable("MLflow's list does not end.", code="mlflow_refused")

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, params=query, json=body)
            value = answer.json() if answer.content else {}
        except (httpx.HTTPError, ValueError) as error:
            raise Unavailable(
                f"MLflow does not answer at {self._client.base_url.host} "
                f"({type(error).__name__}); check GUARD_MLFLOW_URL.",
                code="mlflow_unavailable",
            ) from error
        if not isinstance(value, dict):
            raise Unavailable("MLflow's answer is no JSON object.", code="mlflow_refused")
        if answer.status_code != httpx.codes.OK:
            code = str(value.get("error_code", ""))
            kind = _Missing if code == _MISSING else Unavailable
            raise kind(
                f"MLflow answered {answer.status_code} {code} to {method} {path}.",
                code="mlflow_refused",
            )
        return value


class _Missing(Unavailable):
    """MLflow knows no such thing."""
