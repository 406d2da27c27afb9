"""The two HTTP interfaces of `guard.inference`; their tokens are read anew for each call."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from guard.core.errors import IntegrityMismatch, Unavailable
from guard.publishers._http import make_client, read_key

#: 401: the server was started anew meanwhile; 408: the body was too slow.
_TRY_AGAIN = frozenset({401, 408})


class Api:
    """One server; its tokens are read from the file that it writes at each start.

    Args:
        management: `unix:/path`, or `http://127.0.0.1:PORT`.
        inference: `http://127.0.0.1:PORT`.
        keys: `key_file.json` in the server's working folder.
        seconds: limit of one call.
    """

    def __init__(self, *, management: str, inference: str, keys: Path, seconds: float) -> None:
        self._keys = keys
        self._management = make_client(management, seconds)
        self._inference = make_client(inference, seconds)

    def listed(self) -> list[dict[str, Any]]:
        """Every entry of the server: what is loaded, and what it refused to load."""
        answer = self._ask(self._management, "management", "GET", "/models")
        rows = answer.get("models")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def load(self, name: str, version: str) -> None:
        """Load what lies in the store under a name and version.

        Raises:
            IntegrityMismatch: the server refuses it; the sentence holds its reason.
        """
        self._ask(self._management, "management", "PUT", f"/models/{name}/{version}")

    def unload(self, name: str, version: str) -> None:
        """Answer for it no more."""
        self._ask(self._management, "management", "DELETE", f"/models/{name}/{version}")

    def make_default(self, name: str, version: str) -> None:
        """Let a version answer requests that name none."""
        self._ask(self._management, "management", "PUT", f"/models/{name}/{version}/default")

    def infer(self, name: str, version: str, images: Sequence[bytes]) -> dict[str, list[Any]]:
        """The flat data of each output for PNG images, in one request.

        Raises:
            IntegrityMismatch: the server refuses the images, or answers with something else.
        """
        data = [base64.b64encode(image).decode() for image in images]
        tensor = {"name": "images", "datatype": "BYTES", "shape": [len(data)], "data": data}
        path = f"/v2/models/{name}/versions/{version}/infer"
        answer = self._ask(self._inference, "inference", "POST", path, {"inputs": [tensor]})
        try:
            return {one["name"]: list(one["data"]) for one in answer["outputs"]}
        except (KeyError, TypeError) as error:
            raise IntegrityMismatch(
                f"{name} {version} does not answer as the protocol wants it.", code="smoke_differs"
            ) from error

    def _ask(
        self, client: httpx.Client, kind: str, method: str, path: str, body: Any = None
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {read_key(self._keys, kind, 'The inference server')}"}
        try:
            response = client.request(method, path, headers=headers, json=body)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The inference server's {kind} address does not answer ({error}); try again."
            ) from error
        answer = _decoded(response)
        if response.is_success:
            return answer
        sentence = str(answer.get("error", ""))[:1000]
        if answer.get("code") == "load_refused":
            raise IntegrityMismatch(sentence, code="load_refused")
        unfit = response.is_client_error and response.status_code not in _TRY_AGAIN
        if method == "POST" and (unfit or answer.get("code") == "non_finite"):
            raise IntegrityMismatch(
                f"The served model refuses a vetted image: {sentence}", code="smoke_refused"
            )
        raise Unavailable(
            f"The inference server answered {response.status_code}: {sentence}",
            code="inference_refused",
        )


def _decoded(response: httpx.Response) -> dict[str, Any]:
    try:
        value = response.json()
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"error": response.text}
