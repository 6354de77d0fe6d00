"""Which command a command line is."""

import pytest

from app.tasks.command_line import celery_command


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("/srv/.venv/bin/celery -A app.tasks worker -l info", "worker"),
        ("/srv/.venv/bin/celery --app=app.tasks beat", "beat"),
        ("-m celery -A app.tasks call app.tasks.health.health_check", "call"),
        ("-P -m celery -A app.tasks flower --port=5555", "flower"),
        ("-m app.tasks.worker -Q beat", "worker"),
        ("-m app.tasks.beat", "beat"),
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
