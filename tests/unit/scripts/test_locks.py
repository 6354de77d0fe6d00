"""The two locks name the same versions, and the image's knows the hash of each file."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_ENTRY = re.compile(r"^([\w.-]+)==(\S+)((?:.*\\\n)*.*)", re.MULTILINE)


def entries(name: str) -> dict[str, tuple[str, str]]:
    """The version of each package of a lock, and what stands after it."""
    text = (ROOT / name).read_text()
    return {package: (version, rest) for package, version, rest in _ENTRY.findall(text)}


def test_the_image_runs_versions_that_were_tested() -> None:
    tested = {name: version for name, (version, _) in entries("requirements-dev.lock").items()}
    runs = {name: version for name, (version, _) in entries("requirements-image.lock").items()}
    assert {"celery", "psycopg", "redis"} <= runs.keys()
    assert runs.items() <= tested.items()


def test_each_file_that_the_image_may_install_has_its_hash() -> None:
    without = [
        name
        for name, (_, rest) in entries("requirements-image.lock").items()
        if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", rest)
    ]
    assert without == []


def test_the_locks_name_no_registry() -> None:
    for name in ("requirements-dev.lock", "requirements-image.lock"):
        assert "://" not in (ROOT / name).read_text()
