"""The health check as a task and as a command."""

import json
import logging
from typing import NoReturn

import pytest
from celery import Celery
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy import Engine

from app import db, outbox, routing
from app.models import BeatEntry, PausedQueue
from app.outbox import guard
from app.outbox.broker import BrokerUnavailableError
from app.outbox.guard import Delivery
from app.services.email import DELIVER
from app.settings import load_settings
from app.tasks import health
from app.tasks.health import health_check, main
from tests.fakes import FakeBroker, FakeClock
from tests.tracing import deliver_foreign


@pytest.fixture(autouse=True)
def _a_beat_has_fired(broker: FakeBroker, now: FakeClock) -> None:
    with db.transaction() as session:
        session.add(BeatEntry(name="health-check", schedule_hash="x", last_due=now.now))


ALL = frozenset(spec.name for spec in routing.QUEUES)


class Workers:
    """What those that answer take from, each time that they are asked."""

    def __init__(self) -> None:
        self.answers: list[dict[str, list[frozenset[str]]] | Exception] = [
            {"one": [ALL], "other": [ALL]}
        ]
        self.asked = 0

    def __call__(self, _app: Celery, *, timeout: float) -> dict[str, list[frozenset[str]]]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    answering = Workers()
    monkeypatch.setattr(health, "queues_by_worker", answering)
    return answering


