"""What we lean on in Celery: an upgrade that changes it fails here, by name."""

from datetime import UTC, datetime, timedelta
from inspect import getsource, signature
from typing import Any
from unittest.mock import MagicMock
from zoneinfo import ZoneInfo

import pytest
from billiard.pool import TimeoutHandler
from celery import Celery, states
from celery.app.defaults import DEFAULTS
from celery.app.trace import build_tracer
from celery.apps.beat import Beat
from celery.beat import Scheduler, Service
from celery.concurrency.asynpool import AsynPool
from celery.exceptions import Retry
from celery.schedules import crontab
from celery.utils.dispatch import Signal
from celery.utils.imports import symbol_by_name
from celery.worker.consumer import Consumer
from celery.worker.request import Request, create_request_cls

from app.tasks import BaseTask, celery_app
from app.tasks.consumer import OutboxConsumer
from app.tasks.counted_request import CountedRequest
from app.tasks.request import OutboxRequest
from app.tasks.stopping import _kill_then_report


@pytest.fixture
def app() -> Celery:
    """A plain Celery app that never connects."""
    return Celery("facts", broker="memory://", set_as_current=False)


def test_an_exception_in_a_signal_handler_is_logged_and_swallowed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So a check at the start of a worker must not just raise."""
    signal = Signal()

    def handler(**_: Any) -> None:
        raise ValueError("wrong")

    signal.connect(handler)
    ((_, answer),) = signal.send(sender=None)
    assert isinstance(answer, ValueError)
    assert "wrong" in caplog.text


def test_system_exit_in_a_signal_handler_goes_through() -> None:
    signal = Signal()

    def handler(**_: Any) -> None:
        raise SystemExit(2)

    signal.connect(handler)
    with pytest.raises(SystemExit) as caught:
        signal.send(sender=None)
    assert caught.value.code == 2


class RecordingScheduler(Scheduler):
    made: list[bool]

    def __init__(self, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        self.made.append(lazy)
        super().__init__(*args, lazy=lazy, **kwargs)


class TiredScheduler(Scheduler):
    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        raise ValueError("too tired")


def test_beat_makes_its_scheduler_twice_and_the_banners_is_lazy(app: Celery) -> None:
    """So a scheduler touches nothing when it is made."""
    RecordingScheduler.made = []
    service = Service(app, scheduler_cls=RecordingScheduler)
    Beat(app=app).banner(service)
    assert service.scheduler is service.scheduler
    assert RecordingScheduler.made == [True, False]


def test_the_banners_scheduler_is_made_before_beat_is_checked(app: Celery) -> None:
    """``beat_init`` comes when the service starts: a schedule that cannot be made fails first."""
    RecordingScheduler.made = []
    Beat(app=app).banner(Service(app, scheduler_cls=RecordingScheduler))
    assert RecordingScheduler.made == [True]


def test_an_exception_in_a_tick_ends_beat(app: Celery) -> None:
    """So a tick of ours catches every outage itself."""
    with pytest.raises(ValueError, match="too tired"):
        Service(app, scheduler_cls=TiredScheduler).start()


def test_a_tasks_request_class_is_the_one_it_names(app: Celery) -> None:
    """The main process of a worker then handles its end with ``CountedRequest``."""

    @app.task(base=BaseTask, name="facts.ours")
    def ours() -> None: ...

    @app.task(name="facts.stock")
    def stock() -> None: ...

    for task, base in ((ours, CountedRequest), (stock, Request)):
        named = symbol_by_name(task.Request)
        assert named is base
        assert issubclass(create_request_cls(named, task, MagicMock(), "host", None, app=app), base)


def test_retry_raised_by_a_body_is_the_state_retry_and_publishes_nothing(app: Celery) -> None:
    """``Task.retry`` publishes; the exception alone does not."""
    planned: list[Exception] = []

    class Planning(app.Task):
        def on_retry(self, exc: Exception, *_: Any) -> None:
            planned.append(exc)

    @app.task(base=Planning, name="facts.retrying", ignore_result=True)
    def retrying() -> None:
        raise Retry("later", exc=ValueError("not yet"), when=60)

    app.finalize()
    task = app.tasks["facts.retrying"]
    app.amqp.send_task_message = MagicMock()
    request = {"id": "1", "called_directly": False, "is_eager": False, "retries": 0}
    _, info, *_ = build_tracer(task.name, task, app=app)("1", (), {}, request)
    assert info.state == states.RETRY
    assert [str(error) for error in planned] == ["not yet"]
    app.amqp.send_task_message.assert_not_called()


def test_the_stock_crontab_answers_with_the_past_in_the_repeated_hour(app: Celery) -> None:
    """celery#10107. Where it is right one day, a crontab of our own is no longer needed."""
    app.conf.timezone = "US/Eastern"
    in_the_second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)
    every_minute = crontab(app=app, nowfun=lambda: in_the_second_pass)
    remaining = every_minute.remaining_estimate(in_the_second_pass)
    assert remaining < timedelta(0)
    assert in_the_second_pass.astimezone(ZoneInfo("US/Eastern")).fold == 1


