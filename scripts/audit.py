"""Known vulnerabilities and licences of what this project depends on.

``python -m scripts.audit`` asks pip-audit about every version in the lock, then compares
the licences of what is installed for the app with those that go with ours. Exit status 0:
nothing found, or no vulnerability service answered, which it says; 1: something found.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.arguments import command, run_command

LOCK = Path(__file__).resolve().parents[1] / "requirements-dev.lock"
OURSELVES = "instainstru-tasks"
CANNOT = 2
"""Exit status where nothing could be audited."""
TIMEOUT_SECONDS = 300
NO_SERVICE = re.compile(r"ConnectionError|Timeout|timed out|ServiceError|Failed to resolve")
NOT_RUN = "vulnerabilities: not run: no vulnerability service answers here"

COMPATIBLE = re.compile(
    r"\b(MIT|BSD|0BSD|Apache|ISC|PSF|Python Software Foundation|Python-2\.0|MPL|Mozilla"
    r"|Unlicense|Zope|ZPL|HPND|CNRI|CC0|Public Domain)\b",
    re.IGNORECASE,
)
"""Licences under which an MIT project may depend on something, and be sold with it."""
LESSER_GPL = re.compile(r"LGPL|Lesser General Public", re.IGNORECASE)
"""Also: such a library is used as it is, installed beside us, and may be replaced."""


@dataclass(frozen=True)
class Verdict:
    """What there is to say, and whether it is bad."""

    lines: tuple[str, ...]
    bad: bool = False


def of_vulnerabilities(report: Mapping[str, Any] | None) -> Verdict:
    """Judge pip-audit's JSON; ``None`` where it gave none, because no service answered."""
    if report is None:
        return Verdict((NOT_RUN,))
    dependencies = report["dependencies"]
    asked = [dependency for dependency in dependencies if "skip_reason" not in dependency]
    found = [
        f"vulnerable: {dependency['name']} {dependency['version']}: {vulnerability['id']}"
        f" (mended in {', '.join(vulnerability['fix_versions']) or 'no version yet'})"
        for dependency in asked
        for vulnerability in dependency["vulns"]
    ]
    if not asked:
        return Verdict((NOT_RUN,))
    skipped = [dependency["name"] for dependency in dependencies if "skip_reason" in dependency]
    lines = [f"vulnerabilities: {len(found)} in {len(asked)} packages", *found]
    if skipped:
        lines.append(f"vulnerabilities: not run for {len(skipped)}: {', '.join(skipped)}")
    return Verdict(tuple(lines), bad=bool(found))


def of_licences(licences: Mapping[str, str]) -> Verdict:
    """Judge what packages say of their licences, by their names."""
    wrong = [
        f"licence: {name}: {licence or 'it names none'}: does it go with MIT?"
        for name, licence in sorted(licences.items())
        if not (COMPATIBLE.search(licence) or LESSER_GPL.search(licence))
    ]
    lines = (f"licences: {len(licences)} packages, {len(wrong)} in doubt", *wrong)
    return Verdict(lines, bad=bool(wrong))


class NotAuditedError(Exception):
    """pip-audit could not do its work, and not for want of a service."""


def ask_about_vulnerabilities() -> Mapping[str, Any] | None:
    """pip-audit's answer about the lock; ``None`` where no service answers it."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(LOCK)]
    options = ["--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(
            [*command, *options, "--timeout=15"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None
    return read(done.stdout, done.stderr)


def read(answer: str, complaint: str) -> Mapping[str, Any] | None:
    """What pip-audit printed. Raises ``NotAuditedError`` where the network is not to blame."""
    try:
        report: Mapping[str, Any] = json.loads(answer)
    except json.JSONDecodeError as error:
        if NO_SERVICE.search(complaint):
            return None
        raise NotAuditedError(complaint.strip().rpartition("\n")[2] or "no answer") from error
    return report


def licences_of(name: str, extras: Iterable[str] = ()) -> dict[str, str]:
    """The licences of what ``name`` needs at run time, directly or not, as installed here."""
    licences: dict[str, str] = {}
    waiting = [(name, frozenset(extras))]
    while waiting:
        chosen, its_extras = waiting.pop()
        for line in metadata.requires(chosen) or ():
            needed = Requirement(line)
            wanted = canonicalize_name(needed.name)
            if wanted in licences or not _applies(needed, its_extras):
                continue
            licences[wanted] = _licence(metadata.metadata(wanted))
            waiting.append((wanted, frozenset(needed.extras)))
    return licences


def _applies(needed: Requirement, extras: frozenset[str]) -> bool:
    marker = needed.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""})


def _licence(found: Any) -> str:
    classifiers: Iterable[str] = found.get_all("Classifier") or ()
    named = [line for line in classifiers if line.startswith("License ::")]
    expression, text = found.get("License-Expression"), found.get("License")
    first = (text or "").strip().partition("\n")[0]
    return "; ".join(filter(None, [expression, *named, first]))


def main() -> int:
    command("audit", __doc__).parse_args()
    try:
        licences = licences_of(OURSELVES, extras=["postgres"])
    except metadata.PackageNotFoundError as error:
        print(f"audit: {error.name} is not installed: pip install -e '.[dev]'", file=sys.stderr)
        return CANNOT
    try:
        known = of_vulnerabilities(ask_about_vulnerabilities())
    except NotAuditedError as error:
        known = Verdict((f"vulnerabilities: pip-audit failed: {error}",), bad=True)
    verdicts = [known, of_licences(licences)]
    for verdict in verdicts:
        print("\n".join(verdict.lines))
    return 1 if any(verdict.bad for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
