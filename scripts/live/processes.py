"""Commands that are started, watched and stopped for certain.

A ``Process`` is one command in a session and process group of its own, so
that Ctrl-C in the terminal reaches us only and we decide who stops in which
order. If we die, however we die, the kernel kills it (``tethered.py``).

``Processes`` holds many and leaves none behind.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
POLL = 0.02  # seconds between two looks
LAST_LINES = 30  # of a log, in an error message

_TETHERED = Path(__file__).with_name("tethered.py")

# "When the parent dies" means for the kernel: when the thread that forked it
# ends. So one thread forks all of them, and it ends with this interpreter.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="process-starter")


class ProcessEndedError(RuntimeError):
    """A process ended while it was expected to live; the message ends with its log."""


class Process:
    """A command, its log file, and everything that it starts itself.

    ``start`` may be called again after it ended; its log file is appended to.
    """

    def __init__(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str | None = None,
    ) -> None:
        self.argv = [os.fspath(argument) for argument in argv]
        self.log = log
        self.env = None if env is None else dict(env)
        self.cwd = cwd
        self.name = name or Path(self.argv[0]).name
        self._popen: subprocess.Popen[bytes] | None = None
        self._log_starts_at = 0

    def __repr__(self) -> str:
        state = "not started" if self._popen is None else f"pid {self.pid}"
        return f"<Process {self.name} ({state})>"

    def start(self) -> Self:
        """Start it; FileNotFoundError where the command does not exist."""
        if self.alive:
            raise RuntimeError(f"{self} runs already")
        path = None if self.env is None else self.env.get("PATH")
        command = shutil.which(self.argv[0], path=path)
        if command is None:
            raise FileNotFoundError(f"{self.argv[0]}: command not found")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        spawning = _starter.submit(self._spawn, command)
        try:
            spawning.result()
        finally:
            wait([spawning])  # a Ctrl-C must not leave a process that ``kill`` does not know
        return self

    def _spawn(self, command: str) -> None:
        tether = [sys.executable, "-I", "-S", str(_TETHERED), str(os.getpid()), command]
        with self.log.open("ab") as log:
            self._log_starts_at = log.tell()
            self._popen = subprocess.Popen(
                [*tether, *self.argv[1:]],
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The pid of the command itself: also the id of its session and group."""
        if self._popen is None:
            raise RuntimeError(f"{self} has no pid yet")
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Whether the command itself runs (its children may outlive it)."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: negative for a signal, None while it runs."""
        return None if self._popen is None else self._popen.poll()

    def wait(self, timeout: float) -> int:
        """Its exit code; TimeoutError if it still runs after ``timeout`` seconds."""
        if self._popen is None:
            raise RuntimeError(f"{self} was not started")
        try:
            return self._popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self} still runs after {timeout} s") from None

    def log_text(self) -> str:
        """All that it wrote to stdout and stderr since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(self._log_starts_at)
            return log.read().decode(errors="replace")

    def wait_for_line(self, pattern: str, *, timeout: float = 30.0) -> re.Match[str]:
        """The first match of the regular expression in what it wrote since its start.

        ProcessEndedError if it ends without it, TimeoutError after ``timeout``
        seconds; both show the end of its log.
        """
        expression = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout
        while True:
            alive = self.alive  # asked before the log is read: its last words count
            if found := expression.search(self.log_text()):
                return found
            if not alive:
                raise self.ended(f"before it wrote {pattern!r}")
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{self} did not write {pattern!r} in {timeout} s\n{self._last_lines()}"
                )
            time.sleep(POLL)

    def ended(self, when: str) -> ProcessEndedError:
        """The exception for an unexpected end, with the end of its log."""
        return ProcessEndedError(f"{self} ended with {self.exit_code} {when}\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return "\n".join(self.log_text().splitlines()[-LAST_LINES:])

    def signal(self, number: int) -> None:
        """Send a signal to the command itself; nothing happens if it has ended."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def terminate(self, grace: float = GRACE) -> int | None:
        """Stop it as a supervisor does, and return its exit code.

        SIGTERM goes to the command alone (a prefork worker ends its children
        itself; a SIGTERM of their own would lose their tasks). What is left of
        it and its descendants after ``grace`` seconds is killed.
        """
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)  # a paused process could not hear it
        try:
            if self._popen is not None:
                self._popen.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()
        return self.exit_code

    def kill(self) -> int | None:
        """SIGKILL it and all its descendants, as when the machine dies.

        Also finds children that outlived an earlier end of the command itself.
        """
        if self._popen is None:
            return None
        while members := self._members():
            for member in members:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
            time.sleep(POLL)
        return self._popen.wait()

    def kill_alone(self) -> int | None:
        """SIGKILL the command itself only, as ``kill -9 PID`` does, and reap it.

        What becomes of its children is up to them.
        """
        self.signal(signal.SIGKILL)
        return None if self._popen is None else self._popen.wait()

    def listens_on(self, port: int) -> bool:
        """Whether it or a process that it started accepts TCP connections on ``port``."""
        for member in self._members():
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                for connection in member.net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port:
                        return True
        return False

    def descendants(self) -> list[psutil.Process]:
        """The living processes that it started, directly or not."""
        return [member for member in self._members() if member.pid != self.pid]

    def _members(self) -> list[psutil.Process]:
        """It, its descendants, and orphans of its session; the dead do not count."""
        members: dict[int, psutil.Process] = {}
        try:
            leader = psutil.Process(self.pid)
            if leader.ppid() == os.getpid():  # the pid is not somebody else's by now
                members = {p.pid: p for p in [leader, *leader.children(recursive=True)]}
        except psutil.NoSuchProcess:
            pass
        for process in psutil.process_iter():
            try:
                if process.pid not in members and os.getsid(process.pid) == self.pid:
                    members[process.pid] = process
            except OSError:
                pass
        return [process for process in members.values() if is_running(process.pid)]


def is_running(pid: int) -> bool:
    """Whether there is such a process; a dead one that nobody has reaped yet is none."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until_gone(pid: int, *, timeout: float = 10.0) -> None:
    """Return when a process that is not our child has ended; TimeoutError if it does not."""
    deadline = time.monotonic() + timeout
    while is_running(pid):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} still runs after {timeout} s")
        time.sleep(POLL)


class Processes:
    """A context that stops what was started in it: the last one first, all of it."""

    def __init__(self, *, grace: float = GRACE) -> None:
        self._grace = grace
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop(at_once=kind is not None and issubclass(kind, KeyboardInterrupt))

    def __iter__(self) -> Iterator[Process]:
        return iter(tuple(self._started))

    def start(self, process: Process) -> Process:
        """Start it and answer for its end."""
        if process not in self._started:
            # Before the start: a Ctrl-C that arrives in the middle finds it.
            self._started.append(process)
        return process.start()

    def logs(self) -> dict[str, str]:
        """The text of each log file, by its name; processes may share one in turn."""
        files = {process.log for process in self._started if process.log.exists()}
        return {file.name: file.read_text(errors="replace") for file in sorted(files)}

    def stop(self, *, at_once: bool = False) -> None:
        """Terminate each, the last one first; kill the rest ``at_once`` or after a Ctrl-C."""
        newest_first = self._started[::-1]
        try:
            for process in () if at_once else newest_first:
                process.terminate(self._grace)
        finally:
            for process in newest_first:
                process.kill()