def test_the_stock_schedulers_longest_pause_is_minutes(app: Celery) -> None:
    """So ``beat_max_loop_interval`` is set: the pump runs in beat's loop."""
    assert Scheduler(app=app).max_interval == 300
    app.conf.beat_max_loop_interval = 1
    assert Scheduler(app=app).max_interval == 1


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("create_task_handler", ["self", "promise"]),
        ("on_unknown_message", ["self", "body", "message"]),
        ("on_unknown_task", ["self", "body", "message", "exc"]),
        ("on_invalid_task", ["self", "body", "message", "exc"]),
        ("on_decode_error", ["self", "message", "exc"]),
        ("connect", ["self"]),
        ("call_soon", ["self", "p", "args", "kwargs"]),
        ("cancel_task_queue", ["self", "queue"]),
        ("bucket_for_task", ["self", "type"]),
        ("reset_rate_limits", ["self"]),
        ("_limit_task", ["self", "request", "bucket", "tokens"]),
        ("_limit_post_eta", ["self", "request", "bucket", "tokens"]),
        ("_limit_move_to_pool", ["self", "request"]),
        ("_schedule_bucket_request", ["self", "bucket"]),
        ("apply_eta_task", ["self", "task"]),
        ("on_close", ["self"]),
    ],
)
def test_the_consumer_has_the_seams_that_ours_overrides_or_calls(
    method: str, parameters: list[str]
) -> None:
    assert list(signature(getattr(Consumer, method)).parameters) == parameters


@pytest.mark.parametrize("method", ["on_failure", "on_timeout"])
def test_a_requests_ends_are_called_as_ours_overrides_them(method: str) -> None:
    stock, ours = (signature(getattr(request, method)) for request in (Request, OutboxRequest))
    assert list(stock.parameters) == list(ours.parameters)


def test_a_worker_gets_the_consumer_that_the_configuration_names() -> None:
    assert symbol_by_name(celery_app.conf.worker_consumer) is OutboxConsumer
    assert issubclass(OutboxConsumer, Consumer)
    assert DEFAULTS["worker_consumer"] == "celery.worker.consumer:Consumer"


def test_billiard_reports_a_hard_time_limit_and_kills_last() -> None:
    """Ours takes the same steps in another order (docs/decisions/0026)."""

    def steps(on_hard_timeout: Any) -> list[str]:
        took = MagicMock()
        took.job.ready.return_value = False
        limits = TimeoutHandler([], {}, None, None)
        limits._process_by_pid = lambda pid: ("a child", 0)
        limits._trywaitkill = took.kill
        on_hard_timeout(limits, took.job)
        return [name for name, *_ in took.mock_calls]

    assert steps(TimeoutHandler.on_hard_timeout) == [
        *("job.ready", "job._set", "job.handle_timeout", "kill"),
    ]
    assert steps(_kill_then_report) == [
        *("job.ready", "kill", "job._set", "job.handle_timeout"),
    ]


def test_an_asynchronous_pool_takes_its_time_limits_from_the_handler() -> None:
    """So both names are replaced."""
    source = getsource(AsynPool)
    assert "self._timeout_handler, 'on_hard_timeout'" in source
    assert "self.on_hard_timeout(result)" in source
