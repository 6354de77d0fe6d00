"""Beats on real processes: any number of them, killed and cut off, fire each instant once."""

import re
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from pathlib import Path
from time import sleep
from typing import Any

import pytest
from sqlalchemy import func, select, text

from app import clock, db
from app.models import OutboxEntry
from app.outbox.schedule import ABSENT_AFTER
from scripts.live import jobs
from scripts.live.deployment import BEAT_IS_READY, Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.processes import Process
from scripts.live.redis_server import RedisServer
from tests.integration.starting.shell import READY, SHUTDOWN, Shell

TICKING = "scripts.live.ticking_jobs"  # not imported: it changes the app's schedule
WITHOUT_TICKS = "scripts.live.jobs"
TICK = "tick"
EFFECT = "scripts.live.jobs.effect"
SOON = {"RESEND_MARGIN_SECONDS": "3", "PUBLISH_TIMEOUT_SECONDS": "1"}
OUTAGE = timedelta(seconds=3)


class Ticks:
    """The due instants that beats have claimed, as the database itself noted them."""

    def __init__(self, bench: JobBench) -> None:
        self._bench = bench
        with db.transaction() as session:
            session.execute(text("CREATE TABLE claimed (due)"))
            session.execute(
                text(
                    "CREATE TRIGGER note_claims AFTER UPDATE OF last_due ON beat_entries "
                    "WHEN NEW.name = 'tick' BEGIN INSERT INTO claimed VALUES (NEW.last_due); END"
                )
            )

    def claimed(self) -> list[datetime]:
        with db.reading() as session:
            dues = session.scalars(text("SELECT due FROM claimed ORDER BY rowid"))
            return [datetime.fromisoformat(due).replace(tzinfo=UTC) for due in dues]

    def planned(self) -> int:
        """Runs in the outbox."""
        with db.reading() as session:
            rows = select(func.count()).where(OutboxEntry.task == EFFECT)
            return session.scalar(rows) or 0

    def wait_for_more(self, count: int) -> None:
        wanted = len(self.claimed()) + count
        self._bench.wait_until(lambda: len(self.claimed()) >= wanted, timeout=READY)

    def settle(self) -> None:
        """With all beats that tick gone: wait until what they planned has been run."""
        live = self._bench.live
        live.app = WITHOUT_TICKS
        live.start_worker("--without-mingle", pool="solo")
        live.start_beat(name="pump", environment=SOON)
        planned = self.planned()
        self._bench.wait_until(lambda: jobs.effects()[TICK] >= planned, timeout=READY)


def assert_each_instant_once(ticks: Ticks) -> None:
    claimed = ticks.claimed()
    assert claimed == sorted(set(claimed))
    assert jobs.effects()[TICK] == ticks.planned() == len(claimed)


def stop(*beats: Process) -> None:
    for beat in beats:
        beat.signal(signal.SIGTERM)
    for beat in beats:
        assert beat.wait(SHUTDOWN) == 0, beat.log_text()


@pytest.fixture
def ticking(live: Deployment) -> Iterator[JobBench]:
    with job_bench(live) as made:
        live.app = TICKING
        yield made


@pytest.fixture
def ticks(ticking: JobBench) -> Ticks:
    return Ticks(ticking)


@pytest.mark.timeout(120)
def test_both_ways_of_starting_use_our_scheduler_and_end_with_0(shell: Shell) -> None:
    beats = [
        shell.start("celery -A app.tasks beat --loglevel=info"),
        shell.start("python -m app.tasks.beat"),
    ]
    for beat in beats:
        beat.wait_for_line(r"scheduler -> app\.tasks\.scheduler\.OutboxScheduler", timeout=READY)
        beat.wait_for_line(r"maxinterval -> 1\.00 second", timeout=READY)
        beat.wait_for_line(BEAT_IS_READY, timeout=READY)
    stop(*beats)


@pytest.mark.timeout(120)
def test_two_beats_at_once_fire_each_instant_once(ticking: JobBench, ticks: Ticks) -> None:
    beats = [ticking.live.start_beat(name=name) for name in ("one", "other")]
    ticks.wait_for_more(6)
    stop(*beats)
    ticks.settle()
    assert_each_instant_once(ticks)


def runs() -> list[datetime]:
    """The due instants of the ticks in the outbox."""
    with db.reading() as session:
        rows = select(OutboxEntry.due_instant).where(OutboxEntry.task == EFFECT)
        return sorted(due for due in session.scalars(rows) if due is not None)


