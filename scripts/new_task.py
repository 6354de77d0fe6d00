"""Write a new task: its module, its service, its test and its rows in the tables.

    scripts/new_task invoices.send_monthly
    scripts/new_task invoices.send_monthly --crontab "0 3 1 * *"
    scripts/new_task invoices.delete_drafts --every 1h --queue maintenance

A module that exists gets one more task. Exit status: 0 written; 2 refused, one line on
stderr says why and nothing has changed.
"""

from __future__ import annotations

import argparse
import ast
import builtins
import keyword
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
CONFIG, ROUTING = "app/tasks/celery_config.py", "app/routing.py"
README, SCHEDULE = "README.md", "docs/schedule.md"
LONGEST_NAME = 40
IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CRONTAB_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
DEVELOPERS_ENVIRONMENT = "Run pip install -e '.[dev]' first"
REASON = "one run does all that is due by now"

TASK_IMPORTS = (
    "from typing import Any",
    "from app import clock",
    "from app.services import $module",
    "from app.tasks.base import BaseTask",
    "from app.tasks.celery_app import celery_app",
)
TASK = '''
@celery_app.task(base=BaseTask, bind=True, name="app.tasks.$module.$function")
def $function(self: BaseTask) -> dict[str, Any]:
    """Count the lessons that have ended by now."""
    with self.transaction() as session:
        return {"ended": $module.$function(session, now=clock.utcnow())}
'''

SERVICE_IMPORTS = (
    "from datetime import datetime",
    "from sqlalchemy import func, select",
    "from sqlalchemy.orm import Session",
    "from app.models import Booking",
)
SERVICE = '''
def $function(session: Session, *, now: datetime) -> int:
    """Return the number of lessons that have ended by ``now`` (UTC).

    An example from ``scripts/new_task`` that works. Replace it, and its test, with the
    rule of this task.
    """
    ended = select(func.count()).select_from(Booking).where(Booking.ends_at <= now)
    return session.scalars(ended).one()
'''

TEST_IMPORTS = (
    "from datetime import timedelta",
    "from app import db, outbox",
    "from app.tasks.$module import $function",
    "from tests.builders import a_lesson",
    "from tests.fakes import FakeBroker",
    "from tests.tracing import deliver",
)
TEST = """
def test_${function}_counts_what_has_ended_and_runs_once(broker: FakeBroker) -> None:
    now = broker.clock.now
    with db.transaction() as session:
        for days in (-2, -1, 1):
            a_lesson(session, starts_at=now + timedelta(days=days))
        outbox.enqueue(session, $function.name)
    (message,) = broker.pushed
    assert deliver($function, message).result == {"ended": 2}
    assert deliver($function, message).result["status"] == "skipped", "delivered again"
"""

BEAT_ENTRY = f"""    Periodic(
        "$entry",
        "app.tasks.$module.$function",
        crontab($arguments),
        CatchUp.ONCE,  # {REASON}
    ),
"""


class RefusedError(Exception):
    """The task cannot be written; the message is one line that says what to do instead."""


