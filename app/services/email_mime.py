"""From headers and bodies to the bytes of a mail: the one form of mail that goes out here.

The library joins headers and encoded bodies to the same bytes (a test compares), and takes
twice as long: it makes objects of the parts, asks each header again what it says, and looks for
lines to break.
"""

from binascii import b2a_qp
from collections.abc import Mapping
from email.policy import compat32

LONGEST_LINE = 78
"""Signs, without the line end (RFC 5322, 2.1.1)."""

_FOLDING = compat32.clone(linesep="\r\n")


def alternatives(headers: Mapping[str, str], bodies: Mapping[str, str], *, boundary: str) -> bytes:
    """A multipart/alternative mail (RFC 2046, 5.1.4) with CRLF line ends, 7-bit clean.

    ``headers`` are ASCII, and encoded where their text was not (RFC 2047). ``bodies`` maps the
    subtype of each text part to its text, whose lines end in LF, the plainest first.
    ``boundary`` begins with ``=_``, which cannot occur in a quoted-printable body (RFC 2045, 6.7).
    """
    mail = [
        f'Content-Type: multipart/alternative; boundary="{boundary}"\r\n'
        "MIME-Version: 1.0\r\n".encode(),
        *(_header(name, text) for name, text in headers.items()),
    ]
    for subtype, text in bodies.items():
        mail += [
            f"\r\n--{boundary}\r\n"
            f'Content-Type: text/{subtype}; charset="utf-8"\r\n'
            "MIME-Version: 1.0\r\n"
            "Content-Transfer-Encoding: quoted-printable\r\n\r\n".encode(),
            _quoted_printable(text),
        ]
    mail.append(f"\r\n--{boundary}--\r\n".encode())
    return b"".join(mail)


def fits(header: str, text: str) -> bool:
    """Whether a header's text stays as it is, on one line."""
    return (
        len(header) + 2 + len(text) <= LONGEST_LINE
        and text.isascii()
        and text.isprintable()
        and text == text.strip()
    )


def _header(name: str, text: str) -> bytes:
    if fits(name, text):
        return f"{name}: {text}\r\n".encode("ascii")
    return _FOLDING.fold_binary(name, text)


def _quoted_printable(text: str) -> bytes:
    return b2a_qp(text.encode()).replace(b"\n", b"\r\n")
