"""Every source of chance that Celery and kombu have, from one seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from uuid import UUID

from kombu.utils.uuid import uuid as kombu_uuid


@contextmanager
def seeded(rng: Random) -> Iterator[None]:
    """Ids of messages, and all that asks the ``random`` module, come from ``rng``."""

    def uuid4() -> UUID:
        return UUID(int=rng.getrandbits(128), version=4)

    state = random.getstate()
    defaults = kombu_uuid.__defaults__
    random.seed(rng.getrandbits(64))
    # kombu binds uuid4 as a default argument, and everybody binds kombu's function.
    kombu_uuid.__defaults__ = (uuid4,)
    try:
        yield
    finally:
        kombu_uuid.__defaults__ = defaults
        random.setstate(state)
