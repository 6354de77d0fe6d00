"""Flower's defaults for this deployment."""

import os


def listen_on_loopback() -> None:
    """Make 127.0.0.1 the address that ``celery flower`` listens on, unless told otherwise.

    Flower's own default is every interface, with no login. It reads FLOWER_* variables
    after it has loaded the app, so this is early enough.
    """
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
