"""TorchServe's two HTTP interfaces as the guard uses them.

Parameters are fixed, every call has a time limit, and keys are read again for each call.

API: https://github.com/pytorch/serve/blob/master/docs/management_api.md
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from guard.core.errors import Unavailable
from guard.publishers._http import make_client, read_key

_PAGE = 100
_HANDLER_SECONDS = 5.0


class Refusal(Unavailable):
    """TorchServe answered with an error other than a bad key; `status` is the HTTP status."""

    code = "torchserve_refused"

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"TorchServe answered {status}: {message}")
        self.status = status


class Management:
    """One TorchServe; its keys are read from the file it writes at each start.

    Args:
        management: `http://127.0.0.1:PORT`, or `unix:/path`, which is safer because the folder's
            mode protects it.
        inference: `http://127.0.0.1:PORT`.
        keys: `key_file.json` in the server's working folder.
        seconds: limit of one call.
    """

    def __init__(self, *, management: str, inference: str, keys: Path, seconds: float) -> None:
        self._keys = keys
        self._management = make_client(management, seconds)
        self._inference = make_client(inference, seconds)

    def names(self) -> list[str]:
        """The names of all registered models, unchanged."""
        found: list[str] = []
        page = ""
        while True:
            query = {"limit": str(_PAGE)} | ({"next_page_token": page} if page else {})
            answer = self._ask("GET", "/models", query)
            found += [str(model["modelName"]) for model in answer.get("models", [])]
            page = str(answer.get("nextPageToken", ""))
            if not page:
                return found

    def describe(
        self, name: str, version: str | None = None, *, handler: bool = False
    ) -> list[dict[str, Any]]:
        """One version, or `all`, or the default one; empty if there is none.

        `handler` asks the handler too.

        Raises:
            Unavailable: no answer; a handler that is asked gets 5 seconds.
        """
        path = f"/models/{quote(name, safe='')}" + (
            f"/{quote(version, safe='')}" if version else ""
        )
        try:
            if handler:
                answer = self._call(
                    self._management,
                    "management",
                    "GET",
                    path,
                    {"customized": "true"},
                    None,
                    seconds=_HANDLER_SECONDS,
                )
            else:
                answer = self._ask("GET", path)
        except Refusal as refusal:
            if refusal.status == httpx.codes.NOT_FOUND:
                return []
            raise
        return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []

    def register(self, file: str, *, startup_seconds: float, response_seconds: float) -> None:
        """Register an archive of the store by its bare name, and return before its worker starts.

        A synchronous call would block an event loop that clients of other models wait on.
        """
        self._ask(
            "POST",
            "/models",
            {
                "url": file,
                "initial_workers": "1",
                "synchronous": "false",
                "batch_size": "8",
                "max_batch_delay": "3",
                "startup_timeout": str(max(1, round(startup_seconds))),
                "response_timeout": str(max(1, round(response_seconds))),
            },
        )

    def set_default(self, name: str, version: str) -> None:
        """Make this version answer requests that name no version."""
        self._ask("PUT", f"/models/{quote(name, safe='')}/{quote(version, safe='')}/set-default")

    def set_workers(self, name: str, version: str, count: int) -> None:
        """Let `count` workers answer for this version; 0 also stops one that keeps restarting."""
        self._ask(
            "PUT",
            f"/models/{quote(name, safe='')}/{quote(version, safe='')}",
            {"min_worker": str(count), "max_worker": str(count), "synchronous": "false"},
        )

    def unregister(self, name: str, version: str) -> None:
        """Unregister a version; its unpacked copy is deleted too, its file in the store stays."""
        self._ask("DELETE", f"/models/{quote(name, safe='')}/{quote(version, safe='')}")

    def predict(self, name: str, version: str, body: bytes) -> Any:
        """The handler's answer to one PNG, or to one JSON object."""
        path = f"/predictions/{quote(name, safe='')}/{quote(version, safe='')}"
        return self._call(self._inference, "inference", "POST", path, {}, body)

    def _ask(self, method: str, path: str, query: dict[str, str] | None = None) -> Any:
        return self._call(self._management, "management", method, path, query or {}, None)

    def _call(
        self,
        client: httpx.Client,
        kind: str,
        method: str,
        path: str,
        query: dict[str, str],
        body: bytes | None,
        *,
        seconds: float | None = None,
    ) -> Any:
        # Twice, because a restart or a renewal of the keys invalidates the ones that were read.
        for _ in range(2):
            headers = {"Authorization": f"Bearer {read_key(self._keys, kind, 'TorchServe')}"}
            if body is not None:
                kind_of_body = "application/json" if body[:1] == b"{" else "image/png"
                headers["Content-Type"] = kind_of_body
            try:
                response = client.request(
                    method,
                    path,
                    params=query,
                    headers=headers,
                    content=body,
                    timeout=client.timeout if seconds is None else seconds,
                )
            except httpx.HTTPError as error:
                raise Unavailable(
                    f"TorchServe's {kind} address does not answer ({error}); try again."
                ) from error
            answer = _decoded(response)
            if response.is_success:
                return answer
            if not (isinstance(answer, dict) and answer.get("type") == "InvalidKeyException"):
                break
        else:
            raise Unavailable(
                f"TorchServe refuses the {kind} key in {self._keys.name}; was it started elsewhere?"
            )
        message = answer.get("message", answer) if isinstance(answer, dict) else answer
        raise Refusal(response.status_code, str(message)[:500])


def _decoded(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        return response.text
