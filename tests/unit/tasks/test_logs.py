import fcntl
import io
import json
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from app import trace
from app.outbox.broker import OutboxMessage
from app.settings import Settings
from app.tasks import BaseTask, context
from app.tasks.log_files import LineFile, file_of, open_file
from app.tasks.logs import formatter
from tests.tracing import deliver
from tests.unit.tasks.conftest import Bench

A = "a" * 32
SECRET = "Ada Marked"  # in a local variable, as a name is


class Lines(logging.Handler):
    """Keeps each line of the root logger as its JSON object."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(formatter(Settings(log_format="json")))
        self.objects: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert "\n" not in line
        self.objects.append(json.loads(line))

    def of(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.objects if line["logger"] == logger]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    root = logging.getLogger()
    level_before = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level_before)


def log(event: str = "hello") -> None:
    logging.getLogger("somebody").info("%s", event)


def fail_with_a_name() -> None:
    name = SECRET
    raise ValueError(f"a text of {len(name)} signs")


def traced(message: OutboxMessage, trace_id: str = A) -> OutboxMessage:
    return type(message)(**{**vars(message), "trace_id": trace_id})


def test_a_line_of_anybody_is_one_json_object(lines: Lines) -> None:
    log("two\nlines")
    (line,) = lines.of("somebody")
    assert (line["event"], line["level"], line["process"]) == ("two\nlines", "info", "MainProcess")
    assert line["time"].endswith("+00:00")


def test_a_line_through_structlog_is_alike(lines: Lines) -> None:
    structlog.get_logger("somebody").info("hello %s", "there", booking=7)
    (line,) = lines.of("somebody")
    assert (line["event"], line["level"], line["booking"]) == ("hello there", "info", 7)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_tells_no_local_variable(log_format: Any) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(Settings(log_format=log_format)))
    try:
        fail_with_a_name()
    except ValueError:
        handler.handle(
            logging.makeLogRecord({"name": "x", "msg": "failed", "exc_info": sys.exc_info()})
        )
    assert "a text of 10 signs" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_a_line_of_a_task_quotes_no_address_of_its_error(bench: Bench, lines: Lines) -> None:
    def body(self: BaseTask) -> None:
        raise ValueError("cannot greet ann.lee@mail.example")

    task = bench.task(body)
    deliver(task, bench.enqueue(task))
    said = "\n".join(line["event"] for line in lines.of("celery.app.trace"))
    assert "cannot greet (left out)" in said
    assert "ann.lee" not in str(lines.objects)


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_an_exception_quotes_no_address_in_anybodys_line(log_format: Any) -> None:
    try:
        raise ValueError("cannot greet ann.lee@mail.example")
    except ValueError:
        record = {"name": "x", "msg": "on worker@host", "exc_info": sys.exc_info()}
    line = formatter(Settings(log_format=log_format)).format(logging.makeLogRecord(record))
    assert "cannot greet (left out)" in line
    assert "worker@host" in line
    assert "ann.lee" not in line


def test_every_line_of_a_task_says_which_one(bench: Bench, lines: Lines) -> None:
    def body(self: BaseTask) -> None:
        log()

    task = bench.task(body)
    message = traced(bench.enqueue(task))
    deliver(task, message)
    expected = {
        "task": task.name,
        "task_id": message.id,
        "queue": "celery",
        "retries": 0,
        "trace_id": A,
    }
    for logger in ("somebody", "celery.app.trace"):
        (line,) = lines.of(logger)
        assert {field: line[field] for field in context.FIELDS} == expected


def test_after_a_task_nothing_of_it_is_left(bench: Bench, lines: Lines) -> None:
    def body(self: BaseTask) -> None:
        raise ValueError("ends badly")

    task = bench.task(body)
    deliver(task, traced(bench.enqueue(task)))
    log()
    assert not set(context.FIELDS) & lines.of("somebody")[-1].keys()
    assert trace.current() != A


def test_what_a_task_enqueues_is_of_its_trace(bench: Bench) -> None:
    def body(self: BaseTask) -> None:
        with self.transaction():
            pass
        bench.enqueue(task)

    task = bench.task(body)
    deliver(task, traced(bench.enqueue(task)))
    assert bench.broker.pushed[-1].trace_id == A


def test_a_task_inside_another_has_lines_of_its_own(bench: Bench, lines: Lines) -> None:
    def inner(self: BaseTask) -> None:
        log("inner")

    def outer(self: BaseTask) -> None:
        deliver(inner_task, inner_message)
        log("outer")

    inner_task, outer_task = bench.task(inner), bench.task(outer)
    inner_message = bench.enqueue(inner_task)
    deliver(outer_task, bench.enqueue(outer_task))
    assert [line["task"] for line in lines.of("somebody")] == [inner_task.name, outer_task.name]


def test_tasks_in_two_threads_do_not_mix(bench: Bench, lines: Lines) -> None:
    def body(self: BaseTask) -> None:
        log(self.request.id)

    task = bench.task(body)
    messages = [bench.enqueue(task) for _ in range(20)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda message: deliver(task, message), messages))
    seen = lines.of("somebody")
    assert len(seen) == len(messages)
    assert all(line["event"] == line["task_id"] for line in seen)


def test_a_person_reads_no_json() -> None:
    record = logging.makeLogRecord({"name": "x", "msg": "worker ready.", "levelname": "INFO"})
    line = formatter(Settings()).format(record)
    assert "[info" in line
    assert "worker ready." in line
    assert "{" not in line


@pytest.fixture
def line_file(tmp_path: Path) -> Iterator[LineFile]:
    handler = LineFile(tmp_path / "worker.log")
    handler.setFormatter(logging.Formatter())
    yield handler
    handler.close()


def write(handler: LineFile, text: str) -> None:
    handler.handle(logging.makeLogRecord({"msg": text}))


def test_a_long_line_is_one_write(line_file: LineFile) -> None:
    class Counting(io.FileIO):
        writes = 0

        def write(self, data: Any) -> int:
            Counting.writes += 1
            return super().write(data)

    assert isinstance(line_file.stream, io.FileIO), "a buffer would cut it, or be forked"
    line_file.stream.close()
    line_file.stream = Counting(line_file.baseFilename, "ab")  # type: ignore[assignment]
    write(line_file, "x" * 1_000_000)
    assert Counting.writes == 1


def test_after_logrotate_has_moved_the_file_a_new_one_is_begun(
    line_file: LineFile, tmp_path: Path
) -> None:
    write(line_file, "before")
    (tmp_path / "worker.log").rename(tmp_path / "worker.log.1")
    write(line_file, "after")
    assert (tmp_path / "worker.log.1").read_text() == "before\n"
    assert (tmp_path / "worker.log").read_text() == "after\n"


def test_a_folder_that_is_gone_for_a_while_costs_lines_and_no_more(
    line_file: LineFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.rename(tmp_path.with_name("gone"))
    write(line_file, "lost")
    tmp_path.with_name("gone").rename(tmp_path)
    (tmp_path / "worker.log").unlink()
    write(line_file, "back")
    assert (tmp_path / "worker.log").read_text() == "back\n"
    assert "FileNotFoundError" in capsys.readouterr().err


def test_text_that_is_no_unicode_is_written_all_the_same(
    line_file: LineFile, tmp_path: Path
) -> None:
    write(line_file, "half a sign: \ud800")
    assert (tmp_path / "worker.log").read_text() == "half a sign: \\ud800\n"


def test_a_folder_that_cannot_be_written_is_one_line_on_stderr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    said = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", said)
    assert open_file(tmp_path / "logs" / "celery" / "worker.log", Settings()) is None
    assert said.getvalue().count("\n") == 1
    assert "LOG_DIR: cannot write to" in said.getvalue()


def test_no_folder_means_no_file() -> None:
    assert file_of("worker", Settings(log_dir="")) is None
    assert file_of("beat", Settings()) == Path("logs/celery/beat.log")


LIMIT = 100
"""Bytes; a line of the tests below has 40."""


@pytest.fixture
def rotated(tmp_path: Path) -> Iterator[LineFile]:
    handler = LineFile(tmp_path / "worker.log", most_bytes=LIMIT, kept=2)
    handler.setFormatter(logging.Formatter())
    yield handler
    handler.close()


def numbers(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().splitlines()]


def write_numbers(handler: LineFile, *found: int) -> None:
    for number in found:
        write(handler, f"{number:039}")


def test_a_full_file_is_moved_away_and_the_oldest_is_dropped(
    rotated: LineFile, tmp_path: Path
) -> None:
    write_numbers(rotated, *range(11))
    assert numbers(tmp_path / "worker.log") == [9, 10]
    assert numbers(tmp_path / "worker.log.1") == [6, 7, 8]
    assert numbers(tmp_path / "worker.log.2") == [3, 4, 5]
    assert not (tmp_path / "worker.log.3").exists()


def test_without_a_limit_the_file_is_left_to_logrotate(line_file: LineFile, tmp_path: Path) -> None:
    write_numbers(line_file, *range(100))
    assert [path.name for path in tmp_path.iterdir()] == ["worker.log"]


def test_a_file_that_another_process_has_moved_is_not_moved_again(
    rotated: LineFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_numbers(rotated, 1, 2)
    # Moved between the look and the write, which goes into the moved one.
    monkeypatch.setattr(rotated, "reopenIfNeeded", lambda: None)
    (tmp_path / "worker.log").rename(tmp_path / "worker.log.1")
    (tmp_path / "worker.log").write_text(f"{4:039}\n")
    write_numbers(rotated, 3)
    assert numbers(tmp_path / "worker.log.1") == [1, 2, 3]
    assert numbers(tmp_path / "worker.log") == [4]


def test_one_that_is_being_moved_by_another_process_is_left_to_it(
    rotated: LineFile, tmp_path: Path
) -> None:
    with (tmp_path / "worker.log.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_numbers(rotated, *range(5))
    assert numbers(tmp_path / "worker.log") == list(range(5))
    write_numbers(rotated, 5)
    assert numbers(tmp_path / "worker.log.1") == list(range(6))


def test_many_that_write_and_rotate_at_once_lose_no_line_and_cut_none(tmp_path: Path) -> None:
    handlers = [LineFile(tmp_path / "worker.log", most_bytes=1000, kept=100) for _ in range(4)]
    for handler in handlers:
        handler.setFormatter(logging.Formatter())
    with ThreadPoolExecutor(len(handlers)) as threads:
        list(
            threads.map(
                lambda n: write_numbers(handlers[n], *range(n, 2000, len(handlers))),
                range(len(handlers)),
            )
        )
    for handler in handlers:
        handler.close()
    files = [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert sorted(number for file in files for number in numbers(file)) == list(range(2000))
    assert len(files) > 1


def test_a_file_that_cannot_be_moved_grows_and_says_so_once(
    rotated: LineFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", said)
    (tmp_path / "worker.log.lock").mkdir()
    write_numbers(rotated, *range(20))
    assert numbers(tmp_path / "worker.log") == list(range(20))
    assert said.getvalue().count("\n") == 1
    assert "LOG_MAX_BYTES: cannot rotate" in said.getvalue()


def test_the_settings_say_how_large_a_file_grows(tmp_path: Path) -> None:
    handler = open_file(tmp_path / "worker.log", Settings(log_max_bytes=30, log_files_kept=1))
    assert handler is not None
    handler.setFormatter(logging.Formatter())
    write_numbers(handler, 1, 2, 3)
    handler.close()
    assert numbers(tmp_path / "worker.log.1") == [3]
    assert not (tmp_path / "worker.log.2").exists()
