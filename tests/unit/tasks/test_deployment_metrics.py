from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import count
from threading import Event
from typing import Any

import pytest
from celery.beat import ScheduleEntry
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from app import db, outbox, routing
from app.models import BeatDefinition, BeatEntry, EmailState
from app.outbox import BrokerUnavailableError, figures, guard
from app.outbox.guard import Delivery
from app.services import queues
from app.services.health import MOST_REFUSED
from app.tasks import celery_app, deployment_metrics, email
from app.tasks.celery_config import BEAT_SCHEDULE
from app.tasks.deployment_metrics import (
    FRESH_SECONDS,
    SHARE,
    UNCERTAIN_FOR,
    Answer,
    DeploymentMetrics,
)
from tests.builders import a_lesson, a_mail
from tests.database import on_sqlite
from tests.fakes import FOREIGN, FakeBroker, FakeClock

TASK = email.deliver.name
HEALTH_CHECK = "health-check"


class Time:
    """The monotonic clock of the answers."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    fake = Time()
    monkeypatch.setattr(deployment_metrics, "time", fake)
    return fake


@pytest.fixture
def gauges(broker: FakeBroker, now: FakeClock) -> DeploymentMetrics:
    return DeploymentMetrics(celery_app, broker)


def samples(gauges: DeploymentMetrics) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for metric in gauges.collect()
        for sample in metric.samples
    }


def enqueue(**options: Any) -> str:
    with db.transaction() as session:
        return outbox.enqueue(session, TASK, 1, **options)


def test_every_queue_has_a_depth_over_all_urgencies(
    gauges: DeploymentMetrics, broker: FakeBroker
) -> None:
    enqueue()
    enqueue(urgency=9)
    broker.lists["email", 4].append(FOREIGN)
    seen = samples(gauges)
    depths = {key[1]: value for key, value in seen.items() if key[0] == "celery_queue_depth"}
    assert depths == {spec.name: 0.0 for spec in routing.QUEUES} | {"email": 3.0}


def test_the_age_of_a_queue_is_that_of_its_oldest_message(
    gauges: DeploymentMetrics, now: FakeClock
) -> None:
    enqueue()
    now.advance(seconds=40)
    enqueue(urgency=9)
    now.advance(seconds=2)
    seen = samples(gauges)
    assert seen["celery_queue_oldest_seconds", "email"] == 42
    assert seen["celery_queue_oldest_seconds", "bookings"] == 0


def test_a_page_tells_how_far_its_clock_is_off_redis(
    gauges: DeploymentMetrics, broker: FakeBroker, now: FakeClock
) -> None:
    broker.clock = FakeClock(now.now - timedelta(seconds=7))
    assert samples(gauges)["clock_offset_seconds",] == 7


def test_the_clock_is_left_out_where_redis_does_not_answer(
    gauges: DeploymentMetrics, broker: FakeBroker
) -> None:
    broker.down = True
    assert ("clock_offset_seconds",) not in samples(gauges)


def test_rows_are_counted_by_state(gauges: DeploymentMetrics) -> None:
    enqueue()
    assert samples(gauges)["outbox_rows", "pending"] == 1
    assert samples(gauges)["outbox_rows", "done"] == 0


def test_pending_rows_are_told_by_how_far_they_have_come(
    gauges: DeploymentMetrics, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue()
    broker.down = True
    enqueue()
    enqueue(at=now.now + timedelta(hours=1))
    enqueue(at=now.now + timedelta(hours=2))
    seen = samples(gauges)
    stages = {key[1]: value for key, value in seen.items() if key[0] == "outbox_pending_rows"}
    assert stages == {"published": 1, "unpublished": 1, "later": 2}


def test_the_outbox_lags_by_its_oldest_row_that_is_due_and_not_published(
    gauges: DeploymentMetrics, broker: FakeBroker, now: FakeClock
) -> None:
    enqueue()
    broker.down = True
    enqueue(at=now.now + timedelta(seconds=10))
    now.advance(seconds=52)
    assert samples(gauges)["outbox_unpublished_seconds",] == 42


def test_an_outbox_that_is_drained_does_not_lag(gauges: DeploymentMetrics) -> None:
    assert samples(gauges)["outbox_unpublished_seconds",] == 0


def test_a_paused_queue_says_for_how_long(
    gauges: DeploymentMetrics, database: Engine, now: FakeClock
) -> None:
    with db.transaction() as session:
        queues.pause(session, ["email"], now=now.now)
    now.advance(seconds=90)
    paused = {k[1]: v for k, v in samples(gauges).items() if k[0] == "celery_queue_paused_seconds"}
    assert paused == {spec.name: 0.0 for spec in routing.QUEUES} | {"email": 90}


@pytest.mark.parametrize(
    ("uncertain", "ago", "counted"),
    [(0, timedelta(0), 0), (2, UNCERTAIN_FOR - timedelta(seconds=1), 1), (2, UNCERTAIN_FOR, 0)],
)
def test_a_mail_that_may_have_gone_out_twice_counts_for_a_day(
    gauges: DeploymentMetrics, now: FakeClock, uncertain: int, ago: timedelta, counted: int
) -> None:
    with db.transaction() as session:
        mail = a_mail(session, about=a_lesson(session, starts_at=now.now), state=EmailState.SENT)
        mail.sent_at, mail.uncertain = now.now - ago, uncertain
    assert samples(gauges)["mails_uncertain",] == counted


def test_redis_says_how_much_memory_it_has_left(
    gauges: DeploymentMetrics, broker: FakeBroker
) -> None:
    broker.used_bytes, broker.limit_bytes = 900, 1000
    seen = samples(gauges)
    assert seen["celery_broker_memory_bytes",] == 900
    assert seen["celery_broker_memory_limit_bytes",] == 1000


def test_a_redis_without_a_limit_has_none(gauges: DeploymentMetrics) -> None:
    seen = samples(gauges)
    assert ("celery_broker_memory_bytes",) in seen
    assert ("celery_broker_memory_limit_bytes",) not in seen


def test_a_redis_that_does_not_tell_its_memory_costs_no_other_gauge(
    gauges: DeploymentMetrics, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise BrokerUnavailableError("this user has no permissions to run the 'info' command")

    monkeypatch.setattr(broker, "memory", refuse)
    names = {name for name, *_ in samples(gauges)}
    assert "celery_queue_depth" in names
    assert "celery_broker_memory_bytes" not in names


def test_a_task_without_a_dead_letter_has_none_so_that_the_first_is_an_increase(
    gauges: DeploymentMetrics,
) -> None:
    seen = {k[1]: v for k, v in samples(gauges).items() if k[0] == "dead_letters_total"}
    assert set(seen.values()) == {0}
    own = {name for name in celery_app.tasks if name.startswith("app.tasks.")}
    assert own <= set(seen)


def test_dead_letters_of_unknown_tasks_share_a_label(gauges: DeploymentMetrics) -> None:
    with db.transaction() as session:
        for task in (TASK, "somebody.elses", "nobodys.either"):
            outbox.bury_new(session, task, error="no")
    seen = samples(gauges)
    assert seen["dead_letters_total", TASK] == 1
    assert seen["dead_letters_total", "unknown"] == 2
    assert not any("elses" in part for key in seen for part in key)


def retry_of(task: str, *, now: FakeClock, error: str = "ConnectionError: refused") -> None:
    """An entry of ``task`` whose first attempt has failed."""
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, task, unchecked=True)
        guard.put_back(session, Delivery(entry_id, task), due_at=now.now, error=error, now=now.now)


def test_work_that_retries_is_counted_by_task_with_the_age_of_the_oldest(
    gauges: DeploymentMetrics, now: FakeClock
) -> None:
    retry_of(TASK, now=now)
    now.advance(seconds=40)
    retry_of(TASK, now=now)
    now.advance(seconds=2)
    seen = samples(gauges)
    assert seen["outbox_retrying", TASK, "email"] == 2
    assert seen["outbox_retrying_oldest_seconds", TASK, "email"] == 42
    idle = email.send_booking_confirmation.name
    assert seen["outbox_retrying", idle, "email"] == 0
    assert seen["outbox_retrying_oldest_seconds", idle, "email"] == 0


def test_retrying_tasks_that_this_app_does_not_know_share_a_label(
    gauges: DeploymentMetrics, now: FakeClock
) -> None:
    retry_of("app.tasks.email.renamed_long_ago", now=now)
    now.advance(seconds=5)
    retry_of("somebody.elses", now=now)
    retry_of("ada@example.com", now=now)
    seen = samples(gauges)
    assert seen["outbox_retrying", "unknown", "email"] == 1
    assert seen["outbox_retrying", "unknown", "celery"] == 2
    assert seen["outbox_retrying_oldest_seconds", "unknown", "email"] == 5
    assert not any("elses" in part or "@" in part for key in seen for part in key)


def test_a_mail_that_is_refused_for_now_is_counted_and_has_no_age(
    gauges: DeploymentMetrics, now: FakeClock
) -> None:
    retry_of(TASK, now=now, error="MailTemporarilyRefusedError: SMTP 452 4.2.2 to RCPT")
    now.advance(days=1)
    seen = samples(gauges)
    assert seen["outbox_retrying", TASK, "email"] == 1
    assert seen["outbox_retrying_oldest_seconds", TASK, "email"] == 0


def test_so_many_refused_mails_that_health_reports_them_have_an_age(
    gauges: DeploymentMetrics, now: FakeClock
) -> None:
    for _ in range(MOST_REFUSED + 1):
        retry_of(TASK, now=now, error="MailTemporarilyRefusedError: SMTP 452 4.2.2 to RCPT")
    now.advance(seconds=301)
    assert samples(gauges)["outbox_retrying_oldest_seconds", TASK, "email"] == 301


def test_a_page_asks_the_database_each_question_once(
    gauges: DeploymentMetrics, database: Engine, now: FakeClock
) -> None:
    retry_of(TASK, now=now)
    asked: list[tuple[str, str]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, str(parameters)))

    event.listen(database, "before_cursor_execute", note)
    samples(gauges)
    event.remove(database, "before_cursor_execute", note)
    assert [question for question in set(asked) if asked.count(question) > 1] == []
    assert asked


@pytest.mark.parametrize(("late", "lag"), [(-1, 0), (0, 0), (90, 90)])
def test_an_entry_lags_from_its_due_instant_on(
    gauges: DeploymentMetrics, now: FakeClock, late: float, lag: float
) -> None:
    last_due = now.now
    with db.transaction() as session:
        session.add(BeatEntry(name=HEALTH_CHECK, schedule_hash="x", last_due=last_due))
        session.add(
            BeatEntry(name="taken-out-of-the-schedule", schedule_hash="x", last_due=last_due)
        )
    now.now = last_due + timedelta(minutes=1, seconds=late)
    lags = {k[1]: v for k, v in samples(gauges).items() if k[0] == "celery_beat_lag_seconds"}
    assert lags == {HEALTH_CHECK: lag}
    assert HEALTH_CHECK in BEAT_SCHEDULE


def test_an_entry_that_is_an_object_of_celerys_lags_alike(
    gauges: DeploymentMetrics, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = ScheduleEntry(name="x", task=TASK, schedule=timedelta(minutes=1), app=celery_app)
    monkeypatch.setitem(celery_app.conf, "beat_schedule", {"x": entry})
    with db.transaction() as session:
        session.add(BeatEntry(name="x", schedule_hash="x", last_due=now.now))
    now.now += timedelta(minutes=1, seconds=5)
    assert samples(gauges)["celery_beat_lag_seconds", "x"] == 5


def test_an_entry_lags_from_its_first_due_instant_without_a_run(
    gauges: DeploymentMetrics, now: FakeClock
) -> None:
    """Also where the definition in force is another one, and where only what is remembered
    moves."""
    with db.transaction() as session:
        session.add(
            BeatEntry(
                name=HEALTH_CHECK,
                schedule_hash="another",
                last_due=now.now,
                next_due=now.now - timedelta(minutes=7),
            )
        )
    assert samples(gauges)["celery_beat_lag_seconds", HEALTH_CHECK] == 7 * 60


def test_definitions_of_living_beats_are_counted(gauges: DeploymentMetrics, now: FakeClock) -> None:
    with db.transaction() as session:
        for name, in_force in (("one", "a"), ("two", "a"), ("older", "older")):
            session.add(
                BeatEntry(name=name, schedule_hash=in_force, definition="a", last_due=now.now)
            )
            for definition in "ab" if name == "two" else "a":
                session.add(
                    BeatDefinition(
                        name=name,
                        definition=definition,
                        schedule_hash=definition,
                        description="x",
                        seen_at=now.now,
                        host="x",
                    )
                )
    found = {k[1]: v for k, v in samples(gauges).items() if k[0] == "celery_beat_definitions"}
    assert found == {"one": 1, "two": 2, "older": 2}


def test_without_redis_the_rest_is_told(gauges: DeploymentMetrics, broker: FakeBroker) -> None:
    broker.down = True
    names = {name for name, *_ in samples(gauges)}
    assert "outbox_rows" in names
    assert "celery_queue_depth" not in names


def test_without_the_database_the_rest_is_told(
    gauges: DeploymentMetrics, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_session: object) -> None:
        raise OperationalError("SELECT", {}, Exception("no such table"))

    monkeypatch.setattr(deployment_metrics, "count_states", away)
    names = {name for name, *_ in samples(gauges)}
    assert "celery_queue_depth" in names
    assert "outbox_rows" not in names
    assert "the database cannot be read" in caplog.text


def test_an_answer_is_given_again_until_it_is_old(time: Time) -> None:
    answer = Answer("it", count(1).__next__)
    seen = [answer.get()]
    for step in (FRESH_SECONDS - 0.1, 0.2):
        time.now += step
        seen.append(answer.get())
    assert seen == [1, 1, 2]


def test_what_takes_long_to_read_is_read_less_often(time: Time) -> None:
    def slow() -> float:
        time.now += 10
        return time.now

    answer = Answer("it", slow)
    first = answer.get()
    time.now += SHARE * 10 - 1
    assert answer.get() == first
    time.now += 2
    assert answer.get() != first


def test_a_failure_is_logged_once_until_it_works_again(
    time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    outcomes: Iterator[bool] = iter([False, False, True, False])

    def read() -> int:
        if not next(outcomes):
            raise OSError("away")
        return 1

    answer = Answer("Redis", read)
    seen = []
    for _ in range(4):
        seen.append(answer.get())
        time.now += FRESH_SECONDS + 1
    assert seen == [None, None, 1, None]
    assert caplog.text.count("Redis cannot be read: away") == 2


def test_one_that_hangs_is_not_waited_for_and_not_asked_again() -> None:
    asked = []
    released = Event()

    def hang() -> int:
        asked.append(1)
        released.wait(10)
        return 1

    answer = Answer("it", hang)
    try:
        assert [answer.get(patience=0.01) for _ in range(3)] == [None] * 3
        assert len(asked) == 1
    finally:
        released.set()


@on_sqlite
def test_the_database_is_read_by_nobody_while_the_process_forks(
    gauges: DeploymentMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SQLite file that is open in another thread would leave the child wrong locks."""
    waits = []
    monkeypatch.setattr(
        deployment_metrics,
        "count_states",
        lambda session: waits.append(a_fork_would_wait()) or figures.count_states(session),
    )
    samples(gauges)
    assert waits == [True]
    assert not a_fork_would_wait()


def a_fork_would_wait() -> bool:
    def try_to_fork() -> bool:
        free = db._forking.acquire(blocking=False)
        if free:
            db._forking.release()
        return not free

    with ThreadPoolExecutor(1) as main:
        return main.submit(try_to_fork).result()


def test_the_gauges_need_no_database_to_be_made(database: Engine, broker: FakeBroker) -> None:
    replaced = db.use(None)
    try:
        DeploymentMetrics(celery_app, broker)
        assert db._engine is None
    finally:
        db.use(replaced)
