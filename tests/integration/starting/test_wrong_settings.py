"""A wrong setting is one line that names the variable, for every way of starting."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.tasks.celery_config import TASK_MODULES
from app.tasks.startup import TRY_AGAIN
from scripts.live.deployment import BEAT_IS_READY, WORKER_IS_READY, Deployment
from scripts.live.ports import free_port
from scripts.live.redis_server import RedisServer
from tests.integration.starting import without_privileges
from tests.integration.starting.shell import READY, Shell

WORKERS = ("celery -A app.tasks worker", "python -m app.tasks.worker")
BEATS = ("celery -A app.tasks beat", "python -m app.tasks.beat")
ADMIN = ("python -m app.admin database check", "python -m app.admin database upgrade")
FLOWER = "celery -A app.tasks flower"

OBEYING_PERMISSIONS = f"python {without_privileges.PATH}"
"""In front of a command, so that a superuser too may not write where it is forbidden."""

# Celery warns of a worker that the superuser runs, and has no setting against it.
SILENCE = {"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"}


def complaints(
    shell: Shell, lines: Sequence[str], prefix: str = "", **environment: str
) -> dict[str, list[str]]:
    """What each command says on stderr, apart from beat's own "Starting...".

    Fails where one does not end with 2.
    """
    typed = [f"{prefix} {line}".strip() for line in lines]
    ended = dict(zip(lines, shell.together(*typed, **SILENCE, **environment), strict=True))
    for line, done in ended.items():
        assert done.returncode == 2, line
        assert "Traceback" not in done.stdout + done.stderr
    return {
        line: [said for said in done.stderr.splitlines() if "beat: Starting..." not in said]
        for line, done in ended.items()
    }


def one_line_each(said: dict[str, list[str]], text: str) -> None:
    for line, (complaint, *more) in said.items():
        assert not more, line
        assert text in complaint, line


def test_a_redis_url_that_is_none_is_one_line_with_an_example(shell: Shell) -> None:
    said = complaints(shell, [*WORKERS, *BEATS, ADMIN[0], FLOWER], REDIS_URL="nonsense")
    one_line_each(said, "REDIS_URL: not a Redis URL: ")
    one_line_each(said, "for example REDIS_URL=redis://localhost:6379/0")


def test_an_unknown_time_zone_is_one_line_with_an_example(shell: Shell) -> None:
    said = complaints(shell, [WORKERS[0], BEATS[1]], CELERY_TIMEZONE="Mars/Olympus_Mons")
    one_line_each(said, "CELERY_TIMEZONE: 'Mars/Olympus_Mons' is no time zone ")
    one_line_each(said, "for example CELERY_TIMEZONE=US/Eastern")


def test_a_database_file_that_may_only_be_read_is_one_line(shell: Shell, live: Deployment) -> None:
    """Also where its schema is the newest, and nothing would have to be written yet."""
    assert shell.run(ADMIN[1]).returncode == 0
    for file in live.folder.glob(f"{live.database.name}*"):
        file.chmod(0o444)
    said = complaints(shell, [*WORKERS, *BEATS, ADMIN[0]], prefix=OBEYING_PERMISSIONS)
    one_line_each(said, f"DATABASE_URL: cannot use {live.database_url}: ")


def test_a_database_below_a_file_is_one_line(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/marketplace.sqlite3"
    said = complaints(shell, [WORKERS[0], BEATS[0], ADMIN[0]], DATABASE_URL=url)
    one_line_each(said, f"DATABASE_URL: cannot use {url}: ")


def test_a_mail_folder_that_may_not_be_written_to_is_one_line(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir(mode=0o555)
    said = complaints(shell, WORKERS, prefix=OBEYING_PERMISSIONS, SMTP_URL=f"maildir:{folder}")
    one_line_each(said, f"SMTP_URL: cannot write to the mail folder {folder} (Permission denied)")


def test_a_beat_entry_without_a_task_is_one_line_and_nothing_else(shell: Shell) -> None:
    line = "celery -A tests.integration.starting.bad_schedule beat"
    refused = shell.run(line)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "beat entry 'remind': there is no task 'app.tasks.bookings.send_due_reminder': "
        "did you mean 'app.tasks.bookings.send_due_reminders'?\n"
    )


def test_a_module_of_tasks_that_does_not_exist_is_one_line(shell: Shell) -> None:
    missing = "from importlib import util; util.find_spec = lambda name: None"
    refused = shell.run(f'python -c "{missing}; import app.tasks"')
    assert refused.returncode == 2
    assert refused.stderr == (
        "TASK_MODULES in app/tasks/celery_config.py: there is no module "
        f"app.tasks.{TASK_MODULES[0]}\n"
    )


def test_a_mistyped_queue_is_one_line_with_those_that_there_are(shell: Shell) -> None:
    for option in ("-Q email,emial", "-X emial"):
        said = complaints(shell, [f"{line} {option}" for line in WORKERS])
        one_line_each(said, f"{option[:2]} emial: there is no queue 'emial': did you mean 'email'?")


def test_a_redis_that_refuses_us_is_one_line_that_says_why(
    shell: Shell, own_redis: RedisServer
) -> None:
    """One that is away is waited for; one that says no would say no for ever."""
    lines = [*WORKERS, *BEATS]
    said = complaints(shell, lines, REDIS_URL=own_redis.url.removesuffix("/0") + "/99")
    one_line_each(said, "REDIS_URL: Redis refuses: DB index is out of range")
    with own_redis.client() as client:
        client.config_set("requirepass", "secret")
        said = complaints(shell, lines, REDIS_URL=own_redis.url.replace("//", "//:wrong@"))
        one_line_each(said, "REDIS_URL: Redis refuses: ")
        assert "wrong@" not in str(said)


@pytest.mark.timeout(120)
def test_a_worker_whose_clock_is_ahead_stops_when_a_redis_that_was_away_answers(
    shell: Shell, own_redis: RedisServer
) -> None:
    """Before it looks for messages of the dead: it would take the living ones' for theirs."""
    own_redis.stop()
    worker = shell.start(
        "celery -A tests.integration.starting.clock_ahead worker --loglevel=info",
        REDIS_URL=own_redis.url,
    )
    worker.wait_for_line("Cannot connect to redis", timeout=READY)
    own_redis.start()
    assert worker.wait(READY) == TRY_AGAIN
    (line,) = [line for line in worker.log_text().splitlines() if "set the clock (NTP)" in line]
    assert "clock is +120 s off" in line
    assert "ready." not in worker.log_text()


@pytest.mark.timeout(180)
def test_a_misspelt_variable_is_one_warning_at_each_start(shell: Shell) -> None:
    wrong = {"CELERY_TIMEZNOE": "Mars/Base", "REDIS_HOST": "elsewhere"}
    warning = (
        "CELERY_TIMEZNOE: not a variable that this program reads. Did you mean CELERY_TIMEZONE?"
    )
    running = [shell.start(line, **wrong) for line in (WORKERS[1], BEATS[1])]
    flower = shell.start(f"{FLOWER} --port={free_port()}", **wrong)
    ended = shell.together("python -m app.tasks.health", ADMIN[0], **wrong)
    assert [done.stderr for done in ended] == [f"{warning}\n"] * 2
    for process, ready in zip(
        [*running, flower], (WORKER_IS_READY, BEAT_IS_READY, "Visit me at"), strict=True
    ):
        process.wait_for_line(ready, timeout=READY)
        assert process.log_text().count(warning) == 1, process
        assert "REDIS_HOST" not in process.log_text()
        assert "Mars" not in process.log_text()
