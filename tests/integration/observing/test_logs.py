"""Log lines as commands write them."""

import json
import subprocess
from pathlib import Path

import pytest

from scripts.live.job_bench import JobBench
from scripts.live.processes import Process
from tests.integration.observing.watching import ANSWER, Watched
from tests.integration.starting.shell import Shell

LONG = 20_000  # signs: more than any buffer between a process and a file


def objects(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def worker(watched: Watched) -> Process:
    return watched.start_worker(concurrency=2)


@pytest.mark.timeout(120)
def test_long_lines_of_many_children_do_not_mix(
    watched: Watched, bench: JobBench, worker: Process
) -> None:
    names = [f"{number}-" + "x" * LONG for number in range(40)]
    for name in names:
        bench.enqueue("fail", name, name)
    watched.wait_for_runs({("fail", "failed"): len(names)})
    lines = watched.lines()  # each is one object, or this fails
    assert len({line["pid"] for line in lines if line["level"] == "error"}) == 2
    assert sum(line["level"] == "error" for line in lines) == len(names)


@pytest.mark.timeout(120)
def test_logrotate_loses_no_line(watched: Watched, bench: JobBench, worker: Process) -> None:
    folder = bench.live.log_folder / "celery"
    for turn in range(3):
        bench.enqueue_many("effect", 10, first=10 * turn)
        bench.wait_for_effects(10 * turn + 5, timeout=ANSWER)
        (folder / "worker.log").rename(folder / f"worker.log.{turn}")
    bench.enqueue_many("effect", 10, first=30)  # else the last ones may end before the last turn
    watched.wait_for_runs({("effect", "succeeded"): 40})
    worker.terminate()
    lines = [line for file in folder.iterdir() for line in objects(file)]
    for word in ("received", "succeeded"):
        assert sum(word in str(line["event"]) for line in lines) == 40
    assert len(list(folder.iterdir())) == 4


@pytest.mark.timeout(120)
def test_children_that_rotate_their_file_lose_no_line(watched: Watched, bench: JobBench) -> None:
    bench.live.environment |= {"LOG_MAX_BYTES": "20000", "LOG_FILES_KEPT": "100"}
    worker = watched.start_worker(concurrency=4)
    bench.enqueue_many("effect", 200)
    watched.wait_for_runs({("effect", "succeeded"): 200})
    worker.terminate()
    folder = bench.live.log_folder / "celery"
    files = [file for file in folder.iterdir() if file.name != "worker.log.lock"]
    lines = [line for file in files for line in objects(file)]
    for word in ("received", "succeeded"):
        assert sum(word in str(line["event"]) for line in lines) == 200
    assert len(files) > 3


@pytest.mark.timeout(120)
def test_the_level_is_the_one_that_was_asked_for(watched: Watched, bench: JobBench) -> None:
    # The word "ready", which a deployment waits for, is of level info.
    # Every pool but prefork warns of time limits.
    bench.live.celery("worker", "--loglevel=warning", "--concurrency=1", name="worker")
    bench.enqueue("effect", "a")
    bench.enqueue("fail", "b", "permanent")
    bench.wait_for_effects(1, timeout=60)
    bench.wait_until(lambda: len(watched.lines()) > 0, timeout=ANSWER)
    assert {line["level"] for line in watched.lines()} == {"error"}


@pytest.mark.timeout(120)
def test_the_banner_stays_and_a_person_reads_no_json(watched: Watched, bench: JobBench) -> None:
    bench.live.environment["LOG_FORMAT"] = "console"
    worker = watched.start_worker(pool="solo")
    beat = watched.start_beat()
    assert ".> transport:" in worker.log_text()
    assert "LocalTime ->" in beat.log_text()
    (ready,) = [line for line in worker.log_text().splitlines() if "ready." in line]
    assert "[info" in ready
    assert (bench.live.log_folder / "celery" / "worker.log").read_text().endswith(f"{ready}\n")


@pytest.mark.timeout(120)
def test_without_a_folder_there_is_no_file(watched: Watched, bench: JobBench) -> None:
    bench.live.environment["LOG_DIR"] = ""
    watched.start_worker(pool="solo")
    assert not (bench.live.log_folder / "celery").exists()


@pytest.mark.timeout(120)
def test_a_folder_that_cannot_be_written_is_one_line_and_the_worker_works(
    watched: Watched, bench: JobBench, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    bench.live.environment["LOG_DIR"] = str(tmp_path / "file")
    worker = watched.start_worker()
    bench.enqueue("effect", "a")
    bench.wait_for_effects(1, timeout=ANSWER)
    assert worker.log_text().count("LOG_DIR: cannot write to") == 1
    assert "Traceback" not in worker.log_text()


@pytest.mark.timeout(180)
def test_commands_that_answer_a_question_log_nothing(
    watched: Watched, bench: JobBench, worker: Process
) -> None:
    shell = Shell(bench.live)
    done: list[subprocess.CompletedProcess[str]] = shell.together(
        "celery -A app.tasks call app.tasks.health.health_check",
        "celery -A app.tasks inspect ping",
        "python -m app.admin outbox status",
        "python -m app.admin deadletters list",
    )
    assert [(command.returncode, command.stderr) for command in done] == [(0, "")] * len(done)
    assert len(done[0].stdout.split()) == 1, "the id, and nothing else"


@pytest.mark.timeout(120)
def test_what_a_task_prints_is_a_line_of_that_task(watched: Watched, bench: JobBench) -> None:
    bench.live.app = "tests.integration.observing.printing"
    watched.start_worker(pool="solo")
    bench.live.celery("call", "observing.say", name="call")
    bench.wait_until(
        lambda: any(line["event"] == "said by print" for line in watched.lines()), timeout=ANSWER
    )
    (line,) = [line for line in watched.lines() if line["event"] == "said by print"]
    assert (line["task"], line["level"]) == ("observing.say", "warning")
