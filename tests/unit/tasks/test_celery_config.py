"""Celery's configuration: what must fit together, and what must stay shut."""

import re
from importlib import import_module

import pytest
from celery import Task
from celery.app import defaults
from celery.exceptions import QueueNotFound
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps, loads
from kombu.transport import redis as redis_transport
from kombu.utils.imports import symbol_by_name

from app.routing import (
    DEFAULT_QUEUE,
    QUEUE_BY_MODULE,
    QUEUES,
    WORKER_GROUPS,
    QueueSpec,
    wire_priority,
)
from app.settings import Settings
from app.tasks import BaseTask, celery_app, timetable
from app.tasks.celery_config import (
    BEAT_ENTRIES,
    BEAT_SCHEDULE,
    TASK_MODULES,
    config,
    transport_options,
)
from app.tasks.scheduler import OutboxScheduler
from scripts.live.deployment import REPOSITORY

BRPOP_SECONDS = 1.0
"""How long a worker's consumer waits in one BRPOP (kombu's ``polling_interval``)."""


@pytest.fixture(scope="module", autouse=True)
def _all_tasks() -> None:
    for module in TASK_MODULES:
        import_module(f"app.tasks.{module}")


def our_tasks() -> dict[str, Task]:  # type: ignore[type-arg]
    """The tasks of ``app.tasks``; other tests' files may have added theirs."""
    modules = {f"app.tasks.{module}" for module in TASK_MODULES}
    return {name: task for name, task in celery_app.tasks.items() if task.__module__ in modules}


@pytest.mark.parametrize("spec", QUEUES, ids=lambda spec: spec.name)
def test_a_modules_tasks_go_to_its_queue_with_its_wire_priority(spec: QueueSpec) -> None:
    assert spec.modules, f"add a row for {spec.name!r} to QUEUE_BY_MODULE in app/routing.py"
    for module in spec.modules:
        routed = celery_app.amqp.router.route({}, f"app.tasks.{module}.some_task")
        expected = (spec.name, wire_priority(spec.urgency))
        assert (routed["queue"].name, routed["priority"]) == expected


def test_the_queues_are_those_of_the_table() -> None:
    assert set(celery_app.amqp.queues) == {spec.name for spec in QUEUES}
    assert DEFAULT_QUEUE in celery_app.amqp.queues


def test_every_row_of_the_table_names_a_module_and_a_queue_that_exist() -> None:
    modules, queues = set(QUEUE_BY_MODULE), set(QUEUE_BY_MODULE.values())
    unknown = sorted(modules - set(TASK_MODULES))
    assert unknown == [], f"add {unknown} to TASK_MODULES in app/tasks/celery_config.py"
    missing = sorted(queues - {spec.name for spec in QUEUES})
    assert missing == [], f"add {missing} to QUEUES in app/routing.py"


def test_every_file_that_defines_tasks_is_a_module_of_tasks() -> None:
    folder = REPOSITORY / "app" / "tasks"
    found = {file.stem for file in folder.glob("*.py") if "@celery_app.task(" in file.read_text()}
    missing = sorted(found - set(TASK_MODULES))
    assert missing == [], f"add {missing} to TASK_MODULES in app/tasks/celery_config.py"


def test_each_tasks_name_is_where_it_is() -> None:
    for name, task in our_tasks().items():
        assert name == f"{task.__module__}.{task.__name__}"


def test_every_task_is_one_of_the_outbox_that_is_acknowledged_after_its_run() -> None:
    tasks = our_tasks()
    assert tasks
    for task in tasks.values():
        assert isinstance(task, BaseTask)
        assert task.acks_late
        assert not task.reject_on_worker_lost


def test_a_priority_of_its_own_is_not_overridden_by_the_route() -> None:
    options = {"queue": "analytics", "priority": 0}
    routed = celery_app.amqp.router.route(dict(options), "app.tasks.email.deliver")
    assert (routed["queue"].name, routed["priority"]) == ("analytics", 0)


def test_there_is_a_list_for_each_wire_priority() -> None:
    steps = transport_options(Settings())["priority_steps"]
    assert {wire_priority(urgency) for urgency in range(10)} == set(steps)


def test_a_mistyped_queue_of_a_worker_is_an_error() -> None:
    """The exception with which a worker's ``-Q emial`` fails to start."""
    queues = celery_app.amqp.Queues(
        celery_app.conf.task_queues, celery_app.conf.task_create_missing_queues
    )
    with pytest.raises(KeyError, match="emial"):
        queues.select(["emial"])


