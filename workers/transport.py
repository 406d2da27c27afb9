"""kombu's Redis transport, changed so that a worker survives the loss of its broker.

kombu 5.7 ends a worker whose connection is lost while tasks run: using the closed connection fails
with AttributeError, which no caller treats as a lost connection. Here it raises the error of a lost
connection, or the connection is not used.
"""

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as BrokerGone


class _QoS(redis.QoS):
    # Returning unfinished messages through the lost connection cannot work, and nothing relies on
    # it: leases and rescue take care of their scans (docs/decisions/0004).
    restore_at_shutdown = False


class _Channel(redis.Channel):
    QoS = _QoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        # A task has ended after its channel closed; its acknowledgement cannot be sent.
        if self.connection is None:
            raise BrokerGone("the channel of this message is closed")
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        return params


class Transport(redis.Transport):
    """Redis for Celery's `broker_transport`, where a closed channel is a lost connection."""

    Channel = _Channel
