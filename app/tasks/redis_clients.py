"""One Redis client for each channel of kombu, which makes a new one for each pipeline.

To make one takes thirty times as long as to fill a pipeline, and a worker needs two for
each message: to note that it holds it, and to acknowledge it.
"""

from typing import Any

from kombu.transport.redis import Channel

_KOMBUS_CREATE_CLIENT: Any = Channel._create_client  # type: ignore[attr-defined]


def keep_client(channel: Any) -> None:
    """Let ``channel``, kombu's for Redis, use its client again; once done, nothing is changed.

    The client holds no connection: each command takes one of the channel's pool. Where that
    was replaced, there is a new client.
    """
    create = getattr(channel, "_create_client", None)
    if create is None:
        return
    # A channel that makes clients in a way of its own knows better.
    if getattr(create, "__func__", None) is _KOMBUS_CREATE_CLIENT:
        channel._create_client = _Kept(channel, create)


class _Kept:
    def __init__(self, channel: Any, create: Any) -> None:
        self._channel = channel
        self._create = create
        self._client: Any = None

    def __call__(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return self._create(asynchronous=True)
        client = self._client
        if client is None or client.connection_pool is not self._channel.pool:
            client = self._client = self._create()
        return client