def test_a_call_into_a_mistyped_queue_is_an_error() -> None:
    with pytest.raises(QueueNotFound, match="emial"):
        celery_app.amqp.router.route({"queue": "emial"}, "app.tasks.email.deliver")


def test_only_json_is_read() -> None:
    conf = celery_app.conf
    assert conf.accept_content == conf.result_accept_content == ["json"]
    assert conf.task_serializer == conf.result_serializer == "json"
    content_type, encoding, payload = dumps({"a": 1}, serializer="pickle")
    with pytest.raises(ContentDisallowed):
        loads(payload, content_type, encoding, accept=set(conf.accept_content))


def test_a_lease_is_renewed_several_times_before_it_runs_out() -> None:
    settings = Settings()
    assert 3 * settings.lease_interval_seconds <= settings.visibility_timeout_seconds


def test_a_worker_whose_redis_hangs_notices_before_its_lease_runs_out() -> None:
    options = transport_options(Settings())
    for name in ("socket_timeout", "socket_connect_timeout"):
        assert BRPOP_SECONDS < options[name] < options["visibility_timeout"]


def test_a_dead_workers_tasks_are_looked_for_often_enough() -> None:
    """Redis is asked every interval x throttle seconds; see FACTS on the default of 100."""
    options = transport_options(Settings())
    every = options["unacked_restore_interval"] * options["unacked_restore_throttle"]
    assert every <= options["visibility_timeout"] / 10


def test_a_publish_is_over_before_its_message_can_be_taken_for_gone() -> None:
    settings = Settings()
    stamp_is_valid_for = settings.resend_margin_seconds / 2
    assert stamp_is_valid_for + settings.publish_timeout_seconds < settings.resend_margin_seconds


def test_a_task_may_clean_up_before_it_is_killed() -> None:
    values = config(Settings(task_soft_time_limit_seconds=5, task_time_limit_seconds=9))
    assert (values["task_soft_time_limit"], values["task_time_limit"]) == (5, 9)


def test_beat_ticks_at_the_pumps_pace() -> None:
    values = config(Settings(pump_interval_seconds=3))
    assert values["beat_max_loop_interval"] == 3


def test_beats_scheduler_is_ours() -> None:
    assert symbol_by_name(celery_app.conf.beat_scheduler) is OutboxScheduler


def test_the_schedule_names_tasks_that_are_there() -> None:
    missing = sorted({entry.task for entry in BEAT_ENTRIES} - set(our_tasks()))
    assert missing == [], f"BEAT_ENTRIES names {missing}: add the module to TASK_MODULES"


def test_every_entry_of_the_schedule_goes_to_a_queue_that_a_worker_takes_from() -> None:
    compose = (REPOSITORY / "docker-compose.celery.yml").read_text()
    services = re.findall(r"^  (\w+):$", compose, re.MULTILINE)
    groups = [group for group in WORKER_GROUPS if group.name in services]
    taken = {queue for group in groups for queue in group.queues}
    for entry in BEAT_ENTRIES:
        assert celery_app.amqp.router.route({}, entry.task)["queue"].name in taken, entry.name


def test_every_worker_group_takes_from_queues_of_the_table() -> None:
    for group in WORKER_GROUPS:
        assert group.queues
        assert set(group.queues) <= {spec.name for spec in QUEUES}, group.name


def test_no_two_entries_of_the_schedule_share_a_name() -> None:
    """Not in the dict, where the second would have replaced the first without a word."""
    names = [entry.name for entry in BEAT_ENTRIES]
    assert names == list(BEAT_SCHEDULE)
    assert len(names) == len(set(names))


def test_the_entries_of_the_schedule_have_names_in_kebab_case() -> None:
    for entry in BEAT_ENTRIES:
        assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", entry.name)


def test_beat_accepts_the_schedule() -> None:
    timetable.check(celery_app)


def test_the_schedule_is_in_the_time_zone_of_the_settings() -> None:
    values = config(Settings(celery_timezone="Europe/Berlin"))
    assert (values["timezone"], values["enable_utc"]) == ("Europe/Berlin", True)


def test_the_schedule_is_rebuilt_from_data_alone() -> None:
    """Its hash, which beats compare, must not hold an address in memory."""
    for entry in BEAT_SCHEDULE.values():
        assert " at 0x" not in repr(entry["schedule"])


def test_every_setting_is_one_that_celery_knows() -> None:
    """Celery takes an unknown or misspelt one without a word."""
    assert set(config(Settings())) <= set(defaults.DEFAULTS)


def test_every_transport_option_is_one_that_kombu_knows() -> None:
    known = redis_transport.Channel.from_transport_options
    assert set(transport_options(Settings())) <= set(known)