def of_eastern(due: datetime) -> bool:
    """Whether an instant of ``zoned_ticks`` is one of US/Eastern's, and not of UTC's."""
    return due.second % 6 == 3


@pytest.mark.timeout(420)
def test_two_beats_with_different_time_zones_fire_each_instant_of_the_newer_one_once(
    bench: JobBench, shell: Shell
) -> None:
    """Before, nothing was fired while both ran. When the newer one ends, the other goes on."""
    live = bench.live
    live.app = "tests.integration.starting.zoned_ticks"
    eastern = live.start_beat(name="eastern")
    bench.wait_until(lambda: len(runs()) >= 2, timeout=READY)
    utc = live.start_beat(name="utc", environment={"CELERY_TIMEZONE": "UTC"})
    utc.wait_for_line(
        r"beat entry tick: the definition .*UTC.* replaces .*US/Eastern", timeout=READY
    )
    waits = r"another definition is in force, .*UTC.*; that of this beat, .*US/Eastern.* waits"
    eastern.wait_for_line(waits, timeout=READY)
    before = len(runs())
    bench.wait_until(lambda: len(runs()) >= before + 3, timeout=READY)

    said = shell.run("python -m app.tasks.health").stdout
    in_force, _, other = said.partition("beats disagree about tick: ")[2].partition(" is in force")
    assert "<every six seconds> UTC" in in_force
    assert "<every six seconds> US/Eastern" in other
    stop(utc)
    bench.wait_until(lambda: of_eastern(runs()[-1]), timeout=2 * READY + ABSENT_AFTER.seconds)
    stop(eastern)

    due = runs()
    assert due == sorted(set(due))
    assert [key for key, _ in groupby(due, key=of_eastern)] == [True, False, True]
    steps = Counter((later - earlier).total_seconds() for earlier, later in pairwise(due))
    assert steps.keys() <= {3.0, 6.0, 9.0}
    assert steps[3.0] + steps[9.0] == 2, "at the two changes only"
    assert len(re.findall("waits until no beat", eastern.log_text())) == 1


@pytest.mark.timeout(180)
def test_killed_beats_lose_and_double_no_instant(ticking: JobBench, ticks: Ticks) -> None:
    one, other = (ticking.live.start_beat(name=name) for name in ("one", "other"))
    for victim in (one, other):
        ticks.wait_for_more(2)
        victim.kill()
        ticks.wait_for_more(2)
        victim.start()
        victim.wait_for_line(BEAT_IS_READY, timeout=READY)
    one.kill()
    other.kill()

    before = ticks.claimed()
    ticking.wait_until(lambda: clock.utcnow() > before[-1] + OUTAGE, timeout=READY)
    back_at = clock.utcnow()
    one.start()
    ticks.wait_for_more(1)
    caught_up = ticks.claimed()[len(before)]
    assert caught_up >= back_at - timedelta(seconds=1), "missed instants make one run, the latest"
    ticks.wait_for_more(1)
    stop(one)
    ticks.settle()
    assert_each_instant_once(ticks)


@pytest.mark.timeout(180)
def test_a_beat_goes_on_after_a_lost_redis_and_a_locked_database(
    own_redis: RedisServer, tmp_path: Path, show_logs: Callable[[Any], None]
) -> None:
    with Deployment(redis_url=own_redis.url, folder=tmp_path / "live") as deployment:
        show_logs(deployment.logs)
        with job_bench(deployment) as bench:
            deployment.app = TICKING
            ticks = Ticks(bench)
            beat = deployment.start_beat(environment={"DATABASE_BUSY_TIMEOUT_SECONDS": "0.5"})
            ticks.wait_for_more(1)

            own_redis.stop()
            beat.wait_for_line("beat cannot work, again in .* s: Redis: ", timeout=READY)
            claimed = ticks.claimed()
            sleep(2)
            assert ticks.claimed() == claimed  # nobody confirms what time it is
            own_redis.start(empty=True)
            ticks.wait_for_more(1)

            with closing(sqlite3.connect(deployment.database, isolation_level=None)) as writer:
                writer.execute("BEGIN IMMEDIATE")
                beat.wait_for_line(r"beat cannot work, .*database is locked", timeout=READY)
            ticks.wait_for_more(2)

            stop(beat)
            ticks.settle()
            assert_each_instant_once(ticks)
