"""Mail into a folder, for a machine without a mail server."""

import mailbox
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from app import db
from app.adapters.mailer import MailConnection, MailerNotReadyError, MailServerUnavailableError


class MaildirMailer:
    """One file for each message, in maildir format: written to ``tmp``, then renamed to
    ``new``, so that a reader never sees half a message. The folder is made at first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def place(self) -> str:
        return f"mail folder {self._folder}"

    def check(self) -> None:
        try:
            self._make()
            trial = self._folder / "tmp" / f"writable.{os.getpid()}"
            trial.touch()
            trial.unlink()
        except OSError as error:
            raise MailerNotReadyError(
                f"SMTP_URL: cannot write to the mail folder {self._folder} ({_reason(error)}); "
                "name a folder that this user may write to, for example SMTP_URL=maildir:var/mail"
            ) from error

    @contextmanager
    def open(self) -> Iterator[MailConnection]:
        db.refuse_network_in_transaction()
        try:
            self._make()
        except OSError as error:
            raise MailServerUnavailableError(f"{self.place}: {_reason(error)}") from error
        yield _Folder(mailbox.Maildir(self._folder, create=False), place=self.place)

    def _make(self) -> None:
        for part in ("tmp", "new", "cur"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)


class _Folder:
    def __init__(self, folder: mailbox.Maildir, *, place: str) -> None:
        self._folder = folder
        self._place = place

    def send(
        self,
        write: Callable[[], bytes],
        *,
        sender: str,
        recipient: str,
        proceed: Callable[[float], bool],
    ) -> bool:
        db.refuse_network_in_transaction()
        message = write()
        if not proceed(0.0):
            return False
        try:
            # Local line ends are the format's convention.
            self._folder.add(message.replace(b"\r\n", b"\n"))
        except (OSError, mailbox.Error) as error:
            raise MailServerUnavailableError(f"{self._place}: {_reason(error)}") from error
        return True


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__