@dataclass(frozen=True)
class Wanted:
    """A task to write."""

    module: str
    function: str
    crontab: tuple[str, ...] | None
    """The five fields of its beat entry; ``None`` without one."""
    queue: str | None
    """``None``: the queue of its module, else the default one."""

    @property
    def entry(self) -> str:
        """The name of its beat entry."""
        return f"{self.module}-{self.function}".replace("_", "-")


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Write the task that ``arguments`` name into the repository at ``root``."""
    try:
        wanted = _read(arguments)
        changes = plan(wanted, root)
        new = {path for path in changes if not (root / path).exists()}
        _write(changes, root)
    except RefusedError as error:
        print("new_task:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    print(f"new_task: wrote app.tasks.{wanted.module}.{wanted.function}")
    for path in changes:
        print(f"  {'new    ' if path in new else 'changed'}  {path}")
    test = next(path for path in changes if path.startswith("tests/"))
    print("Replace the example in app/services and its test with what the task is for.")
    if wanted.crontab is not None:
        print(f"Check CatchUp of {wanted.entry!r} in {CONFIG} and its row in {SCHEDULE}.")
    print(f"Next: pytest {test} tests/unit/tasks/test_celery_config.py tests/unit/test_docs.py")
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise RefusedError(f"{message}. See scripts/new_task --help")


def _read(arguments: Sequence[str]) -> Wanted:
    parser = _Parser(
        prog="scripts/new_task",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", metavar="MODULE.FUNCTION", help="such as invoices.send_monthly")
    when = parser.add_mutually_exclusive_group()
    when.add_argument("--every", metavar="15m", help="a beat entry at every 15m, 1h or 1d")
    when.add_argument("--crontab", metavar="FIELDS", help='a beat entry at "0 3 * * *"')
    parser.add_argument("--queue", help="of a new module: a queue of app/routing.py")
    given = parser.parse_args(arguments)
    module, _, function = given.name.removeprefix("app.tasks.").partition(".")
    for name in (module, function):
        _check_name(name, given.name)
    if module == function:
        raise RefusedError(f"{given.name}: the task would shadow its service. Rename one of them")
    fields = None
    if given.every is not None:
        fields = _every(given.every)
    elif given.crontab is not None:
        fields = _fields(given.crontab)
    return Wanted(module, function, fields, given.queue)


def _check_name(name: str, whole: str) -> None:
    if not IDENTIFIER.fullmatch(name) or len(name) > LONGEST_NAME:
        raise RefusedError(
            f"{whole!r}: {name!r} is not a name in snake_case of 1 to {LONGEST_NAME} characters. "
            "Write MODULE.FUNCTION, such as invoices.send_monthly"
        )
    if keyword.iskeyword(name):
        raise RefusedError(f"{whole}: {name!r} is a keyword of Python. Use another name")
    if name.startswith("test_"):
        raise RefusedError(f"{whole}: pytest would run {name!r} as a test. Use another name")
    if hasattr(builtins, name) or name in _names_of_the_templates():
        raise RefusedError(f"{whole}: {name!r} would shadow a name in use. Use another name")


def _names_of_the_templates() -> set[str]:
    """Every name that the written code uses, besides those of the task itself."""
    names = {"app", "tests"}
    for imports, body in (
        (TASK_IMPORTS, TASK),
        (SERVICE_IMPORTS, SERVICE),
        (TEST_IMPORTS, TEST),
    ):
        text = Template("\n".join(imports) + body).substitute(module="A", function="B")
        for node in ast.walk(ast.parse(text)):
            match node:
                case ast.Name(id=name) | ast.arg(arg=name) | ast.alias(name=name):
                    names.add(name)
    return names


def _every(text: str) -> tuple[str, ...]:
    found = re.fullmatch(r"([1-9]\d{0,3})([mhd])", text)
    number, unit = (int(found[1]), found[2]) if found else (0, "")
    if unit == "m" and number < 60 and 60 % number == 0:
        return ("*" if number == 1 else f"*/{number}", "*", "*", "*", "*")
    if (unit == "m" and number == 60) or (unit == "h" and number == 1):
        return ("0", "*", "*", "*", "*")
    if unit == "h" and number < 24 and 24 % number == 0:
        return ("0", f"*/{number}", "*", "*", "*")
    if (unit == "h" and number == 24) or (unit == "d" and number == 1):
        return ("0", "0", "*", "*", "*")
    raise RefusedError(
        f"--every {text}: not a part of an hour (5m, 30m) or of a day (1h, 6h, 1d). "
        'Use --crontab "0 3 1 * *" for other times'
    )


def _fields(text: str) -> tuple[str, ...]:
    try:
        from celery.schedules import ParseException, crontab  # it takes a second
    except ModuleNotFoundError:
        raise RefusedError(
            f"celery is not installed for this Python. {DEVELOPERS_ENVIRONMENT}"
        ) from None

    # As they will be printed: 05 is not a number in Python.
    fields = tuple(str(int(field)) if field.isdecimal() else field for field in text.split())
    example = 'Use minute, hour, day, month and weekday, such as "0 3 1 * *"'
    if len(fields) != len(CRONTAB_FIELDS) or not re.fullmatch(r"[\w*/, -]+", text):
        raise RefusedError(f"--crontab {text!r}: not five fields. {example}")
    try:
        crontab(**dict(zip(CRONTAB_FIELDS, fields, strict=True)))
    except (ParseException, ValueError) as error:
        raise RefusedError(f"--crontab {text!r}: {str(error).rstrip('.')}. {example}") from None
    return fields


def plan(wanted: Wanted, root: Path) -> dict[str, str]:
    """Return the new text of each file, by its path from ``root``. Raises ``RefusedError``."""
    module, function = wanted.module, wanted.function
    task, service = f"app/tasks/{module}.py", f"app/services/{module}.py"
    config = (root / CONFIG).read_text()
    modules = _literal(config, "TASK_MODULES")
    is_new = module not in modules
    if is_new and any((root / task).with_suffix(suffix).exists() for suffix in ("", ".py")):
        raise RefusedError(f"{task} exists and is not a module of tasks. Use another name")
    if (root / service).with_suffix("").exists():
        raise RefusedError(f"app/services/{module} is a folder. Write the task by hand")
    words = {"module": module, "function": function}
    test = f"tests/unit/tasks/test_{module}.py"
    if (root / test).exists():
        test = f"tests/unit/tasks/test_{module}_{function}.py"
        if (root / test).exists():
            raise RefusedError(f"{test} exists. Use another name")
    title = module.replace("_", " ").capitalize()
    parts = (
        (task, f'"""{title}: background work."""\n', TASK_IMPORTS, TASK),
        (service, f'"""{title}."""\n', SERVICE_IMPORTS, SERVICE),
        (test, "", TEST_IMPORTS, TEST),
    )
    changes = {}
    for path, heading, imports, body in parts:
        text = (root / path).read_text() if (root / path).exists() else heading
        lines = [Template(line).substitute(words) for line in imports]
        changes[path] = _extended(path, text, lines, Template(body).substitute(words), function)
    if is_new:
        config = _with_value(config, "TASK_MODULES", tuple(sorted({*modules, module})))
    if wanted.crontab is not None:
        config = _with_entry(wanted, wanted.crontab, config)
        changes[SCHEDULE] = _with_row(wanted, wanted.crontab, (root / SCHEDULE).read_text())
    if is_new or wanted.crontab is not None:
        changes[CONFIG] = config
    if wanted.queue is not None:
        changes |= _rerouted(wanted.module, wanted.queue, root, is_new=is_new)
    return {
        path: _tidied(path, text, root) if path.endswith(".py") else text
        for path, text in changes.items()
    }


def _rerouted(module: str, queue: str, root: Path, *, is_new: bool) -> dict[str, str]:
    """The files that send the tasks of ``module`` to ``queue``; none where they go there."""
    routing = (root / ROUTING).read_text()
    table: dict[str, str] = _literal(routing, "QUEUE_BY_MODULE")
    known = re.findall(r'QueueSpec\("(\w+)"', routing)
    if queue not in known:
        raise RefusedError(f"--queue {queue}: not a queue. Use one of {', '.join(known)}")
    present = table.get(module, _literal(routing, "DEFAULT_QUEUE"))
    if queue == present:
        return {}
    if not is_new:
        raise RefusedError(
            f"--queue {queue}: all tasks of {module} go to the queue {present}. Use a new module"
        )
    table = dict(sorted({**table, module: queue}.items()))
    modules = [each for each, its_queue in table.items() if its_queue == queue]
    return {
        ROUTING: _with_value(routing, "QUEUE_BY_MODULE", table),
        README: _with_modules((root / README).read_text(), queue, modules),
    }


def _extended(path: str, text: str, imports: Sequence[str], body: str, function: str) -> str:
    """``text`` with these imports, and with ``body`` at its end."""
    tree = ast.parse(text)
    bound = {name: origin for node in tree.body for name, origin in _bound(node)}
    added = []
    for line in imports:
        (statement,) = ast.parse(line).body
        names = dict(_bound(statement))
        if any(bound.get(name, origin) != origin for name, origin in names.items()):
            raise RefusedError(f"{path} has another meaning for {line!r}. Write the task by hand")
        bound.update(names)
        added.append(line)
    if not path.startswith("tests/") and function in bound:
        raise RefusedError(f"{path} has a {function!r}. Use another name")
    lines = text.splitlines(keepends=True)
    first = next((n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)), None)
    at = len(lines) if first is None else first.lineno - 1
    lines[at:at] = [f"{line}\n" for line in added]
    return "".join(lines).rstrip("\n") + "\n\n" + body


def _bound(node: ast.stmt) -> list[tuple[str, str]]:
    """The names that a statement at the top of a module binds, and where each is from."""
    match node:
        case ast.ImportFrom(module=module, names=names):
            return [(each.asname or each.name, f"{module}.{each.name}") for each in names]
        case ast.Import(names=names):
            return [(each.asname or each.name.partition(".")[0], each.name) for each in names]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [(name, "")]
        case ast.Assign(targets=targets):
            return [(each.id, "") for each in targets if isinstance(each, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [(name, "")]
    return []


def _assignment(text: str, name: str) -> ast.Assign:
    for node in ast.parse(text).body:
        match node:
            case ast.Assign(targets=[ast.Name(id=found)]) if found == name:
                return node
    raise RefusedError(f"{name} is not where scripts/new_task looks for it. Mend its path there")


def _literal(text: str, name: str) -> Any:
    return ast.literal_eval(_assignment(text, name).value)


def _with_value(text: str, name: str, value: tuple[str, ...] | Mapping[str, str]) -> str:
    """``text`` with another value of a table, a row on each line."""
    if isinstance(value, tuple):
        rows, (left, right) = [f'    "{each}",' for each in value], "()"
    else:
        rows, (left, right) = [f'    "{key}": "{each}",' for key, each in value.items()], "{}"
    node = _assignment(text, name)
    lines = text.splitlines()
    lines[node.lineno - 1 : node.end_lineno] = [f"{name} = {left}", *rows, right]
    return "\n".join(lines) + "\n"


def _with_entry(wanted: Wanted, fields: tuple[str, ...], config: str) -> str:
    node = _assignment(config, "BEAT_ENTRIES")
    names = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant)}
    if wanted.entry in names:
        raise RefusedError(f"{CONFIG} has a beat entry {wanted.entry!r}. Use another name")
    arguments = ", ".join(
        f"{name}={field if field.isdecimal() else repr(field)}"
        for name, field in zip(CRONTAB_FIELDS, fields, strict=True)
        if field != "*"
    )
    row = Template(BEAT_ENTRY).substitute(
        entry=wanted.entry, module=wanted.module, function=wanted.function, arguments=arguments
    )
    lines = config.splitlines(keepends=True)
    end = node.end_lineno or 0
    lines[end - 1 : end - 1] = [row]
    return "".join(lines)


def _with_row(wanted: Wanted, fields: tuple[str, ...], page: str) -> str:
    lines = page.splitlines()
    last = max((n for n, line in enumerate(lines) if line.startswith("| `")), default=None)
    if last is None:
        raise RefusedError(f"{SCHEDULE} has no table of entries. Mend that first")
    task = f"app.tasks.{wanted.module}.{wanted.function}"
    when = " ".join(fields)
    lines.insert(last + 1, f"| `{wanted.entry}` | `{task}` | `{when}` | once | {REASON} |")
    return "\n".join(lines) + "\n"


def _with_modules(page: str, queue: str, modules: Sequence[str]) -> str:
    tasks = ", ".join(f"`app.tasks.{module}.*`" for module in modules)
    row = re.compile(rf"^(\| {queue} \| \d \| ).*( \|)$", re.MULTILINE)
    changed, found = row.subn(rf"\g<1>{tasks}\g<2>", page)
    if found != 1:
        raise RefusedError(f"{README} has no row for the queue {queue}. Mend that first")
    return changed


def _tidied(path: str, text: str, root: Path) -> str:
    """``text`` with its imports sorted, formatted as the repository wants it."""
    # Where ruff sees no file yet, as for the new module in its test, it has to be told.
    ours = "lint.isort.known-first-party=['app', 'tests']"
    for command in (["check", "--select=I", "--fix-only", f"--config={ours}"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--quiet", f"--stdin-filename={path}", "-"],
            input=text,
            capture_output=True,
            text=True,
            cwd=root,
            check=False,
        )
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise RefusedError(f"ruff failed ({reason}). {DEVELOPERS_ENVIRONMENT}")
        text = done.stdout
    return text


def _write(changes: Mapping[str, str], root: Path) -> None:
    """Write every file, or leave all of them as they were. Raises ``RefusedError``."""
    before = {
        file: file.read_text() if file.exists() else None
        for file in (root / path for path in changes)
    }
    try:
        for file, text in zip(before, changes.values(), strict=True):
            file.write_text(text)
    except BaseException as error:
        for file, previous in before.items():
            if previous is None:
                file.unlink(missing_ok=True)
            elif file.read_text() != previous:
                file.write_text(previous)
        if isinstance(error, OSError):
            reason = f"{error.filename}: {error.strerror}. Nothing has changed"
            raise RefusedError(reason) from error
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
