"""Workers as they are typed: pools, queues, options; what SIGTERM leaves."""

import re
import signal
from time import sleep

import pytest
import redis

from app import db, outbox
from app.routing import QUEUES
from scripts.live import jobs
from scripts.live.job_bench import JobBench
from tests.integration.starting.shell import READY, SHUTDOWN, Shell

POOLS = ("prefork", "threads", "solo", "gevent", "eventlet")
WAYS = ("celery -A app.tasks worker --loglevel=info", "python -m app.tasks.worker")
OPTIONS = "--concurrency=1 --include=scripts.live.jobs"
SOME = ["celery", "email", "notifications"]
OTHERS = [spec.name for spec in QUEUES if spec.name not in SOME]


def waiting(bench: JobBench, lists: str = "celery*") -> tuple[int, int]:
    """Messages in lists, and messages that a worker holds."""
    with redis.Redis.from_url(bench.live.redis_url) as client:
        in_lists = sum(client.llen(key) for key in client.scan_iter(lists, _type="list"))
        return in_lists, client.hlen("unacked")


@pytest.mark.timeout(180)
@pytest.mark.parametrize("pool", POOLS)
def test_a_pool_finishes_what_runs_gives_back_the_rest_and_exits_0(
    pool: str, shell: Shell, bench: JobBench
) -> None:
    workers = [
        shell.start(f"{way} --pool={pool} {OPTIONS} --hostname={name}@%h", name=name)
        for name, way in zip(("command", "module"), WAYS, strict=True)
    ]
    for worker in workers:
        worker.wait_for_line(r"\bready\.", timeout=READY)

    bench.enqueue_many("work", 4, 2)
    bench.wait_until(lambda: len(jobs.starts()) == 2, timeout=READY)
    for worker in workers:
        worker.signal(signal.SIGTERM)
    assert [worker.wait(SHUTDOWN) for worker in workers] == [0, 0]

    assert sorted(jobs.effects().values()) == sorted(jobs.starts().values()) == [1, 1]
    assert waiting(bench) == (2, 0)


@pytest.mark.timeout(120)
def test_what_a_worker_gave_back_is_run_by_the_next_one(bench: JobBench) -> None:
    first = bench.live.start_worker("--without-mingle", name="first", pool="solo")
    bench.enqueue_many("work", 2, 1)
    bench.wait_until(lambda: len(jobs.starts()) == 1, timeout=READY)
    first.signal(signal.SIGTERM)
    assert first.wait(SHUTDOWN) == 0
    bench.live.start_worker("--without-mingle", name="second", pool="solo")
    bench.wait_for_effects(2, timeout=READY)
    assert jobs.effects() == jobs.starts() == {"job-0": 1, "job-1": 1}


@pytest.mark.timeout(120)
def test_a_worker_of_some_queues_leaves_the_others_alone(shell: Shell, bench: JobBench) -> None:
    with db.transaction() as session:
        outbox.enqueue(session, "app.tasks.bookings.send_due_reminders")
    bench.enqueue("work", "a")
    line = "celery -A app.tasks worker -Q celery,email,notifications --loglevel=info"
    worker = shell.start_worker(f"{line} --include=scripts.live.jobs")
    bench.wait_for_effects(1, timeout=READY)
    assert re.findall(r"\.> (\w+) +exchange", worker.log_text()) == SOME
    assert waiting(bench, "bookings*") == (1, 0)
    worker.wait_for_line(f"left to other workers: {', '.join(OTHERS)}")


@pytest.mark.timeout(120)
def test_concurrency_and_memory_are_bounded_as_asked(shell: Shell, bench: JobBench) -> None:
    line = "python -m app.tasks.worker --concurrency=2 --max-memory-per-child=512000"
    worker = shell.start_worker(f"{line} --include=scripts.live.jobs")
    assert len(worker.descendants()) == 2
    bench.enqueue_many("work", 4, 0.5)
    bench.wait_for_effects(4, timeout=READY)
    assert jobs.effects() == {f"job-{number}": 1 for number in range(4)}
    assert len({pid for job in jobs.effects() for pid in jobs.worker_pids(job)}) == 2


@pytest.mark.timeout(120)
def test_a_child_that_grows_beyond_its_memory_is_replaced_after_its_task(
    shell: Shell, bench: JobBench
) -> None:
    """With a bound that every child exceeds (KiB): each runs one task."""
    line = "celery -A app.tasks worker --concurrency=1 --max-memory-per-child=1000"
    shell.start_worker(f"{line} --loglevel=info --include=scripts.live.jobs")
    bench.enqueue_many("work", 2)
    bench.wait_for_effects(2, timeout=READY)
    pids = [pid for job in jobs.effects() for pid in jobs.worker_pids(job)]
    assert len(set(pids)) == len(pids) == 2


@pytest.mark.timeout(120)
def test_two_workers_of_one_name_are_both_heard(shell: Shell, bench: JobBench) -> None:
    for queues in (",".join(SOME), ",".join(OTHERS)):
        shell.start_worker(
            f"celery -A app.tasks worker -Q {queues} --loglevel=info -n same@here", name=queues
        )
    said = shell.run("python -m app.tasks.health")
    assert "2 workers are called same@here: give each a name of its own with -n" in said.stdout
    assert "no worker takes from" not in said.stdout
    assert said.stderr == ""


SHARED_NAME = "2 workers are called same@here: give each a name of its own with -n"
ASKED = 4.0
"""Seconds after which a worker has long asked for others of its name."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pool", ["prefork", "solo", "gevent"])
def test_a_worker_warns_of_one_that_has_its_name(shell: Shell, bench: JobBench, pool: str) -> None:
    line = f"celery -A app.tasks worker --loglevel=info -n same@here --pool={pool} --concurrency=1"
    first = shell.start_worker(line, name="first")
    second = shell.start_worker(line, name="second")
    second.wait_for_line(SHARED_NAME, timeout=READY)
    assert SHARED_NAME not in first.log_text()


@pytest.mark.timeout(120)
def test_a_worker_does_not_warn_of_itself_nor_of_one_that_was_killed(
    shell: Shell, bench: JobBench
) -> None:
    line = "celery -A app.tasks worker --loglevel=info -n {}@here --concurrency=1"
    shell.start_worker(line.format("another"), name="another")
    shell.start_worker(line.format("same"), name="killed").kill()
    successor = shell.start_worker(line.format("same"), name="successor")
    sleep(ASKED)
    assert "workers are called" not in successor.log_text()
