"""A certificate authority of our own, for servers on 127.0.0.1."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scripts.live.ports import HOST

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


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
    ca_key = folder / "ca.key"
    names = f"subjectAltName=IP:{HOST}"
    subjects = (
        ("-subj", "/CN=A private authority", "-keyout", ca_key, "-out", made.ca),
        (
            *("-subj", "/CN=A server", "-addext", names, "-CA", made.ca, "-CAkey", ca_key),
            *("-keyout", made.key, "-out", made.certificate),
        ),
    )
    for subject in subjects:
        subprocess.run([openssl, "req", "-x509", *KEY, *subject], check=True, capture_output=True)
    return made
