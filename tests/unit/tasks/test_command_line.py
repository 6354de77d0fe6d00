"""Which command a command line is."""

import pytest

from app.tasks.command_line import celery_command, program


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/srv/.venv/bin/celery -A app.tasks worker -l info", "worker"),
        ("/srv/.venv/bin/celery --app=app.tasks beat", "beat"),
        ("-m celery -A app.tasks call app.tasks.health.health_check", "call"),
        ("-P -m celery -A app.tasks flower --port=5555", "flower"),
        ("-m app.tasks.worker -Q beat", "worker"),
        ("-m app.tasks.beat", "beat"),
        ("-mapp.tasks.beat", "beat"),
        ("-X dev -W error -m app.tasks.worker", "worker"),
        ("-Xdev -Im celery -A app.tasks beat", "beat"),
        ("-W ignore -OOm app.tasks.worker -c 2", "worker"),
        ("--check-hash-based-pycs never -B /srv/.venv/bin/celery -A app.tasks flower", "flower"),
        ("app.tasks.worker", None),
        ("-m", None),
        ("-X", None),
        ("- celery worker", None),
        ("/srv/.venv/bin/celery --help", None),
        ("-m app.admin outbox status", None),
        ("-m pytest tests/worker", None),
        ("manage.py celery worker", None),
        ("-c pass", None),
        ("", None),
    ],
)
def test_a_command_is_known_by_its_words(line: str, command: str | None) -> None:
    assert celery_command(line.split()) == command


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("-m app.tasks.worker -X dev", ""),
        ("-X dev -Wignore -u -m app.tasks.worker", "-X dev -Wignore -u"),
        ("-uIm app.tasks.worker -c 2", "-uI"),
        ("-O /srv/.venv/bin/celery -A app.tasks worker", "-O"),
        ("-B -c pass", "-B"),
        ("-V", "-V"),
    ],
)
def test_the_interpreters_options_are_told_from_the_programs(line: str, options: str) -> None:
    assert list(program(line.split()).options) == options.split()


def test_the_programs_arguments_are_all_that_follows_it() -> None:
    for line in ("-m app.tasks.worker -c 2", "-mapp.tasks.worker -c 2", "celery -c 2"):
        assert list(program(line.split()).arguments) == ["-c", "2"], line
