"""A deployment on virtual time does what a real one does, and always the same."""

from __future__ import annotations

import gc
import io
import random
import signal
import sys
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from datetime import time as dt_time
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import current_app
from celery._state import task_join_will_block
from celery.schedules import crontab
from celery.signals import worker_init
from celery.worker import state

from simulations.engine import Deployment, ServiceTime, WorkerGroup
from simulations.engine.faults import ENGINE_FAULTS, Fault, schedule
from simulations.engine.worker import WorkerProcess
from tests.simulation.engine.toys import (
    HOUR,
    MINUTE,
    SECOND,
    START,
    Toy,
    every_minute,
)

VISIBILITY = 30.0
EASTERN = ZoneInfo("US/Eastern")


def one_slot(**options: Any) -> WorkerGroup:
    return WorkerGroup(workers=1, concurrency=1, **options)


def test_five_lines_replay_an_hour_of_a_schedule() -> None:
    toy = Toy(beat_schedule={"ping": every_minute("toy.note", "ping")})
    with Deployment(toy.app, start=START) as deployment:
        deployment.run_until(START + HOUR)
    assert toy.at("ping") == [minute * MINUTE for minute in range(1, 61)]


def test_the_real_clock_is_back_afterwards() -> None:
    toy = Toy()
    before, sleep = datetime.now(UTC), time.sleep
    with Deployment(toy.app, start=START) as deployment:
        assert datetime.now(UTC) == START
        assert time.sleep is not sleep
        deployment.run_for(HOUR)
        assert datetime.now(UTC) == deployment.now == START + HOUR
    assert before <= datetime.now(UTC) < before + MINUTE
    assert time.sleep is sleep


def test_nothing_keeps_a_deployment_that_is_over() -> None:
    toy = Toy(beat_schedule={"ping": every_minute("toy.note", "ping")})
    deployment = Deployment(toy.app, start=START)
    with deployment:
        deployment.run_for(MINUTE)
    over = weakref.ref(deployment)
    del deployment
    gc.collect()
    assert over() is None


def test_what_a_process_says_past_its_log_stays_off_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    toy = Toy()

    def refuse(**_: Any) -> None:
        assert sys.__stderr__ is not None
        sys.__stderr__.write("cannot start\n")
        toy.ran.append(("refused", START))

    stderr = sys.__stderr__
    worker_init.connect(refuse)
    try:
        with Deployment(toy.app, start=START) as deployment:
            deployment.run_for(MINUTE)
    finally:
        worker_init.disconnect(refuse)
    assert toy.at("refused")
    assert capfd.readouterr().err == ""
    assert sys.__stderr__ is stderr


def test_what_was_current_is_current_again() -> None:
    before, state = current_app._get_current_object(), random.getstate()
    handler = signal.getsignal(signal.SIGINT)
    toy = Toy()
    with Deployment(toy.app, start=START) as deployment:
        assert current_app._get_current_object() is toy.app
        deployment.run_for(MINUTE)
    assert current_app._get_current_object() is before
    assert random.getstate() == state
    assert signal.getsignal(signal.SIGINT) is handler
    assert not task_join_will_block()
    assert "nowhere.invalid" in toy.app.connection_for_write().as_uri()


def test_ctrl_c_ends_the_replay_and_not_a_worker() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, beats=0) as deployment:
        deployment.call_at(START + MINUTE, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            deployment.run_for(HOUR)
        assert deployment.now == START + MINUTE
        assert deployment.workers["worker1"].alive


def test_a_body_that_sleeps_holds_its_slot_for_so_long() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, workers=[one_slot()], beats=0) as deployment:
        deployment.call_at(START, lambda: toy.work.delay("a", 90))
        deployment.call_at(START, lambda: toy.work.delay("b", 30))
        deployment.run_for(HOUR)
    assert (toy.at("a"), toy.at("b")) == ([90 * SECOND], [120 * SECOND])


