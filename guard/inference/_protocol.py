"""HTTP/1.1 as uvicorn speaks it, but for clients who connect and send nothing, or too slowly."""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

#: How long a connection may be open without a request whose headers are complete.
SILENT_SECONDS = 15.0


class Protocol(H11Protocol):
    """Closes a connection on which no request begins for `SILENT_SECONDS`.

    Uvicorn's own limit counts only after an answer and ends with the next byte, so that a few
    hundred clients who send their headers byte by byte would keep everybody else out.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._seen: Any = None
        self._watch = self.loop.call_later(SILENT_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        cycle: Any = self.cycle  # the newest request; None before the first one
        if cycle is self._seen and (cycle is None or cycle.response_complete):
            self.transport.close()
            return
        self._seen = cycle
        self._watch = self.loop.call_later(SILENT_SECONDS, self._look)
