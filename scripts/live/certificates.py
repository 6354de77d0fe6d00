"""A certificate authority of our own, for servers on 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.live.ports import HOST

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class NoOpenSslError(RuntimeError):
    """There is no openssl command; the message says so in one line."""


@dataclass(frozen=True)
class Certificates:
    """Files in PEM format: the authority's certificate, and one that it signed, with its key."""

    ca: Path
    certificate: Path
    key: Path


def certificates(folder: Path) -> Certificates:
    """A new authority, and a certificate for 127.0.0.1 alone, valid for two days."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NoOpenSslError("no openssl to make certificates with: apt install openssl")
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    ca_key, request, extensions = (folder / name for name in ("ca.key", "server.csr", "server.ext"))
    # What RFC 5280 asks for: Python refuses less from 3.13 on (VERIFY_X509_STRICT).
    extensions.write_text(
        f"subjectAltName=IP:{HOST}\n"
        "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\n"
        "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
        encoding="ascii",
    )
    for command in (
        (
            *("req", "-x509", "-days", "2", *KEY, "-subj", "/CN=A private authority"),
            *("-addext", "keyUsage=critical,keyCertSign", "-keyout", ca_key, "-out", made.ca),
        ),
        ("req", *KEY, "-subj", "/CN=A server", "-keyout", made.key, "-out", request),
        (
            *("x509", "-req", "-days", "2", "-in", request, "-CA", made.ca, "-CAkey", ca_key),
            *("-CAcreateserial", "-extfile", extensions, "-out", made.certificate),
        ),
    ):
        subprocess.run([openssl, *command], check=True, capture_output=True)
    return made
