import quopri
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.policy import compat32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.services.email_mime import alternatives

BOUNDARY = "=_reminder.1.2"

# What is not printable is taken out of names before, and a lone surrogate cannot be encoded.
lines = st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")))
texts = st.lists(lines, min_size=1).map(lambda text: "\n".join([*text, ""]))


def as_the_library_writes(headers: dict[str, str], bodies: dict[str, str]) -> bytes:
    mail = MIMEMultipart("alternative", boundary=BOUNDARY)
    for name, value in headers.items():
        mail[name] = value
    for subtype, text in bodies.items():
        part = MIMENonMultipart("text", subtype, charset="utf-8")
        part["Content-Transfer-Encoding"] = "quoted-printable"
        part.set_payload(quopri.encodestring(text.encode()).decode("ascii"))
        mail.attach(part)
    return mail.as_bytes(policy=compat32.clone(linesep="\r\n"))


def split(mail: bytes) -> list[bytes]:
    """What the mail has between its boundaries, without their line ends."""
    return mail.split(b"\r\n--" + BOUNDARY.encode())


@given(plain=texts, html=texts)
def test_headers_and_bodies_are_joined_as_the_library_joins_them(plain: str, html: str) -> None:
    headers = {"To": "Ada <ada@people.example>", "Subject": "Guitar"}
    bodies = {"plain": plain, "html": html}
    written = alternatives(headers, bodies, boundary=BOUNDARY)
    assert written == as_the_library_writes(headers, bodies)


names = st.sampled_from(["To", "Subject", "Message-ID", "X-Quite-A-Long-Name"])
values = st.text(max_size=120) | st.text(alphabet='aB <>@=?.,;"\t\r\n', max_size=120)


@given(name=names, value=values)
@example(name="Subject", value="of\r\n two lines")
@example(name="Subject", value="a\x00b")
@example(name="Subject", value="=?utf-8?q?=D0=96?=\n =?utf-8?q?=D0=96?=")
def test_a_header_is_written_as_the_library_writes_it(name: str, value: str) -> None:
    headers = {name: value, "Date": "today"}
    try:
        expected = as_the_library_writes(headers, {"plain": "x\n"})
    except Exception as error:
        with pytest.raises(type(error)):
            alternatives(headers, {"plain": "x\n"}, boundary=BOUNDARY)
    else:
        assert alternatives(headers, {"plain": "x\n"}, boundary=BOUNDARY) == expected


@given(text=texts)
def test_a_body_arrives_as_it_was_in_short_lines_of_seven_bits(text: str) -> None:
    _, part, end = split(alternatives({}, {"plain": text}, boundary=BOUNDARY))
    body = part.partition(b"\r\n\r\n")[2]
    assert quopri.decodestring(body).replace(b"\r\n", b"\n") == text.encode()
    assert all(len(line) <= 76 for line in body.split(b"\r\n"))  # RFC 2045, 6.7
    assert body.isascii()
    assert end == b"--\r\n"


@given(text=st.text(alphabet="=_-reminder.12\n "))
def test_no_body_looks_like_a_boundary(text: str) -> None:
    text = f"{text}--{BOUNDARY}\n"
    assert len(split(alternatives({}, {"plain": text}, boundary=BOUNDARY))) == 3