def test_two_slots_and_two_workers_run_four_tasks_at_once() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, workers=[WorkerGroup(2, 2)], beats=0) as deployment:
        for name in "abcde":
            deployment.call_at(START, lambda name=name: toy.work.delay(name, 60))
        deployment.run_for(HOUR)
    assert [toy.at(name)[0] // SECOND for name in "abcde"] == [60, 60, 60, 60, 120]


def test_service_times_are_spent_before_and_after_the_body() -> None:
    toy = Toy()
    times = {"toy.note": ServiceTime(before=2, after=3)}
    with Deployment(
        toy.app,
        start=START,
        workers=[one_slot()],
        beats=0,
        service_times=lambda task: times[task],
    ) as deployment:
        for name in "ab":
            deployment.call_at(START, lambda name=name: toy.note.delay(name))
        deployment.run_for(MINUTE)
    assert (toy.at("a"), toy.at("b")) == ([2 * SECOND], [7 * SECOND])


def test_urgent_messages_overtake_those_that_wait() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, workers=[one_slot()], beats=0) as deployment:

        def publish() -> None:
            toy.work.delay("first", 10)
            for priority in (9, 5, 0, 5):  # 0 is the most urgent on Redis
                toy.note.apply_async([str(priority)], priority=priority)

        deployment.call_at(START, publish)
        deployment.run_for(MINUTE)
    assert toy.names == ["first", "0", "5", "5", "9"]


def test_a_countdown_is_waited_for_by_the_worker() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, beats=0) as deployment:
        deployment.call_at(START, lambda: toy.note.apply_async(["later"], countdown=25))
        deployment.run_for(HOUR)
    assert toy.at("later") == [25 * SECOND]


def test_a_retry_comes_after_its_countdown_and_runs_out() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, beats=0) as deployment:
        deployment.call_at(START, lambda: toy.flaky.delay("third", 2, 20))
        deployment.call_at(START, lambda: toy.flaky.delay("never", 9, 20))
        deployment.run_for(HOUR)
        ends = deployment.trace.counts
    assert toy.ran == [("third", START + 40 * SECOND)]
    assert (ends["retried"], ends["failed"]) == (5, 1)


def test_a_killed_workers_message_comes_back_after_the_visibility_timeout() -> None:
    toy = Toy(visibility_timeout=VISIBILITY)
    with Deployment(toy.app, start=START, workers=[one_slot()], beats=0) as deployment:
        deployment.call_at(START, lambda: toy.work.delay("long", 20))
        deployment.run_for(5 * SECOND)
        deployment.workers["worker1"].kill()
        deployment.run_for(HOUR)
        redelivered = deployment.trace.counts["redelivered"]
    assert redelivered == 1
    (ran,) = toy.at("long")
    assert timedelta(seconds=VISIBILITY + 20) <= ran <= timedelta(seconds=VISIBILITY + 25)


def test_without_a_lease_a_task_longer_than_the_visibility_timeout_runs_again() -> None:
    """As measured on a real Redis: kombu's own behaviour, not ours."""
    toy = Toy(visibility_timeout=VISIBILITY)
    with Deployment(toy.app, start=START, workers=[WorkerGroup(2, 2)], beats=0) as deployment:
        deployment.call_at(START, lambda: toy.work.delay("long", 3 * VISIBILITY - 1))
        deployment.run_for(10 * MINUTE)
    assert len(toy.at("long")) == 3


@pytest.mark.parametrize(("expires", "delay"), [(5, 5), (300, 300)])
def test_a_mutex_that_a_dead_worker_holds_delays_the_others_until_it_expires(
    expires: int, delay: int
) -> None:
    """kombu's default is 300 seconds."""
    toy = Toy(visibility_timeout=VISIBILITY)
    toy.app.conf.broker_transport_options["unacked_mutex_expire"] = expires
    with Deployment(toy.app, start=START, workers=[WorkerGroup(3, 1)], beats=0) as deployment:
        deployment.call_at(START, lambda: toy.work.delay("long", 20))
        deployment.run_for(5 * SECOND)
        (busy,) = [each for each in deployment.workers.values() if each.holds_messages]
        busy.kill()
        deployment.broker.kill_next_holder()
        deployment.run_for(HOUR)
        counts = deployment.trace.counts
    assert (counts["orphaned"], counts["killed"], counts["redelivered"]) == (1, 2, 1)
    (ran,) = toy.at("long")
    back = ran - timedelta(seconds=VISIBILITY + 20)
    assert delay * SECOND <= back <= (delay + 5) * SECOND


