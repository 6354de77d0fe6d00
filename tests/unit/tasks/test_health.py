"""The health check as a task and as a command."""

import json
import logging

import pytest
from sqlalchemy import Engine

from app import db
from app.models import BeatEntry
from app.settings import load_settings
from app.tasks import health
from app.tasks.health import health_check, main
from tests.fakes import FakeBroker, FakeClock
from tests.tracing import deliver_foreign


@pytest.fixture(autouse=True)
def _a_beat_has_fired(broker: FakeBroker, now: FakeClock) -> None:
    with db.transaction() as session:
        session.add(BeatEntry(name="health-check", schedule_hash="x", last_due=now.now))


@pytest.fixture(autouse=True)
def workers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of those that answer a ping."""
    answering = ["one", "other"]
    monkeypatch.setattr(health, "answering_workers", lambda: len(answering))
    return answering


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


@pytest.mark.parametrize(("down", "status"), [(False, 0), (True, 1)])
def test_a_machine_gets_the_tasks_dict(
    broker: FakeBroker, capsys: pytest.CaptureFixture[str], down: bool, status: int
) -> None:
    broker.down = down
    assert main(["--json"]) == status
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is not down
    assert found.pop("workers") == (None if down else 2)
    assert found.pop("warnings") == []
    assert found == deliver_foreign(health_check, "some-id").result


def test_the_command_counts_workers(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert capsys.readouterr().out.splitlines()[-1] == "workers       2 answer"


def test_that_no_worker_answers_is_a_warning_and_no_reason_to_end_with_1(
    workers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    workers.clear()
    assert main([]) == 0
    healthy, warning, *_ = capsys.readouterr().out.splitlines()
    assert (healthy, warning) == ("healthy", f"warning: {health.NO_WORKER}")
    assert main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["healthy"], told["workers"], told["warnings"]) == (True, 0, [health.NO_WORKER])


def test_workers_are_not_asked_where_redis_does_not_answer(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.down = True
    monkeypatch.setattr(health, "answering_workers", lambda: pytest.fail("asked"))
    assert main([]) == 1
    assert "warning" not in capsys.readouterr().out


def test_bad_arguments_are_one_line_and_2(
    database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--jsn"])
    said = capsys.readouterr()
    assert (ended.value.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "--jsn" in said.err
