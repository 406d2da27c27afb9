"""The handler that TorchServe workers run: verified weights in, probabilities or SMILES out.

TorchServe requires a module with exactly one class. The archives that the guard builds name it, and
it is imported from the installation. `initialize` raises only ValueError: after a RuntimeError
TorchServe would keep the broken model.
"""

import contextlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from guard.core.errors import GuardError
from guard.core.graph_manifest import GraphManifest
from guard.core.manifest import Manifest
from guard.core.plain import to_plain
from guard.serving import _released, _requests, _texts

_HTTP = {"release_expired": (403, "Forbidden")}
_BAD_REQUEST = (400, "Bad Request")


class GuardHandler:
    """One released model; TorchServe calls `initialize` once and `handle` for each batch."""

    def initialize(self, context: Any) -> None:
        """Verify the release and load its model.

        Raises:
            ValueError: the release must not be served; the message gives the reason.
        """
        folder = Path(context.system_properties["model_dir"])
        torch.set_num_threads(1)
        self._folder = folder
        try:
            self._released = _released.load_released(
                folder,
                name=str(context.model_name),
                version=str(context.manifest["model"]["modelVersion"]),
                now=datetime.now(UTC),
            )
        except (GuardError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            with contextlib.suppress(OSError):  # a read-only folder; the log has it too
                (folder / _released.REFUSAL).write_text(str(error))
            raise ValueError(f"the guard refuses to serve this: {error}") from error
        with contextlib.suppress(OSError):
            (folder / _released.REFUSAL).unlink(missing_ok=True)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        """One JSON response for each row; an error in one row does not affect the others."""
        answers = [""] * len(data)
        waiting: list[tuple[int, torch.Tensor, bool]] = []
        for index, row in enumerate(data):
            context.set_response_content_type(index, "application/json")
            context.set_response_header(index, "X-Guard-Digest", self._released.digest)
            if (gate := self._released.gate) is not None:
                context.set_response_header(index, "X-Guard-Gate", str(gate.mode))
                context.set_response_header(index, "X-Guard-Would-Be", str(gate.would_be))
            try:
                # Any client may send this header with a prediction, so each row is answered for
                # itself.
                if context.get_request_header(index, "describe") == "True":
                    answers[index] = self._describe()
                    continue
                _released.check_current(self._released, datetime.now(UTC))
                if isinstance(self._released.manifest, GraphManifest):
                    answers[index] = _texts.answer(self._released.model, _texts.parse(row))
                    continue
                waiting.append((index, *_requests.parse(row, self._released.manifest)))
            except GuardError as error:
                code, phrase = _HTTP.get(error.code, _BAD_REQUEST)
                context.set_response_status(code=code, phrase=phrase, idx=index)
                answers[index] = json.dumps({"error": error.sentence, "code": error.code})
        if waiting:
            self._predict(waiting, answers, context)
        return answers

    def _predict(
        self, waiting: list[tuple[int, torch.Tensor, bool]], answers: list[str], context: Any
    ) -> None:
        with torch.inference_mode():
            rows = self._released.model(torch.cat([images for _, images, _ in waiting])).softmax(1)
        start = 0
        for index, images, several in waiting:
            part = rows[start : start + len(images)]
            start += len(images)
            if not bool(torch.isfinite(part).all()):
                context.set_response_status(code=500, phrase="Internal Server Error", idx=index)
                answers[index] = json.dumps(
                    {"error": "The model's output is not finite.", "code": "non_finite"}
                )
                continue
            found = [self._answer([float(value) for value in row]) for row in part]
            answers[index] = json.dumps({"predictions": found} if several else found[0])

    def _answer(self, probabilities: list[float]) -> dict[str, Any]:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        manifest = self._released.manifest
        labels = manifest.label_names if isinstance(manifest, Manifest) else ()
        return {
            "probabilities": probabilities,
            "class": best,
            "label": labels[best] if labels else None,
        }

    def _describe(self) -> str:
        one = self._released
        manifest = one.manifest
        inputs = (
            {"input_size": list(manifest.input_size), "labels": list(manifest.label_names)}
            if isinstance(manifest, Manifest)
            else {"task": str(manifest.modality)}
        )
        return json.dumps(
            {
                "digest": one.digest,
                "name": one.name,
                "version": one.version,
                "verdict_id": one.verdict_id,
                "expires_at": one.expires_at.isoformat(),
                "gate": to_plain(one.gate),
                "architecture": one.manifest.architecture,
                **inputs,
                "extract": self._folder.name,
            }
        )