def test_a_worker_that_is_told_to_stop_ends_what_it_runs_and_leaves_the_rest() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, workers=[one_slot()], beats=0) as deployment:
        for name in ("first", "second"):
            deployment.call_at(START, partial(toy.work.delay, name, 20))
        deployment.run_for(5 * SECOND)
        stop(deployment.workers["worker1"], status=75)
        deployment.run_for(MINUTE)
        counts = deployment.trace.counts
        statuses = [each for each in deployment.trace.about("exited") if '"status":75' in each]
    assert len(statuses) == counts["exited"] == 1
    assert (counts["started"], counts["succeeded"], counts["redelivered"]) == (2, 2, 0)
    assert toy.at("second") == [43 * SECOND]


def test_of_two_workers_only_the_one_that_is_told_to_stop_does() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, workers=[WorkerGroup(2, 1)], beats=0) as deployment:
        deployment.run_for(5 * SECOND)
        stop(deployment.workers["worker2"], status=75)
        deployment.call_at(deployment.now, lambda: toy.note.delay("by worker1"))
        deployment.run_for(2 * SECOND)
        alive = {name: worker.alive for name, worker in deployment.workers.items()}
    assert alive == {"worker1": True, "worker2": False}
    assert toy.names == ["by worker1"]


def stop(worker: WorkerProcess, *, status: int) -> None:
    """As a thread of a real worker tells it to stop."""

    def tell() -> None:
        state.should_stop = status  # type: ignore[assignment]
        worker.look_around()

    worker.spawn(tell)


def test_soft_and_hard_time_limits_strike() -> None:
    toy = Toy()
    with Deployment(toy.app, start=START, workers=[one_slot()], beats=0) as deployment:
        deployment.call_at(START, lambda: toy.limited.delay("meek", stubborn=False))
        deployment.call_at(START, lambda: toy.limited.delay("stubborn", stubborn=True))
        deployment.call_at(START, lambda: toy.note.delay("next"))
        deployment.run_for(HOUR)
        ends = deployment.trace.counts
    assert toy.at("meek interrupted") == [10 * SECOND]
    assert toy.at("stubborn interrupted") == [20 * SECOND]
    assert toy.at("next") == [30 * SECOND]
    assert (ends["succeeded"], ends["failed"], ends["acked"]) == (2, 1, 3)


def test_a_worker_waits_for_a_broker_that_is_away_and_goes_on() -> None:
    toy = Toy(broker_connection_max_retries=None)
    with Deployment(toy.app, start=START, beats=0) as deployment:
        deployment.call_at(START, lambda: toy.note.delay("before"))
        deployment.run_for(MINUTE)
        deployment.broker.go_down()
        deployment.run_for(5 * MINUTE)
        deployment.broker.come_back()
        deployment.call_at(deployment.now + MINUTE, lambda: toy.note.delay("after"))
        deployment.run_for(5 * MINUTE)
    assert toy.names == ["before", "after"]


def test_publishing_to_a_broker_that_is_away_fails_as_with_redis() -> None:
    toy = Toy()
    failed: list[Exception] = []
    with Deployment(toy.app, start=START, beats=0) as deployment:
        deployment.broker.go_down()

        def publish() -> None:
            try:
                toy.note.apply_async(["lost"], retry=False)
            except toy.app.connection_for_write().connection_errors as error:
                failed.append(error)
            except Exception as error:
                failed.append(error)

        deployment.call_at(START, publish)
        deployment.run_for(MINUTE)
    assert [type(error).__name__ for error in failed] == ["OperationalError"]


