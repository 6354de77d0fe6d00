"""The database's commands, and a database that many processes make at once."""

from scripts.live.deployment import BEAT_IS_READY, WORKER_IS_READY, Deployment
from scripts.live.ports import HOST
from tests.integration.starting.shell import READY, Shell

UPGRADE = "python -m app.admin database upgrade"
CHECK = "python -m app.admin database check"


def test_a_missing_database_is_checked_made_and_checked(shell: Shell) -> None:
    done = [shell.run(line) for line in (CHECK, UPGRADE, CHECK, UPGRADE)]
    assert [ended.returncode for ended in done] == [1, 0, 0, 0]
    said = [ended.stdout.rstrip() for ended in done]
    assert said[0].endswith(f"run {UPGRADE}")
    assert said[1].startswith("the database is now at revision ")
    assert said[2].endswith(", the newest")
    assert said[3].startswith("the database is already at revision ")
    assert [ended.stderr for ended in done] == [""] * 4


def test_bad_arguments_exit_2_and_say_what_would_be_right(shell: Shell) -> None:
    misspelt, nothing = shell.together(f"{UPGRADE}d", "python -m app.admin")
    assert [misspelt.returncode, nothing.returncode] == [2, 2]
    assert "'upgraded' (choose from 'upgrade', 'check')" in misspelt.stderr.replace('"', "'")
    assert "required: topic" in nothing.stderr


def test_workers_beats_and_upgrades_that_start_at_once_make_one_database(
    shell: Shell, live: Deployment
) -> None:
    """Eight processes; the file and its folder are not there."""
    url = f"sqlite:///{live.folder}/var/new/marketplace.sqlite3"
    workers = [
        shell.start(f"celery -A app.tasks worker -l info -n {name}@%h", DATABASE_URL=url)
        for name in ("one", "other")
    ]
    beats = [shell.start("celery -A app.tasks beat -l info", DATABASE_URL=url) for _ in range(2)]
    upgrades = shell.together(*[UPGRADE] * 4, DATABASE_URL=url)
    assert [ended.returncode for ended in upgrades] == [0] * 4, [e.stderr for e in upgrades]
    for worker in workers:
        worker.wait_for_line(WORKER_IS_READY, timeout=READY)
    for beat in beats:
        beat.wait_for_line(BEAT_IS_READY, timeout=READY)
    assert "newest" in shell.run(CHECK, DATABASE_URL=url).stdout
    assert sum("now at revision" in ended.stdout for ended in upgrades) <= 1
    said = "".join(process.log_text() for process in workers + beats)
    assert "ERROR" not in said
    assert "Traceback" not in said


def test_a_database_that_does_not_answer_is_75_so_that_a_supervisor_tries_again(
    shell: Shell,
) -> None:
    """A wrong setting is 2, after which deploy/systemd gives up."""
    nobody = f"postgresql+psycopg://instainstru:secret@{HOST}:1/instainstru"
    for line in ("celery -A app.tasks worker", "python -m app.tasks.beat"):
        ended = shell.run(line, DATABASE_URL=nobody)
        assert ended.returncode == 75, line
        (said,) = [said for said in ended.stderr.splitlines() if "DATABASE_URL" in said]
        assert "Connection refused" in said
        assert "secret" not in ended.stdout + ended.stderr
