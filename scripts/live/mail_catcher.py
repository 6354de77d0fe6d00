"""A real SMTP server that keeps what it accepts, and misbehaves when told to.

``python -m scripts.live.mail_catcher --port 0 --maildir DIR`` runs it by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from scripts.arguments import command, number
from scripts.live.mailbox import Mailbox
from scripts.live.ports import HOST, free_port

Stage = Literal["mail", "rcpt", "data"]
Match = Callable[[str], bool]


def anybody(recipient: str) -> bool:
    """Matches every recipient."""
    return True


@dataclass
class Fault:
    """What goes wrong ``times`` times (None: until ``heal``) for recipients that match."""

    stage: Stage
    reply: str | None  # None: no reply at all, the connection is closed
    times: int | None
    match: Match

    def strikes(self, stage: Stage, recipients: list[str]) -> bool:
        """Whether it happens now; that time is then used up."""
        if self.stage != stage or self.times == 0 or not any(map(self.match, recipients)):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class MailCatcher:
    """A context in which an SMTP server listens on ``url``, a port of 127.0.0.1.

    Each message that it accepts is a file in ``maildir`` before the client
    hears 250, with the envelope in ``X-Envelope-From`` and ``X-Envelope-To``.
    It runs in a thread; faults may be set and lifted while it runs.
    """

    def __init__(self, maildir: Path, *, port: int | None = None, pipelining: bool = False) -> None:
        """``pipelining``: say that several commands may come at once (RFC 2920), as most do."""
        self.maildir = maildir
        self.pipelining = pipelining
        self.port = port or free_port()
        self.mailbox = Mailbox(maildir)
        self._faults: list[Fault] = []
        self._delays: dict[Stage, float] = {}
        self._counter = itertools.count()
        self._controller: Controller | None = None
        for part in ("tmp", "new", "cur"):
            (maildir / part).mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """``smtp://127.0.0.1:PORT``."""
        return f"smtp://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Accept connections (again), on the same port."""
        self._controller = Controller(_Handler(self), hostname=HOST, port=self.port)
        self._controller.start()

    def stop(self) -> None:
        """Refuse connections; open ones are closed."""
        if self._controller is not None:
            self._controller.stop()
            self._controller = None

    def reject(
        self,
        code: int,
        text: str = "not now",
        *,
        times: int | None = None,
        match: Match = anybody,
        at: Stage = "rcpt",
    ) -> None:
        """Answer ``code text`` at MAIL, at RCPT, or after DATA, instead of accepting.

        ``times`` answers (None: until ``heal``), for recipients that match; at MAIL for senders.
        """
        self._faults.append(Fault(at, f"{code} {text}", times, match))

    def drop_after_data(self, *, times: int | None = 1, match: Match = anybody) -> None:
        """Keep the message, then close the connection without an answer.

        The uncertain case: the client cannot know that its mail was accepted.
        """
        self._faults.append(Fault("data", None, times, match))

    def delay(self, seconds: float, *, at: Stage = "data") -> None:
        """Let so many seconds pass before each answer to RCPT, or after DATA.

        The message is kept after them: whoever hangs up meanwhile has sent nothing.
        """
        self._delays[at] = seconds

    def heal(self) -> None:
        """Lift all faults and delays."""
        self._faults.clear()
        self._delays.clear()

    def _fault(self, stage: Stage, recipients: list[str]) -> Fault | None:
        return next((f for f in list(self._faults) if f.strikes(stage, recipients)), None)

    def _keep(self, envelope: Envelope) -> None:
        head = [f"X-Envelope-From: {envelope.mail_from}"]
        head += [f"X-Envelope-To: {recipient}" for recipient in envelope.rcpt_tos]
        # The maildir convention: local line ends, a unique name (that sorts by
        # arrival), and a file that is complete when it appears in "new".
        content = (envelope.original_content or b"").replace(b"\r\n", b"\n")
        name = f"{time.time_ns()}.{os.getpid()}_{next(self._counter):06}.{HOST}"
        draft = self.maildir / "tmp" / name
        draft.write_bytes("\n".join([*head, ""]).encode() + content)
        draft.rename(self.maildir / "new" / name)


class _Handler:
    """The hooks that aiosmtpd calls by name."""

    def __init__(self, catcher: MailCatcher) -> None:
        self._catcher = catcher

    async def handle_EHLO(
        self,
        server: SMTP,
        session: Session,
        envelope: Envelope,
        hostname: str,
        responses: list[str],
    ) -> list[str]:
        session.host_name = hostname
        more = ["250-PIPELINING"] if self._catcher.pipelining else []
        return [*responses[:-1], *more, responses[-1]]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        fault = self._catcher._fault("mail", [address])
        if fault is not None and fault.reply is not None:
            return fault.reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(self._catcher._delays.get("rcpt", 0.0))
        fault = self._catcher._fault("rcpt", [address])
        if fault is not None and fault.reply is not None:
            return fault.reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self._catcher._delays.get("data", 0.0))
        fault = self._catcher._fault("data", list(envelope.rcpt_tos))
        if fault is not None and fault.reply is not None:
            return fault.reply
        self._catcher._keep(envelope)
        if fault is not None and server.transport is not None:
            server.transport.abort()  # type: ignore[attr-defined]
        return "250 OK, kept"


def main() -> None:
    """Catch mail until SIGTERM or Ctrl-C."""
    parser = command("live.mail_catcher", "An SMTP server that keeps each mail as a file.")
    parser.add_argument("--port", type=number(0, 65535), default=0, help="0 (default): a free one")
    parser.add_argument("--maildir", type=Path, required=True)
    arguments = parser.parse_args()
    stopped = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stopped)  # before the thread: it inherits this
    with MailCatcher(arguments.maildir, port=arguments.port) as catcher:
        print(f"catching mail on {catcher.url}, kept in {catcher.maildir}", flush=True)
        signal.sigwait(stopped)


if __name__ == "__main__":
    main()