def test_worker_groups_serve_their_own_queues() -> None:
    toy = Toy(task_default_queue="fast")
    groups = [one_slot(queues=("fast",)), one_slot(queues=("slow",), name="bulk")]
    with Deployment(toy.app, start=START, workers=groups, beats=0) as deployment:
        deployment.call_at(START, lambda: toy.work.apply_async(["bulk", 600], queue="slow"))
        deployment.call_at(START, lambda: toy.work.apply_async(["fast", 1], queue="fast"))
        deployment.run_for(HOUR)
        started = [line for line in deployment.trace.about("worker1", "bulk1") if "started" in line]
    assert toy.names == ["fast", "bulk"]
    assert [("worker1" in line, "bulk1" in line) for line in started] == [
        (False, True),
        (True, False),
    ]


@pytest.mark.parametrize(("day", "runs"), [(datetime(2026, 11, 1, 4, tzinfo=UTC), 24), (START, 24)])
def test_stock_beat_shows_its_own_mistake_on_the_autumn_day(day: datetime, runs: int) -> None:
    """celery/celery#10107: a day of 25 hours gets 24 hourly runs from Celery's own crontab."""
    hours = 25 if day.month == 11 else 24
    toy = Toy(
        beat_schedule={"hourly": {"task": "toy.note", "schedule": crontab(minute=0), "args": ["h"]}}
    )
    with Deployment(toy.app, start=day) as deployment:
        deployment.run_for(hours * HOUR)
    assert len(toy.ran) == runs


def traced(seed: int, **options: Any) -> str:
    toy = Toy(
        visibility_timeout=VISIBILITY,
        beat_schedule={name: every_minute("toy.jittered", name) for name in "cab"},
    )
    lines = io.StringIO()
    with Deployment(
        toy.app, start=START, seed=seed, workers=[WorkerGroup(2, 2)], trace_into=lines, **options
    ) as deployment:
        deployment.run_for(10 * MINUTE)
        deployment.workers["worker1"].kill()
        deployment.run_for(10 * MINUTE)
    return lines.getvalue()


def test_a_seed_gives_one_trace_and_another_seed_another() -> None:
    first, again, other = traced(7), traced(7), traced(8)
    assert first == again
    assert first != other
    assert first.count("retried") > 20


def test_passing_over_quiet_ticks_changes_nothing() -> None:
    assert traced(7, skip_quiet_ticks=False) == traced(7)


def test_a_beat_that_was_sent_away_stays_away_when_others_come_back() -> None:
    toy = Toy()
    faults = [
        Fault("second-beat", dt_time(0, 1), MINUTE),
        Fault("beat-down", dt_time(0, 5), MINUTE),
    ]
    with Deployment(toy.app, start=START) as deployment:
        schedule(deployment, deployment, faults, ENGINE_FAULTS, day=START.date(), zone=EASTERN)
        deployment.run_for(10 * MINUTE)
        alive = {name: beat.alive for name, beat in deployment.beats.items()}
    assert alive == {"beat1": True, "beat2": False}


@pytest.mark.parametrize(
    ("kind", "is_away"),
    [
        ("redis-down", lambda deployment: deployment.broker.down),
        ("workers-down", lambda deployment: not deployment.workers["worker1"].alive),
        ("beat-down", lambda deployment: not deployment.beats["beat1"].alive),
    ],
)
def test_what_two_faults_take_away_is_back_when_both_are_over(
    kind: str, is_away: Callable[[Deployment], bool]
) -> None:
    faults = [Fault(kind, dt_time(0, minute), 10 * MINUTE) for minute in (1, 6)]
    with Deployment(Toy().app, start=START) as deployment:
        schedule(deployment, deployment, faults, ENGINE_FAULTS, day=START.date(), zone=EASTERN)
        away = []
        for minute in (2, 12, 17):
            deployment.run_until(START + minute * MINUTE)
            away.append(is_away(deployment))
    assert away == [True, True, False]


def test_of_two_wrong_clocks_of_one_process_the_last_counts_until_it_is_right() -> None:
    with Deployment(Toy().app, start=START) as deployment:
        beat = deployment.beats["beat1"]
        first = deployment.mislead("beat1", SECOND)
        second = deployment.mislead("beat1", 3 * SECOND)
        first()
        assert beat.clock_error == 3 * SECOND
        second()
        assert beat.clock_error == 0 * SECOND
