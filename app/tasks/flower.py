"""Flower's defaults for this deployment."""

import os

from app.settings_files import value_from_file

LOGIN = "FLOWER_BASIC_AUTH"


def configure() -> None:
    """Set what ``celery flower`` reads from the environment, where nobody else has set it.

    It listens on 127.0.0.1: Flower's own default is every interface, with no login. Its
    login may stand in the file that FLOWER_BASIC_AUTH_FILE names; raises ``SettingsError``
    where that cannot be read. Flower reads FLOWER_* variables after it has loaded the app,
    so this is early enough.
    """
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    login = value_from_file(LOGIN)
    if login is not None:
        os.environ[LOGIN] = login
        # A process that this one turns into would find both, and refuse them.
        del os.environ[f"{LOGIN}_FILE"]
