"""Our SMTP client and servers that never come to an end."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from threading import Event, Thread
from time import monotonic
from typing import Any

import psutil
import pytest

from app.adapters.mailer import MailFateUnknownError, MailServerUnavailableError
from app.adapters.smtp import SmtpMailer
from scripts.live.ports import HOST

PATIENCE = 1.0  # seconds for a reply
DELIVERY = 3.0  # seconds for a connection, and for a mail
MEBIBYTE = 1 << 20
MESSAGE = b"Subject: Guitar\r\n\r\nHello\r\n"

PHASES = ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "message"]
REPLIES = {
    "greeting": b"220 hello\r\n",
    "EHLO": b"250 hello\r\n",
    "MAIL": b"250 ok\r\n",
    "RCPT": b"250 ok\r\n",
    "DATA": b"354 go ahead\r\n",
    "message": b"250 ok\r\n",
}
PIPELINING = b"250-hello\r\n250 PIPELINING\r\n"

Misbehaving = Callable[[socket.socket, bytes, Event], None]


def endless_lines(peer: socket.socket, code: bytes, over: Event) -> None:
    while not over.is_set():
        peer.sendall((code + b"-and another thing\r\n") * 1_000)


def endless_line(peer: socket.socket, code: bytes, over: Event) -> None:
    peer.sendall(code + b"-")
    while not over.is_set():
        peer.sendall(b"x" * 10_000)


def byte_by_byte(peer: socket.socket, code: bytes, over: Event) -> None:
    for sign in (code + b"-well\r\n") * 1_000:
        peer.sendall(bytes([sign]))
        if over.wait(PATIENCE / 5):
            return


def slow_lines(peer: socket.socket, code: bytes, over: Event) -> None:
    while not over.wait(PATIENCE / 5):
        peer.sendall(code + b"-well\r\n")


def nothing(peer: socket.socket, code: bytes, over: Event) -> None:
    over.wait()


KINDS = [endless_lines, endless_line, byte_by_byte, slow_lines, nothing]


@contextmanager
def server(
    at: str, misbehave: Misbehaving, *, ehlo: bytes = REPLIES["EHLO"], reads_message: bool = True
) -> Iterator[int]:
    """A server that is well until the reply of one phase. Yields its port."""
    over = Event()
    listening = socket.create_server((HOST, 0))

    def converse() -> None:
        with suppress(OSError), closing(listening.accept()[0]) as peer:
            lines = peer.makefile("rb")
            for phase in PHASES:
                if phase == "message" and not reads_message:
                    over.wait()
                    return
                if phase != "greeting":
                    _next(lines, phase)
                reply = ehlo if phase == "EHLO" else REPLIES[phase]
                if phase == at:
                    misbehave(peer, reply[:3], over)
                    return
                peer.sendall(reply)

    serving = Thread(target=converse)
    serving.start()
    try:
        yield listening.getsockname()[1]
    finally:
        over.set()
        # Wakes an accept that nobody answers any more.
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        serving.join(timeout=10)
        listening.close()
        assert not serving.is_alive()


def _next(lines: Any, phase: str) -> None:
    while line := lines.readline():
        if phase != "message" or line == b".\r\n":
            return


def deliver(port: int, message: bytes = MESSAGE, **options: Any) -> None:
    mailer = SmtpMailer(
        HOST,
        port,
        hello="us.example",
        timeout=options.pop("timeout", PATIENCE),
        answer_timeout=options.pop("answer_timeout", PATIENCE),
        delivery_timeout=DELIVERY,
    )
    with mailer.open() as connection:
        connection.send(
            lambda: message,
            sender="lessons@lessons.example",
            recipient="ada@people.example",
            proceed=lambda _ahead: True,
        )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("at", PHASES)
def test_an_endless_reply_ends_in_time_within_memory_and_with_the_right_fate(
    at: str, kind: Misbehaving
) -> None:
    process = psutil.Process()
    fate = MailFateUnknownError if at == "message" else MailServerUnavailableError
    before = process.memory_info().rss
    with server(at, kind) as port:
        started = monotonic()
        with pytest.raises(fate):
            deliver(port)
        assert monotonic() - started < 2 * PATIENCE
    assert process.memory_info().rss - before < 50 * MEBIBYTE


@pytest.mark.parametrize("kind", [endless_lines, byte_by_byte], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("at", ["MAIL", "RCPT", "DATA", "message"])
def test_an_endless_reply_to_one_of_several_commands_ends_too(at: str, kind: Misbehaving) -> None:
    fate = MailFateUnknownError if at == "message" else MailServerUnavailableError
    with server(at, kind, ehlo=PIPELINING) as port:
        started = monotonic()
        with pytest.raises(fate):
            deliver(port)
        assert monotonic() - started < 2 * PATIENCE


def test_many_replies_each_in_time_end_at_the_deadline_of_the_delivery() -> None:
    with server("greeting", late_at_each_phase) as port:
        started = monotonic()
        with pytest.raises(MailServerUnavailableError, match=r"timed out at DATA$"):
            deliver(port, timeout=2 * PATIENCE)
        assert monotonic() - started < 2 * DELIVERY + PATIENCE


def late_at_each_phase(peer: socket.socket, code: bytes, over: Event) -> None:
    lines = peer.makefile("rb")
    peer.sendall(REPLIES["greeting"])
    for phase in PHASES[1:]:
        _next(lines, phase)
        if over.wait(1.4 * PATIENCE):
            return
        peer.sendall(REPLIES[phase])


@pytest.mark.parametrize("reads", ["nothing of it", "a part of it"])
def test_a_message_whose_end_was_never_sent_was_certainly_not_accepted(reads: str) -> None:
    """The system's buffers hold less than this message."""

    def read_a_part(peer: socket.socket, code: bytes, over: Event) -> None:
        lines = peer.makefile("rb")
        peer.sendall(REPLIES["greeting"])
        for phase in PHASES[1:-1]:
            _next(lines, phase)
            peer.sendall(REPLIES[phase])
        lines.read(MEBIBYTE)

    misbehave = nothing if reads == "nothing of it" else read_a_part
    at = "message" if reads == "nothing of it" else "greeting"
    with (
        server(at, misbehave, reads_message=False) as port,
        pytest.raises(MailServerUnavailableError, match=r"at the message$"),
    ):
        deliver(port, message=MESSAGE + (b"x" * 70 + b"\r\n") * 1_000_000)


GREEN = """
from gevent import monkey
monkey.patch_all()
from tests.integration.adapters.test_smtp_bounds import check_in_greenlets
check_in_greenlets()
"""


def check_in_greenlets() -> None:
    for at, fate in (("DATA", MailServerUnavailableError), ("message", MailFateUnknownError)):
        for kind in KINDS:
            with server(at, kind) as port:
                started = monotonic()
                with pytest.raises(fate):
                    deliver(port)
                assert monotonic() - started < 2 * PATIENCE, (at, kind)


@pytest.mark.timeout(90)
def test_the_bounds_hold_in_a_gevent_pool() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GREEN], capture_output=True, text=True, timeout=80, check=False
    )
    assert done.returncode == 0, done.stderr
