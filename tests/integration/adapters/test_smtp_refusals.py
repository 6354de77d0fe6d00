"""Whose fault a refusal is: ours, the mail's, or nobody's. Told by a real server at each stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from app.adapters.mailer import (
    MailRefusedError,
    MailRefusesUsError,
    MailServerUnavailableError,
    MailTemporarilyRefusedError,
)
from app.adapters.smtp import SmtpMailer, Tls
from scripts.live.ports import HOST, free_port

AWAY, US, LATER, THE_MAIL = (
    MailServerUnavailableError,
    MailRefusesUsError,
    MailTemporarilyRefusedError,
    MailRefusedError,
)
STAGES = ("greeting", "EHLO", "STARTTLS", "AUTH", "MAIL", "RCPT", "DATA", "message")


class Server(SMTP):
    """Answers one command with ``reply``, and every other one as it should."""

    def __init__(self, *args: Any, at: str, reply: str, pipelining: bool, **options: Any) -> None:
        self._at, self._reply, self._pipelining = at, reply, pipelining
        super().__init__(*args, **options)

    async def push(self, status: Any) -> None:
        refused = self._at == "greeting" and str(status).startswith("220 ")
        await super().push(self._reply if refused else status)

    async def smtp_EHLO(self, hostname: str) -> None:
        if self._at == "EHLO":
            await self.push(self._reply)
            return
        self._set_rset_state()
        self.session.extended_smtp = True  # type: ignore[union-attr]
        self.session.host_name = hostname  # type: ignore[union-attr]
        offered = ["STARTTLS"] if self._at == "STARTTLS" else ["AUTH PLAIN"]
        offered += ["PIPELINING"] if self._pipelining else []
        for line in ("250-here", *(f"250-{each}" for each in offered)):
            await self.push(line)
        await self.push("250 HELP")

    async def smtp_HELO(self, hostname: str) -> None:
        await (self.push(self._reply) if self._at == "EHLO" else super().smtp_HELO(hostname))

    async def smtp_STARTTLS(self, arg: str) -> None:
        await self.push(self._reply)

    async def smtp_AUTH(self, arg: str) -> None:
        await self.push(self._reply if self._at == "AUTH" else "235 2.7.0 welcome")

    async def smtp_MAIL(self, arg: str | None) -> None:
        await (self.push(self._reply) if self._at == "MAIL" else super().smtp_MAIL(arg))

    async def smtp_RCPT(self, arg: str | None) -> None:
        await (self.push(self._reply) if self._at == "RCPT" else super().smtp_RCPT(arg))

    async def smtp_DATA(self, arg: str) -> None:
        await (self.push(self._reply) if self._at == "DATA" else super().smtp_DATA(arg))


class Handler:
    def __init__(self, reply: str) -> None:
        self._reply = reply

    async def handle_DATA(self, _server: Any, _session: Any, _envelope: Any) -> str:
        return self._reply


@contextmanager
def refusing(at: str, reply: str, *, pipelining: bool) -> Iterator[SmtpMailer]:
    handler = Handler(reply if at == "message" else "250 OK")

    class Refusing(Controller):
        def factory(self) -> SMTP:
            return Server(handler, at=at, reply=reply, pipelining=pipelining, hostname="here")

    controller = Refusing(handler, hostname=HOST, port=free_port(), ready_timeout=10)
    controller.start()
    try:
        yield SmtpMailer(
            HOST,
            controller.port,
            hello="us.example",
            tls=Tls.STARTTLS if at == "STARTTLS" else Tls.NONE,
            user="user",
            password="secret",
            timeout=5,
        )
    finally:
        controller.stop()


def outcome(at: str, reply: str, *, pipelining: bool = False) -> Exception:
    with (
        refusing(at, reply, pipelining=pipelining) as mailer,
        pytest.raises((AWAY, LATER, THE_MAIL)) as refused,
        mailer.open() as connection,
    ):
        connection.send(
            lambda: b"Subject: Guitar\r\n\r\nHello\r\n",
            sender="lessons@lessons.example",
            recipient="ada@people.example",
            proceed=lambda _ahead: True,
        )
    return refused.value


TABLE = [
    *(("greeting", reply, US) for reply in ("554 5.3.2 no service here", "550 5.7.1 your address")),
    ("greeting", "421 4.3.2 too busy", AWAY),
    ("greeting", "450 4.7.1 come again", AWAY),
    *(("EHLO", reply, US) for reply in ("550 5.7.1 your name", "504 5.5.2 what name?", "502 no")),
    ("EHLO", "421 4.3.2 closing", AWAY),
    ("EHLO", "451 4.3.0 later", AWAY),
    *(("STARTTLS", reply, US) for reply in ("502 5.5.1 never", "554 5.7.3 no")),
    ("STARTTLS", "454 4.7.0 not now", AWAY),
    *(("AUTH", f"{code} 5.7.8 wrong", US) for code in (500, 504, 530, 534, 535, 538)),
    ("AUTH", "454 4.7.0 not now", AWAY),
    ("AUTH", "421 4.7.0 closing", AWAY),
    *(
        ("MAIL", f"{code} our sender", US)
        for code in ("550 5.7.1", "550 5.1.8", "553 5.1.7", "552 5.2.2", "503 5.5.1", "554", "555")
    ),
    ("MAIL", "530 5.7.0 log in first", US),
    ("MAIL", "421 4.7.0 closing", AWAY),
    ("MAIL", "451 4.3.0 later", LATER),
    *(
        ("RCPT", f"{code} this reader", THE_MAIL)
        for code in ("550 5.1.1", "550", "551 5.7.1", "552 5.2.2", "553 5.1.3", "550 5.7.1", "554")
    ),
    *(
        ("RCPT", f"{code} not the reader", US)
        for code in ("503 5.5.1", "530 5.7.0", "550 5.1.8", "553 5.1.7")
    ),
    ("RCPT", "450 4.2.1 later", LATER),
    ("RCPT", "421 4.7.0 closing", AWAY),
    *(
        ("DATA", f"{code} before a byte of the mail", US)
        for code in ("503 5.5.1", "554 5.7.1", "554", "550 5.7.1", "530 5.7.0")
    ),
    *(("DATA", f"{code} this reader after all", THE_MAIL) for code in ("550 5.1.1", "552 5.2.2")),
    ("DATA", "451 4.3.0 later", LATER),
    ("DATA", "421 4.7.0 closing", AWAY),
    *(
        ("message", f"{code} this mail", THE_MAIL)
        for code in ("550 5.7.1", "552 5.3.4", "554 5.6.0", "554")
    ),
    *(("message", f"{code} not this mail", US) for code in ("530 5.7.0", "550 5.1.8")),
    ("message", "452 4.3.1 later", LATER),
    ("message", "421 4.3.0 closing", AWAY),
]


@pytest.mark.parametrize(
    ("at", "reply", "expected"), TABLE, ids=[f"{at} {reply}" for at, reply, _ in TABLE]
)
@pytest.mark.parametrize("pipelining", [False, True], ids=["one by one", "pipelining"])
def test_a_refusal_is_blamed_on_who_it_is_about(
    at: str, reply: str, expected: type[Exception], pipelining: bool
) -> None:
    error = outcome(at, reply, pipelining=pipelining)
    assert type(error) is expected
    assert reply[:3] in str(error)
    assert "example:" not in str(error), "the server's words and the reader's address stay out"


def test_the_table_has_every_stage() -> None:
    assert {at for at, _, _ in TABLE} == set(STAGES)
