"""A mail server that a test can talk to without a socket."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage as ReceivedMail

from app import db
from app.adapters.mailer import MailServerUnavailableError


class WorkerKilledError(BaseException):
    """The process ends here, as far as the code under test can see."""

    ends_its_process = True


def parsed(message: bytes) -> ReceivedMail:
    return message_from_bytes(message, policy=policy.default)


@dataclass
class FakeMailer:
    """Accepts what no fault is set for, and refuses to be called inside a transaction."""

    received: list[ReceivedMail] = field(default_factory=list)
    """What the server has accepted; its answer may not have arrived."""
    envelopes: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0
    down: bool = False
    faults: dict[str, list[Exception]] = field(default_factory=dict)
    """For each reader's address: what its next mails raise, before the message is sent."""
    before_data: Callable[[], object] = lambda: None
    """What happens just before the sender is asked whether to proceed."""
    ahead: float = 0.0
    """Seconds that may pass between that question and the message."""
    after_acceptance: Callable[[], object] = lambda: None
    """What happens after the server has accepted a mail and before its answer arrives."""

    before_close: Callable[[], object] = lambda: None
    """What happens before a connection is closed in peace."""

    place: str = "mail.example:25"

    def check(self) -> None:
        pass

    @contextmanager
    def open(self) -> Iterator["FakeMailer"]:
        db.refuse_network_in_transaction()
        if self.down:
            raise MailServerUnavailableError("connection refused")
        self.connections += 1
        yield self
        self.before_close()

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
        faults = self.faults.get(recipient)
        if faults:
            raise faults.pop(0)
        self.before_data()
        if not proceed(self.ahead):
            return False
        self.received.append(parsed(message))
        self.envelopes.append((sender, recipient))
        self.after_acceptance()
        return True

    def message_ids(self) -> list[str]:
        return [mail["Message-ID"] for mail in self.received]
