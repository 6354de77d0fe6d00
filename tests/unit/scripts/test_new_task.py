"""``scripts/new_task``: what it writes, what it refuses, and that the tests then pass."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from app.tasks.celery_config import TASK_MODULES
from scripts import new_task
from scripts.live.deployment import REPOSITORY

NAME = "oddments.send_monthly"
"""Of a module that no marketplace has: these tests also run where a task was added."""
NEW = {"app/tasks/oddments.py", "app/services/oddments.py", "tests/unit/tasks/test_oddments.py"}
MODULES, QUEUES = "app/tasks/celery_config.py", "app/routing.py"
COPY_SECONDS = 900
"""Half a minute of processor time, which a busy machine stretches."""
PARTS = ("app/tasks", "app/services", "app/routing.py", "docs/schedule.md", "README.md")
NOT_COPIED = shutil.ignore_patterns(
    ".*_cache", ".git", ".hypothesis", ".tox", ".venv", "__pycache__", "logs", "var"
)
IN_THE_COPY = (
    *("tests/unit/tasks/test_celery_config.py", "tests/unit/tasks/test_timetable.py"),
    *("tests/unit/test_docs.py", "tests/unit/test_routing.py", "tests/unit/test_compose.py"),
    *("tests/unit/loadtests/test_work.py", "tests/unit/loadtests/test_scenarios.py"),
    *("tests/unit/loadtests/test_objectives.py", "tests/unit/admin/test_schedule.py"),
    "tests/simulation/marketplace/test_timetable.py",
    "tests/simulation/marketplace/test_replay.py::test_nobody_comes_after_the_last_hour",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """As much of the repository as is read and written."""
    for part in (*PARTS, "pyproject.toml", "tests/unit/tasks"):
        source, copy = REPOSITORY / part, tmp_path / part
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, ignore=NOT_COPIED)
        else:
            shutil.copy(source, copy)
    return tmp_path


def contents(root: Path) -> dict[str, str]:
    return {
        str(file.relative_to(root)): file.read_text()
        for file in root.rglob("*")
        if file.suffix in {".md", ".py", ".toml", ".yml"}
    }


def written(root: Path, *arguments: str) -> set[str]:
    """The paths that a call has changed or made."""
    before = contents(root)
    assert new_task.main(arguments, root) == 0
    return {path for path, text in contents(root).items() if before.get(path) != text}


@pytest.mark.parametrize(
    ("options", "tables"),
    [
        ([], {MODULES}),
        (["--every", "1h"], {MODULES, "docs/schedule.md"}),
        (["--queue", "celery"], {MODULES}),
        (["--queue", "maintenance"], {MODULES, QUEUES, "README.md"}),
    ],
    ids=["task", "beat entry", "default queue", "other queue"],
)
def test_a_new_module_is_three_files_and_a_row_in_each_table(
    root: Path, options: Sequence[str], tables: set[str]
) -> None:
    assert written(root, NAME, *options) == NEW | tables


@pytest.mark.parametrize("module", TASK_MODULES)
def test_an_existing_module_gets_one_more_function(root: Path, module: str) -> None:
    task, service = f"app/tasks/{module}.py", f"app/services/{module}.py"
    before = contents(root)
    changed = written(root, f"{module}.count_ended")
    assert changed == {task, service, f"tests/unit/tasks/test_{module}_count_ended.py"}
    for path in (task, service):
        was, now = (functions(text.get(path, "")) for text in (before, contents(root)))
        assert now == was | {"count_ended"}
    # The order of imports needs the whole repository, as below.
    ran(root, sys.executable, "-m", "ruff", "check", "--ignore=I001", *changed)


def functions(text: str) -> set[str]:
    return {each.name for each in ast.parse(text).body if isinstance(each, ast.FunctionDef)}


def test_a_second_task_of_a_new_module_is_written_beside_the_first(root: Path) -> None:
    written(root, NAME)
    assert written(root, "oddments.send_late") == {
        "app/tasks/oddments.py",
        "app/services/oddments.py",
        "tests/unit/tasks/test_oddments_send_late.py",
    }


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (["--every", "1m"], "* * * * *"),
        (["--every", "15m"], "*/15 * * * *"),
        (["--every", "60m"], "0 * * * *"),
        (["--every", "6h"], "0 */6 * * *"),
        (["--every", "1d"], "0 0 * * *"),
        (["--crontab", "0 3 1 * *"], "0 3 1 * *"),
        (["--crontab", "05  03 * * *"], "5 3 * * *"),
        (["--crontab", "30 8-17 * * mon-fri"], "30 8-17 * * mon-fri"),
    ],
)
def test_a_beat_entry_is_due_when_it_was_asked_for(
    root: Path, options: Sequence[str], fields: str
) -> None:
    written(root, NAME, *options)
    row = (root / "docs/schedule.md").read_text().partition("| `oddments-send-monthly` |")[2]
    assert row.split("|")[:2] == [f" `app.tasks.{NAME}` ", f" `{fields}` "]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["oddments"], "'' is not a name in snake_case"),
        (["oddments.send-monthly"], "'send-monthly' is not a name in snake_case"),
        (["Invoices.send"], "'Invoices' is not a name"),
        (["oddments.2go"], "'2go' is not a name"),
        (["../x.send"], "is not a name"),
        (["a.b.c"], "'b.c' is not a name"),
        ([f"oddments.{'a' * 41}"], "1 to 40 characters"),
        (["oddments.import"], "'import' is a keyword"),
        (["class.send"], "'class' is a keyword"),
        (["oddments.test_send"], "pytest would run 'test_send' as a test"),
        (["oddments.oddments"], "would shadow its service"),
        (["oddments.print"], "'print' would shadow"),
        (["list.send"], "'list' would shadow"),
        (["oddments.clock"], "'clock' would shadow"),
        (["app.send"], "'app' would shadow"),
        (["db.send"], "'db' would shadow"),
        (["oddments.session"], "'session' would shadow"),
        (["base.send"], "app/tasks/base.py exists and is not a module of tasks"),
        (["bookings.mark_no_shows"], "app/tasks/bookings.py has a 'mark_no_shows'"),
        (["bookings.lessons"], "app/tasks/bookings.py has a 'lessons'"),
        (["bookings.book"], "app/services/bookings.py has a 'book'"),
        ([NAME, "--queue", "emial"], "--queue emial: not a queue. Use one of bookings, email"),
        (
            ["bookings.archive", "--queue", "email"],
            "all tasks of bookings go to the queue bookings",
        ),
        (["booking.reminders", "--every", "1h"], "has a beat entry 'booking-reminders'"),
        ([NAME, "--every", "7m"], "--every 7m: not a part of an hour"),
        ([NAME, "--every", "0h"], "--every 0h: not a part"),
        ([NAME, "--every", "2d"], "--every 2d: not a part"),
        ([NAME, "--every", "hourly"], "--every hourly: not a part"),
        ([NAME, "--crontab", "0 3"], "--crontab '0 3': not five fields"),
        ([NAME, "--crontab", "0 3 * * *\n"], "not five fields"),
        ([NAME, "--crontab", '0 3 * * "'], "not five fields"),
        ([NAME, "--crontab", "61 * * * *"], "--crontab '61 * * * *': "),
        ([NAME, "--crontab", "0 0 30 2 *"], "never occurs in month_of_year"),
        ([NAME, "--crontab", "0 3 * * *", "--every", "1h"], "not allowed with argument"),
        ([], "the following arguments are required: MODULE.FUNCTION"),
        ([NAME, "a\nb"], "unrecognized arguments: a b"),
        ([NAME, "--evry", "1h"], "unrecognized arguments: --evry 1h"),
    ],
    ids=str,
)
def test_what_cannot_be_written_is_refused_in_one_line_and_changes_nothing(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: Sequence[str], said: str
) -> None:
    before = contents(root)
    assert new_task.main(arguments, root) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("new_task: ")
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert contents(root) == before


def test_without_the_environment_of_a_developer_it_is_refused_in_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "celery.schedules", None)
    before = contents(root)
    assert new_task.main(["oddments.send_monthly", "--crontab", "0 3 1 * *"], root) == 2
    assert capsys.readouterr().err == (
        "new_task: celery is not installed for this Python. Run pip install -e '.[dev]' first\n"
    )
    assert contents(root) == before


def test_a_folder_in_the_place_of_the_service_is_refused(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "app/services/oddments").mkdir()
    assert new_task.main([NAME], root) == 2
    assert "app/services/oddments is a folder" in capsys.readouterr().err


def test_what_cannot_be_finished_leaves_nothing_half_done(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(root / "tests")
    before = contents(root)
    assert new_task.main([NAME, "--every", "1h"], root) == 2
    assert "test_oddments.py: No such file or directory" in capsys.readouterr().err
    assert contents(root) == before


@pytest.mark.integration
@pytest.mark.timeout(COPY_SECONDS)
@pytest.mark.parametrize("options", [[], ["--every", "1h"]], ids=["task", "beat entry"])
def test_in_a_copy_the_tests_pass_with_five_files_at_most(
    tmp_path: Path, options: Sequence[str]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(REPOSITORY, copy, ignore=NOT_COPIED)
    before = contents(copy)
    ran(copy, "scripts/new_task", NAME, *options)
    changed = sorted(path for path, text in contents(copy).items() if before.get(path) != text)
    assert len(changed) <= 5
    assert set(changed) >= NEW
    python = [path for path in changed if path.endswith(".py")]
    ran(copy, sys.executable, "-m", "ruff", "check", *python)
    ran(copy, sys.executable, "-m", "ruff", "format", "--check", *python)
    ran(copy, sys.executable, "-m", "mypy", "app/tasks/oddments.py", "app/services/oddments.py")
    pytest = (sys.executable, "-m", "pytest", "-q", "-p", "no:randomly")
    ran(copy, *pytest, "tests/unit/tasks/test_oddments.py", *IN_THE_COPY)
    service = copy / "app/services/oddments.py"
    service.write_text(service.read_text().replace("<= now", "> now"))
    ran(copy, *pytest, "tests/unit/tasks/test_oddments.py", status=1)


@pytest.mark.integration
@pytest.mark.timeout(COPY_SECONDS)
def test_in_a_copy_the_tests_say_what_a_queue_of_its_own_needs(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(REPOSITORY, copy, ignore=NOT_COPIED)
    ran(copy, "scripts/new_task", NAME)
    routing = copy / "app/routing.py"
    rows = {
        '    QueueSpec("maintenance"': '    QueueSpec("oddments", urgency=2, bulk=True),\n',
        '    "notifications": ': '    "oddments": "oddments",\n',
    }
    text = routing.read_text()
    for before, row in rows.items():
        assert text.count(before) == 1
        text = text.replace(before, row + before)
    routing.write_text(text)
    tests = (test for test in IN_THE_COPY if test.startswith("tests/unit"))
    said = ran(copy, sys.executable, "-m", "pytest", "-q", "--tb=short", *tests, status=1)
    bulk = "cache,analytics,oddments,maintenance"
    for line in (
        "add to README.md: | oddments | 2 | `app.tasks.oddments.*` |",
        f"docker-compose.celery.yml, celery_worker_bulk: write -Q {bulk}",
        f"docs/operations.md: write {bulk} for cache,analytics,maintenance",
        "add in_queue for ['oddments'] to loadtests/objectives.toml",
        "add a Call of a task of ['oddments'] to loadtests/_work.py",
        "add a user of ['oddments'] to loadtests",
        "add a Flood of ['oddments'] to loadtests",
    ):
        assert line in said
    assert "7 failed" in said


def ran(folder: Path, *command: str, status: int = 0) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == status, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout
