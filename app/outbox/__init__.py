"""The transactional outbox: durable work, planned in the caller's transaction.

Source of the pattern: C. Richardson, "Pattern: Transactional outbox" (microservices.io).
"""

from app.outbox.broker import (
    DUE_INSTANT_HEADER,
    PUBLISHED_AT_HEADER,
    Broker,
    BrokerUnavailableError,
)
from app.outbox.enqueue import bury_new, cancel, check_calls, enqueue
from app.outbox.publish import attach

__all__ = [
    "DUE_INSTANT_HEADER",
    "PUBLISHED_AT_HEADER",
    "Broker",
    "BrokerUnavailableError",
    "attach",
    "bury_new",
    "cancel",
    "check_calls",
    "enqueue",
]
