"""What the sink answers, byte by byte."""

from typing import Any

import pytest

from scripts.benchmarks.smtp_sink import Arrived, SmtpProtocol


class FakeTransport:
    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.packets = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        self.said += data.splitlines()
        self.packets += bool(data)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def talk() -> tuple[SmtpProtocol, FakeTransport, Arrived]:
    arrived, transport = Arrived(), FakeTransport()
    protocol = SmtpProtocol(arrived)
    protocol.connection_made(transport)
    return protocol, transport, arrived


def mail(message_id: str, body: str = "hello") -> bytes:
    text = f"Subject: x\r\nMessage-ID: <{message_id}>\r\n\r\n{body}\r\n.\r\n"
    return b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + text.encode()


def test_a_mail_counts_when_its_last_line_has_come(talk: Any) -> None:
    protocol, transport, arrived = talk
    whole = mail("1")
    protocol.data_received(whole[:-3])
    assert arrived.as_json()["accepted"] == 0
    protocol.data_received(whole[-3:])
    assert arrived.as_json()["accepted"] == 1
    assert transport.said[-1].startswith(b"250")


def test_a_message_id_that_comes_twice_is_doubled(talk: Any) -> None:
    protocol, _, arrived = talk
    for message_id in ("1", "2", "1"):
        protocol.data_received(mail(message_id))
    seen = arrived.as_json()
    assert (seen["accepted"], seen["distinct"], seen["doubled"]) == (3, 2, 1)


def test_commands_may_come_in_pieces(talk: Any) -> None:
    protocol, _, arrived = talk
    for byte in mail("1"):
        protocol.data_received(bytes([byte]))
    assert arrived.as_json()["distinct"] == 1


def test_the_answers_to_commands_that_came_together_go_together(talk: Any) -> None:
    protocol, transport, _ = talk
    before = transport.packets
    commands, message = mail("1").split(b"Subject", 1)
    protocol.data_received(commands)
    assert [line[:3] for line in transport.said[-3:]] == [b"250", b"250", b"354"]
    assert transport.packets - before == 1
    protocol.data_received(b"Subject" + message)
    assert transport.packets - before == 2


def test_quit_closes_and_nonsense_is_refused(talk: Any) -> None:
    protocol, transport, _ = talk
    protocol.data_received(b"WHAT\r\nQUIT\r\n")
    assert transport.said[1].startswith(b"500")
    assert transport.said[2].startswith(b"221")
    assert transport.closed
