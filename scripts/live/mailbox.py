"""Reads a maildir: what has arrived, and what has arrived twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesHeaderParser, BytesParser
from pathlib import Path

from scripts.live.processes import POLL


class Mailbox:
    """The messages in a maildir, each a file of its own in ``new`` or ``cur``.

    It counts files: a source of truth that no database of ours knows about.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        """Messages that were accepted, doubled ones included."""
        return sum(1 for _ in self._files())

    def _files(self) -> Iterator[Path]:
        for part in ("new", "cur"):
            folder = self.folder / part
            if folder.is_dir():
                yield from (file for file in folder.iterdir() if file.is_file())

    def _in_order(self) -> list[Path]:
        return sorted(self._files(), key=lambda file: file.name)

    def messages(self) -> list[EmailMessage]:
        """All messages, parsed, in the order in which they arrived."""
        parser = BytesParser(policy=policy.default)
        return [parser.parsebytes(file.read_bytes()) for file in self._in_order()]

    def message_ids(self, *, skip: int = 0) -> list[str]:
        """The Message-ID of each message, in the order of arrival, repeated where it came twice.

        A message without one counts as unlike any other: it gets its file's name. The first
        ``skip`` messages are left out, unread: who looks often wants the new ones.
        """
        return [_message_id(file) for file in self._in_order()[skip:]]

    @property
    def delivered(self) -> int:
        """Distinct messages: how many different Message-IDs have arrived."""
        return len(set(self.message_ids()))

    @property
    def doubled(self) -> int:
        """Accepted messages beyond the first of each Message-ID."""
        ids = self.message_ids()
        return len(ids) - len(set(ids))

    def wait_for(self, count: int, *, timeout: float = 30.0) -> list[EmailMessage]:
        """All messages as soon as at least ``count`` have arrived.

        TimeoutError, saying how many there are, after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while len(self) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self)} of {count} mails in {timeout} s")
            time.sleep(POLL)
        return self.messages()


def _message_id(file: Path) -> str:
    with file.open("rb") as opened:
        headers = BytesHeaderParser(policy=policy.compat32).parse(opened)
    return str(headers.get("Message-ID") or file.name).strip()
