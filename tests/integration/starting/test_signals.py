"""Signals that a supervisor sends: SIGHUP restarts, SIGTERM stops, and no body is interrupted."""

import os
import re
import signal
from collections.abc import Callable
from time import monotonic, sleep

import psutil
import pytest

from app.models import OutboxState
from scripts.live import jobs
from scripts.live.deployment import BEAT_IS_READY
from scripts.live.job_bench import JobBench
from scripts.live.processes import POLL, Process
from tests.integration.starting.shell import READY, SHUTDOWN, Shell

OPTIONS = "--concurrency=1 --include=scripts.live.jobs"
WAYS = (
    "celery -A app.tasks worker --loglevel=info",
    "python -m celery -A app.tasks worker --loglevel=info",
    "python -m app.tasks.worker",
    "python -X utf8 -W default -m app.tasks.worker",
)
JOB_SECONDS = 3.0


def twice(process: Process, text: str) -> Callable[[], bool]:
    """Whether the process has logged ``text`` before and after a restart."""
    return lambda: process.log_text().count(text) >= 2


def wait_until(condition: Callable[[], bool], process: Process) -> None:
    """Wait for ``condition``, ``READY`` seconds at most; fail as soon as the process ends."""
    deadline = monotonic() + READY
    while not condition():
        if not process.alive:
            raise process.ended("while the test waited")
        assert monotonic() < deadline, process.log_text()[-2000:]
        sleep(POLL)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", WAYS)
def test_a_worker_restarts_at_sighup_with_its_pid_and_arguments_and_loses_nothing(
    way: str, shell: Shell, bench: JobBench
) -> None:
    worker = shell.start_worker(f"{way} {OPTIONS} --hostname=kept@here", name="worker")
    pid = worker.pid
    bench.enqueue_many("work", 3, JOB_SECONDS)
    bench.wait_until(lambda: len(jobs.starts()) == 1, timeout=READY)
    worker.signal(signal.SIGHUP)
    wait_until(twice(worker, "kept@here ready."), worker)
    assert len(jobs.effects()) == 1, "the running task was finished first, and no other begun"
    bench.wait_for_effects(3, timeout=READY)
    assert jobs.effects() == jobs.starts() == dict.fromkeys(["job-0", "job-1", "job-2"], 1)
    assert (worker.pid, len(worker.descendants())) == (pid, 1)
    assert "Traceback" not in worker.log_text()
    worker.signal(signal.SIGTERM)
    assert worker.wait(SHUTDOWN) == 0


@pytest.mark.timeout(120)
def test_a_restart_keeps_the_interpreters_own_options(shell: Shell) -> None:
    worker = shell.start_worker("python -X importtime -W default -m app.tasks.worker -c 1")
    # Python prints its imports only where -X importtime has reached it.
    assert imports(worker) == 2, "once as the module, once as celery"
    worker.signal(signal.SIGHUP)
    wait_until(twice(worker, "ready."), worker)
    assert imports(worker) == 3


def imports(worker: Process) -> int:
    """How many processes with this pid have printed that they import SQLAlchemy's sessions."""
    return len(re.findall(r"\| +sqlalchemy\.orm\.session$", worker.log_text(), re.MULTILINE))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["threads", "solo", "gevent", "eventlet"])
def test_a_worker_of_each_pool_restarts_at_sighup(pool: str, shell: Shell, bench: JobBench) -> None:
    worker = shell.start_worker(f"python -m app.tasks.worker --pool={pool} {OPTIONS}")
    bench.enqueue_many("work", 2, 1.0)
    bench.wait_until(lambda: len(jobs.starts()) == 1, timeout=READY)
    worker.signal(signal.SIGHUP)
    wait_until(twice(worker, "ready."), worker)
    bench.wait_for_effects(2, timeout=READY)
    assert jobs.effects() == jobs.starts() == {"job-0": 1, "job-1": 1}
    assert "Traceback" not in worker.log_text()


@pytest.mark.timeout(120)
def test_sigterm_after_sighup_stops_the_worker(shell: Shell, bench: JobBench) -> None:
    worker = shell.start_worker(f"celery -A app.tasks worker --loglevel=info {OPTIONS}")
    bench.enqueue("work", "job", JOB_SECONDS)
    bench.wait_for_start("job")
    worker.signal(signal.SIGHUP)
    worker.wait_for_line("then restarting", timeout=READY)
    worker.signal(signal.SIGTERM)
    assert worker.wait(SHUTDOWN) == 0
    assert jobs.effects() == {"job": 1}
    assert worker.log_text().count("ready.") == 1


def sigterm(worker: Process) -> None:
    worker.signal(signal.SIGTERM)
    worker.wait_for_line("Warm shutdown", timeout=READY)


def remote_shutdown(worker: Process) -> None:
    jobs.celery_app.control.shutdown()
    worker.wait_for_line("Got shutdown from remote", timeout=READY)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("stop", [sigterm, remote_shutdown])
