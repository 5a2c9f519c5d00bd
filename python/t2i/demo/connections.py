"""The demo's connections: bounded in number and in the time a request may take to arrive, which uvicorn leaves open.

A client that opens connections and sends half a request on each ("slowloris") neither keeps them nor keeps others out: a
request must have arrived `HEADER_SECONDS` after it began, and where all connections are taken, the oldest one that waits
for a request is closed in favour of the new one.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 128
HEADER_SECONDS = 10.0
SWEEP_SECONDS = 1.0  # between two looks at a connection
STUCK_SWEEPS = 20  # looks at an answer of which nothing was taken


class BoundedConnection(H11Protocol):
    """One connection of the demo."""

    def connection_made(self, transport: Any) -> None:  # noqa: D102
        super().connection_made(transport)
        self._opened = self.loop.time()
        self._began: float | None = self._opened  # when the request began that has not arrived yet
        self._unsent, self._stuck = 0, 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(SWEEP_SECONDS, self._look)
        if len(self.connections) > MAX_CONNECTIONS:
            others = [each for each in self.connections if isinstance(each, BoundedConnection) and each is not self]
            idle = [each for each in others if each._waits()]
            oldest = min(idle, key=lambda each: each._opened, default=None)
            if oldest is None:
                self._refuse(b"429 Too Many Requests")
            else:
                oldest._refuse(b"408 Request Timeout")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self.transport.is_closing():
            return
        super().data_received(data)
        if not self._waits():
            self._began = None
        elif self._began is None:
            self._began = self.loop.time()

    def _waits(self) -> bool:
        """Return whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _look(self) -> None:
        self._timer = self.loop.call_later(SWEEP_SECONDS, self._look)
        unsent = self.transport.get_write_buffer_size()
        self._stuck = self._stuck + 1 if unsent and unsent == self._unsent else 0
        self._unsent = unsent
        if self._stuck >= STUCK_SWEEPS:
            self.transport.abort()
        elif self._waits() and self._began is not None and self.loop.time() - self._began > HEADER_SECONDS:
            self._refuse(b"408 Request Timeout")

    def _refuse(self, status: bytes) -> None:
        """Close the connection, with an answer where none was begun."""
        self.connections.discard(self)
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        elif not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self.transport.close()
