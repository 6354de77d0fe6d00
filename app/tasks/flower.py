"""Flower's defaults for this deployment."""

import errno
import os
import re
import sys
from types import TracebackType

from app.settings import warnings
from app.settings_files import SettingsError, value_from_file
from app.tasks import command_line

CANNOT_LISTEN = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES)
DEFAULT_PORT = "5555"
HIGHEST_PORT = 65535
LOGIN = "FLOWER_BASIC_AUTH"


def configure() -> None:
    """Set what ``celery flower`` reads from the environment, where nobody else has set it.

    It listens on 127.0.0.1: Flower's own default is every interface, with no login. Its
    login may stand in the file that FLOWER_BASIC_AUTH_FILE names; raises ``SettingsError``
    where that cannot be read, or where its port is none. Flower reads FLOWER_* variables
    after it has loaded the app, so this is early enough.
    """
    os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
    login = value_from_file(LOGIN)
    if login is not None:
        os.environ[LOGIN] = login
        # A process that this one turns into would find both, and refuse them.
        del os.environ[f"{LOGIN}_FILE"]
    if command_line.celery_command() == command_line.FLOWER:
        sys.excepthook = _explain
        _check_port(_option("port", DEFAULT_PORT))
        sys.stderr.writelines(f"{line}\n" for line in warnings())


def _check_port(port: str) -> None:
    # Flower ends in a traceback of a word, and takes 99999 for 34463.
    if not port.isdecimal() or int(port) > HIGHEST_PORT:
        raise SettingsError(f"--port {port}: no port; for example --port={DEFAULT_PORT}")


def _explain(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    """Say in one line that Flower cannot listen, and end with 2; else what Python says."""
    if not isinstance(error, OSError) or error.errno not in CANNOT_LISTEN:
        sys.__excepthook__(kind, error, traceback)
        return
    address, port = _option("address", "127.0.0.1"), _option("port", DEFAULT_PORT)
    sys.stderr.write(
        f"flower cannot listen on {address} port {port}: {error.strerror}: "
        "choose another with --port\n"
    )
    sys.exit(2)


def _option(name: str, default: str) -> str:
    given = re.findall(rf" --{name}[= ](\S+)", " ".join(sys.argv))
    return given[-1] if given else os.environ.get(f"FLOWER_{name.upper()}", default)