@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_sighup_after_a_stop_does_not_start_the_worker_again(
    pool: str, stop: Callable[[Process], None], shell: Shell, bench: JobBench
) -> None:
    worker = shell.start_worker(
        f"celery -A app.tasks worker --loglevel=info --pool={pool} {OPTIONS}"
    )
    bench.enqueue("work", "job", 2 * JOB_SECONDS)
    bench.wait_for_start("job")
    stop(worker)
    worker.signal(signal.SIGHUP)
    assert worker.wait(SHUTDOWN) == 0
    assert jobs.effects() == {"job": 1}
    assert worker.log_text().count("ready.") == 1


@pytest.mark.timeout(120)
def test_a_second_sighup_while_a_worker_starts_again_does_not_end_it(shell: Shell) -> None:
    worker = shell.start_worker(
        "python -m app.tasks.worker --concurrency=1", PYTHONPROFILEIMPORTTIME="1"
    )
    before = imports(worker)
    worker.signal(signal.SIGHUP)
    wait_until(lambda: imports(worker) > before, worker)
    worker.signal(signal.SIGHUP)
    wait_until(twice(worker, "ready."), worker)
    assert worker.alive


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "way", ["celery -A app.tasks beat --loglevel=info", "python -X utf8 -m app.tasks.beat"]
)
def test_beat_restarts_at_sighup_with_its_pid(way: str, shell: Shell) -> None:
    beat = shell.start(way)
    beat.wait_for_line(BEAT_IS_READY, timeout=READY)
    pid = beat.pid
    beat.signal(signal.SIGHUP)
    wait_until(twice(beat, "beat: Starting"), beat)
    assert (beat.pid, beat.alive) == (pid, True)
    assert "Traceback" not in beat.log_text()
    beat.signal(signal.SIGTERM)
    assert beat.wait(SHUTDOWN) == 0


@pytest.mark.timeout(120)
def test_sigterm_stops_a_beat_that_was_also_sent_sighup(shell: Shell) -> None:
    """Python handles pending signals by number, so SIGHUP first."""
    beat = shell.start("celery -A app.tasks beat --loglevel=info")
    beat.wait_for_line(BEAT_IS_READY, timeout=READY)
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
        beat.signal(number)
    assert beat.wait(SHUTDOWN) == 0
    assert beat.log_text().count("beat: Starting") == 1


@pytest.mark.timeout(120)
def test_a_worker_under_nohup_survives_the_end_of_its_terminal(shell: Shell) -> None:
    worker = shell.start_worker("nohup python -m app.tasks.worker --concurrency=1")
    worker.signal(signal.SIGHUP)
    wait_until(twice(worker, "ready."), worker)
    assert worker.alive


def signal_each(worker: Process, number: int) -> None:
    """As systemd does with KillMode=control-group: every process by its pid."""
    for member in [*worker.descendants(), psutil.Process(worker.pid)]:
        member.send_signal(number)


def signal_group(worker: Process, number: int) -> None:
    """As a shell does with ``kill -- -PGID``, and ``tini -g`` in a container."""
    os.killpg(worker.pid, number)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("send", [signal_each, signal_group])
def test_sigterm_to_all_processes_of_a_worker_interrupts_no_body(
    send: Callable[[Process, int], None], shell: Shell, bench: JobBench
) -> None:
    worker = shell.start_worker(
        "celery -A app.tasks worker --loglevel=info --concurrency=2 --include=scripts.live.jobs"
    )
    job = bench.enqueue("work", "job", JOB_SECONDS)
    bench.wait_for_start("job")
    send(worker, signal.SIGTERM)
    sleep(0.5)
    send(worker, signal.SIGTERM)
    assert worker.wait(SHUTDOWN) == 0
    assert jobs.effects() == jobs.starts() == {"job": 1}
    assert (bench.entry(job).state, bench.entry(job).errors) == (OutboxState.DONE, [])


@pytest.mark.timeout(120)
def test_what_the_worker_itself_ends_still_ends_at_once(shell: Shell, bench: JobBench) -> None:
    """A revoked task, an idle child that is one too many, and all at a cold shutdown."""
    worker = shell.start_worker(
        "celery -A app.tasks worker --loglevel=info --concurrency=2 --include=scripts.live.jobs"
    )
    revoked = bench.enqueue("work", "revoked", 60)
    bench.wait_for_start("revoked")
    shell.answer(f"celery -A app.tasks control terminate TERM {revoked}")
    worker.wait_for_line(rf"Discarding revoked task|Terminating {revoked}", timeout=READY)
    bench.wait_until(lambda: bench.entry(revoked).state is OutboxState.CANCELLED, timeout=READY)
    shell.answer("celery -A app.tasks control pool_shrink 1")
    bench.wait_until(lambda: len(worker.descendants()) == 1, timeout=READY)
    bench.enqueue("work", "cold", 60)
    bench.wait_for_start("cold")
    worker.signal(signal.SIGQUIT)
    worker.wait(SHUTDOWN)
    assert jobs.effects() == {}


@pytest.mark.timeout(120)
def test_a_program_that_a_body_runs_can_be_ended_by_sigterm(shell: Shell, bench: JobBench) -> None:
    """A signal that is ignored stays ignored in a program that is run."""
    shell.start_worker(f"celery -A app.tasks worker --loglevel=info {OPTIONS}")
    bench.enqueue("run_and_terminate", "job")
    bench.wait_for_effects(1, timeout=READY)
    assert jobs.effects() == {"job": 1}