@pytest.fixture(autouse=True)
def pools(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The pools of the workers that answer."""
    answering = [("one", "prefork"), ("other", "prefork")]
    monkeypatch.setattr(health, "pools_of_workers", lambda _app, **_: answering)
    return answering


@pytest.fixture(autouse=True)
def outages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, str]]:
    """The workers that cannot reach the database, for so many seconds, and the reasons."""
    answering: list[tuple[str, float, str]] = []
    monkeypatch.setattr(health, "outages_of_workers", lambda _app, **_: answering)
    return answering


def test_a_worker_that_cannot_reach_the_database_is_a_problem(
    outages: list[tuple[str, float, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    outages.append(("one@here", 35.2, "connection refused"))
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines()[0] == (
        "one@here has taken no messages for 35 s, the database does not answer it: "
        "connection refused"
    )


def test_the_task_says_what_it_found_and_logs_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, health.__name__)
    assert deliver_foreign(health_check, "some-id").result["healthy"] is True
    assert [record.message for record in caplog.records if record.name == health.__name__] == [
        "healthy"
    ]


def test_the_task_logs_each_problem_and_is_done_all_the_same(
    broker: FakeBroker, caplog: pytest.LogCaptureFixture
) -> None:
    broker.down = True
    outcome = deliver_foreign(health_check, "some-id")
    assert (outcome.state, outcome.result["redis"]) == ("SUCCESS", "down")
    assert "not healthy: Redis does not answer: connection refused" in caplog.text


def test_the_command_says_so_and_ends_with_0_where_all_is_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "healthy"


def test_the_command_says_what_is_wrong_in_a_line_each_and_ends_with_1(
    broker: FakeBroker, now: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.down = True
    now.advance(seconds=load_settings().health_beat_seconds + 1)
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines()[:3] == [
        "beat has fired nothing for 181 s: does one run, is its clock right?",
        "Redis does not answer: connection refused",
        "",
    ]


def test_the_command_names_work_that_fails_and_retries(
    now: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    error = "MailServerUnavailableError: mail.example:25: Connection refused"
    with db.transaction() as session:
        entry_id = outbox.enqueue(session, DELIVER, [1])
        guard.put_back(
            session, Delivery(entry_id, DELIVER), due_at=now.now, error=error, now=now.now
        )
    now.advance(seconds=40)
    assert main([]) == 0
    assert f"retrying      1 of {DELIVER}, the oldest for 40 s: {error}" in (
        capsys.readouterr().out.splitlines()
    )
    now.advance(seconds=load_settings().health_retrying_seconds)
    assert main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["retrying"][DELIVER]["number"], told["retrying"][DELIVER]["error"]) == (1, error)


@pytest.mark.parametrize(("down", "status"), [(False, 0), (True, 1)])
def test_a_machine_gets_the_tasks_dict(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], down: bool, status: int
) -> None:
    broker.down = down
    assert main(["--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is not down
    assert found.pop("workers") == (None if down else 2)
    assert len(found.pop("pools")) == (0 if down else 2)
    assert found == deliver_foreign(health_check, "some-id").result


def test_the_command_counts_workers(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "workers       2 answer",
        "pool prefork  2",
    ]


def test_the_command_shows_the_time_limits_that_a_pool_ignores(
    pools: list[tuple[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    pools[:] = [("a", "prefork"), ("b", "threads"), ("c", "threads"), ("d", "gevent")]
    assert main([]) == 0, "it is no problem: whoever chose the pool may know it"
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "pool gevent   1, soft time limits are not enforced",
        "pool prefork  1",
        "pool threads  2, time limits are not enforced",
    ]
    main(["--json"])
    assert json.loads(capsys.readouterr().out)["pools"][1:3] == [
        {"worker": "b", "pool": "threads", "not_enforced": ["soft", "hard"]},
        {"worker": "c", "pool": "threads", "not_enforced": ["soft", "hard"]},
    ]


def test_that_no_worker_answers_is_a_problem(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.answers = [{}]
    assert main([]) == 1
    problem, empty, *_ = capsys.readouterr().out.splitlines()
    assert (problem, empty) == (health.NO_WORKER, "")
    assert main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["healthy"], told["workers"], told["problems"]) == (False, 0, [health.NO_WORKER])


def test_queues_that_no_worker_takes_from_are_a_problem(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.answers = [
        {
            "most": [ALL - {"bookings", "cache"}],
            "slow": [frozenset({"cache"})],
            "own": [frozenset()],
        }
    ]
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines()[:2] == [
        "no worker takes from bookings: start one with -Q bookings, or one without -Q",
        "",
    ]


def test_a_paused_queue_is_one_that_no_worker_takes_from_and_is_no_problem(
    workers: Workers, now: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.answers = [{"one": [ALL - {"email"}]}]
    with db.transaction() as session:
        session.add(PausedQueue(name="email", paused_at=now.now))
    assert main([]) == 0
    assert capsys.readouterr().out.splitlines()[0] == (
        f"healthy, but email is paused since {now.now:%Y-%m-%d %H:%M} UTC: "
        "python -m app.admin queues resume email"
    )


def test_paused_queues_are_named_below_the_problems(
    broker: FakeBroker, now: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    with db.transaction() as session:
        for name in ("cache", "email"):
            session.add(PausedQueue(name=name, paused_at=now.now))
    broker.down = True
    assert main([]) == 1
    problem, paused, empty = capsys.readouterr().out.splitlines()[:3]
    since = f"since {now.now:%Y-%m-%d %H:%M} UTC"
    assert (problem, empty) == ("Redis does not answer: connection refused", "")
    assert paused == (
        f"cache is paused {since}, email is paused {since}: "
        "python -m app.admin queues resume cache email"
    )


def test_workers_that_are_slow_to_answer_are_asked_again(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = {"one": [ALL - {"email"}]}, {"other": [frozenset({"email"})]}
    workers.answers = [one, other, {}]
    assert main(["--json"]) == 0
    assert (json.loads(capsys.readouterr().out)["workers"], workers.asked) == (2, 2)


def test_workers_of_one_name_are_told_apart_from_one_and_are_a_problem(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    some = frozenset({"celery", "email", "notifications"})
    workers.answers = [{"celery@here": [some, ALL - some]}]
    assert main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["workers"], told["problems"]) == (
        2,
        ["2 workers are called celery@here: give each a name of its own with -n"],
    )


def test_of_workers_of_one_name_one_that_is_late_once_is_not_forgotten(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    some, others = frozenset({"celery"}), ALL - {"celery", "cache"}
    workers.answers = [{"celery@here": [some, others]}, {"celery@here": [some]}]
    assert main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["workers"], told["problems"][1:]) == (
        2,
        ["no worker takes from cache: start one with -Q cache, or one without -Q"],
    )


def test_workers_that_have_all_answered_are_not_asked_again(workers: Workers) -> None:
    assert main([]) == 0
    assert workers.asked == 1


def test_a_redis_that_is_gone_when_workers_are_asked_is_a_problem(
    workers: Workers, capsys: pytest.CaptureFixture[str]
) -> None:
    workers.answers = [RedisConnectionError("connection refused")]
    assert main(["--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["problems"], told["workers"]) == (
        ["Redis does not answer: connection refused"],
        None,
    )


def test_a_redis_that_drops_messages_when_it_is_full_is_a_problem(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.limit_bytes, broker.policy = 10**9, "allkeys-lru"
    assert main([]) == 1
    assert capsys.readouterr().out.splitlines()[0] == (
        "Redis drops messages when it is full (maxmemory-policy allkeys-lru): set it to noeviction"
    )


@pytest.mark.parametrize(
    ("limit", "policy"),
    [
        (None, "allkeys-lru"),
        (10**9, "noeviction"),
        (10**9, "volatile-lru"),
        (10**9, None),
    ],
)
def test_a_redis_that_never_does_is_none(
    broker: FakeBroker, limit: int | None, policy: str | None
) -> None:
    broker.limit_bytes, broker.policy = limit, policy
    assert main([]) == 0


def test_a_redis_that_does_not_tell_its_memory_is_none(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden() -> NoReturn:
        raise BrokerUnavailableError("NOPERM this user has no permissions to run 'info'")

    monkeypatch.setattr(broker, "memory", forbidden)
    assert main([]) == 0


def test_workers_are_not_asked_where_redis_does_not_answer(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.down = True
    monkeypatch.setattr(health, "queues_by_worker", lambda *_, **__: pytest.fail("asked"))
    assert main([]) == 1
    assert "worker" not in capsys.readouterr().out


def test_bad_arguments_are_one_line_and_2(
    database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--jsn"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "--jsn" in said.err


def test_an_abbreviated_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--js"])
    assert ended.value.code == 2
    assert "unrecognized arguments: --js" in capsys.readouterr().err
