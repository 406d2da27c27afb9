"""kombu's Redis transport, made to outlive its broker.

kombu 5.7 ends a worker when its connection is lost while tasks run: what is then tried through the
closed connection fails with AttributeError, which nobody above takes for a lost connection. Here it
is one, or is not tried.
"""

from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as BrokerGone


class _QoS(redis.QoS):
    # Giving messages under way back through the lost connection cannot work, and nobody relies on
    # it: leases and rescue see to their scans (docs/decisions/0004).
    restore_at_shutdown = False


class _Channel(redis.Channel):
    QoS = _QoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        if (
            self.connection is None
        ):  # a task has ended after its channel; its acknowledgement has nowhere to go
            raise BrokerGone("the channel of this message is closed")
        params: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        return params


class Transport(redis.Transport):
    """For Celery's `broker_transport`: Redis, but a closed channel is a lost connection."""

    Channel = _Channel
