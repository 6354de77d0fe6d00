"""The files in which a worker and beat keep a copy of their lines."""

import fcntl
import logging
import sys
from contextlib import suppress
from itertools import pairwise
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from app.settings import Settings


class LineFile(WatchedFileHandler):
    """Appends each line with one ``write`` to a file that others append to as well.

    Safe across forks: a child inherits the open file, and the system puts each write at
    the end (POSIX, ``O_APPEND``), whole; nothing is buffered that a fork could double, and
    ``logging`` renews a handler's lock in a child. (Not on NFS, where appending is not
    atomic.) Where logrotate or another process has moved the file, each process notices by
    itself before its next line, and opens the new one.

    Who finds the file at ``most_bytes`` or more moves it to ``.1``, what is there to ``.2``,
    and so on; ``kept`` of them are kept. 0: nothing is moved.
    """

    def __init__(self, path: Path, *, most_bytes: int = 0, kept: int = 1) -> None:
        super().__init__(path)
        self._most_bytes = most_bytes
        self._kept = kept

    def _open(self) -> Any:
        return Path(self.baseFilename).open("ab", buffering=0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode(errors="backslashreplace")
            self.reopenIfNeeded()
            if self.stream is None:  # the last attempt to open it failed
                self.stream = self._open()
                self._statstream()
            stream: Any = self.stream
            stream.write(line)
            if self._most_bytes and stream.tell() >= self._most_bytes:
                self._rotate()
        except Exception:
            self.handleError(record)

    def _rotate(self) -> None:
        path = Path(self.baseFilename)
        try:
            # Opened anew each time: the lock belongs to the open file, which a child of a
            # fork would share. One that another process holds means that it is at it.
            with path.with_name(f"{path.name}.lock").open("ab") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._move(path)
        except OSError as error:
            self._most_bytes = 0
            _say(f"LOG_MAX_BYTES: cannot rotate {path} ({error.strerror}): it goes on growing")

    def _move(self, path: Path) -> None:
        files = [path, *(path.with_name(f"{path.name}.{n}") for n in range(1, self._kept + 1))]
        with suppress(FileNotFoundError):
            # Ours may be one that another process has moved already.
            if path.stat().st_size < self._most_bytes:
                return
            for newer, older in reversed(list(pairwise(files))):
                if newer.exists():
                    newer.replace(older)


def file_of(program: str, settings: Settings) -> Path | None:
    """Where the lines of ``program`` are kept; ``None`` where they are not."""
    if not settings.log_dir:
        return None
    return Path(settings.log_dir) / "celery" / f"{program}.log"


def open_file(path: Path, settings: Settings) -> LineFile | None:
    """The handler for a log file; ``None``, and one line on stderr, if it cannot be written.

    No reason not to start: the same lines go to stderr, and mails are worth more than a copy.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return LineFile(path, most_bytes=settings.log_max_bytes, kept=settings.log_files_kept)
    except OSError as error:
        _say(
            f"LOG_DIR: cannot write to {path} ({error.strerror}): logging to stderr only; name a "
            "folder that this user may write to, or none with LOG_DIR="
        )
        return None


def _say(line: str) -> None:
    # By then Celery may have turned sys.stderr into its log.
    stderr = sys.__stderr__ or sys.stderr
    stderr.write(f"{line}\n")
