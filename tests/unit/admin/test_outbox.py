"""What an operator sees of the outbox, runs now, and cancels."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select, update

from app import db, outbox
from app.admin import entries
from app.admin.outbox import PUMP_PATIENCE
from app.admin.output import WIDTH
from app.models import OutboxEntry, OutboxState
from app.outbox import guard, pending
from app.outbox.guard import Delivery
from tests.fakes import FakeBroker, FakeClock
from tests.unit.admin.conftest import (
    TASK,
    Admin,
    dead,
    done,
    failing,
    planned,
    publish,
)

OTHER = "app.tasks.cache.update_availability"


def entry(entry_id: str) -> OutboxEntry:
    with db.reading() as session:
        return session.scalars(select(OutboxEntry).where(OutboxEntry.id == entry_id)).one()


def states() -> dict[str, str]:
    with db.reading() as session:
        return dict(session.execute(select(OutboxEntry.id, OutboxEntry.state)).all())


def numbered(*ids: str) -> None:
    """Entries with these ids."""
    for entry_id in ids:
        made = planned()
        with db.transaction() as session:
            session.execute(update(OutboxEntry).where(OutboxEntry.id == made).values(id=entry_id))


def test_an_empty_outbox_is_no_reason_to_worry(admin: Admin, database: Engine) -> None:
    answer = admin("outbox", "status")
    assert (answer.status, answer.lines[0]) == (0, "nothing waits")


def test_the_machine_gets_every_figure(admin: Admin, database: Engine, now: FakeClock) -> None:
    planned()
    planned(at=now.now + timedelta(hours=1))
    dead(now)
    done(now)
    now.advance(seconds=30)
    assert admin("outbox", "status", "--json").json == {
        "pending": 2,
        "published": 0,
        "unpublished": 1,
        "later": 1,
        "resent": 0,
        "done": 1,
        "dead": 1,
        "cancelled": 0,
        "oldest_seconds": 30.0,
        "oldest_unpublished_seconds": 30.0,
        "retrying": {},
        "redis": "ok",
    }


def test_work_that_fails_and_retries_is_the_verdict_with_its_error(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    failing(now)
    failing(now, task=OTHER, error="ValueError: other")
    failing(now)
    dead(now)
    now.advance(minutes=2)
    answer = admin("outbox", "status")
    assert answer.lines[0] == "3 entries have failed and are retried, the oldest for 2m"
    assert any(line.split()[:4] == [TASK, "2", "2m", "ConnectionError:"] for line in answer.lines)
    assert max(len(line) for line in answer.lines) <= WIDTH
    machine = admin("outbox", "status", "--json").json["retrying"]
    assert {task: (each["number"], each["error"]) for task, each in machine.items()} == {
        TASK: (2, "ConnectionError: refused"),
        OTHER: (1, "ValueError: other"),
    }


def test_the_status_by_task(admin: Admin, database: Engine, now: FakeClock) -> None:
    planned()
    planned(at=now.now + timedelta(hours=1))
    failing(now)
    dead(now)
    done(now)
    dead(now, task=OTHER)
    now.advance(seconds=30)
    assert admin("outbox", "status", "--by-task", "--json").json["tasks"] == {
        OTHER: {"pending": 0, "retrying": 0, "dead": 1, "oldest_seconds": None},
        TASK: {"pending": 3, "retrying": 1, "dead": 1, "oldest_seconds": 30.0},
    }
    lines = [line.split() for line in admin("outbox", "status", "--by-task").lines]
    assert [TASK, "3", "1", "1", "30s"] in lines
    assert [OTHER, "0", "0", "1", "-"] in lines


def test_a_redis_that_does_not_answer_is_told_in_a_line(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    broker = FakeBroker(now, down=True)
    before = outbox.attach(broker)
    lines, machine = admin("outbox", "status").lines, admin("outbox", "status", "--json").json
    outbox.attach(before)
    assert lines[:2] == ["nothing waits", "nothing can be published now: connection refused"]
    assert machine["redis"] == "down"


def test_the_verdict_is_the_worst_of_what_there_is(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    def verdict() -> str:
        answer = admin("outbox", "status")
        assert max(len(line) for line in answer.lines) <= WIDTH
        return answer.lines[0]

    planned()
    now.now += PUMP_PATIENCE
    assert verdict() == "1 entry under way, the oldest due for 1m"
    dead(now)
    assert verdict() == "1 dead letter, the rest goes on"
    now.advance(seconds=1)
    assert verdict() == (
        "1 due entry not published, the oldest for 1m: does beat run, does Redis answer?"
    )


def test_an_entry_of_any_state_is_shown(admin: Admin, database: Engine, now: FakeClock) -> None:
    waiting, later = planned(42), planned(at=now.now + timedelta(hours=2))
    finished, failed = done(now), dead(now)
    now.advance(seconds=5)

    def first_line(entry_id: str) -> str:
        return admin("outbox", "show", entry_id).lines[0]

    assert first_line(waiting) == f"{waiting}: pending, due for 5s, not published"
    assert first_line(later) == f"{later}: pending, due in 1h"
    assert first_line(finished) == f"{finished}: done"
    assert first_line(failed) == f"{failed}: dead, ValueError: no"
    shown = admin("outbox", "show", waiting, "--json").json
    assert (shown["task"], shown["args"], shown["state"]) == (TASK, [42], "pending")


def test_an_entry_that_is_retried_shows_since_when(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    entry_id = failing(now, attempts=3)
    lines = admin("outbox", "show", entry_id).lines
    assert "retrying   since 2026-07-01 12:00:00 UTC" in lines
    assert lines[-1] == f"python -m app.admin outbox retry {entry_id} | cancel {entry_id}"
    shown = admin("outbox", "show", entry_id, "--json").json
    assert (shown["tries"], shown["retrying_since"]) == (3, now.now.isoformat())
    waiting = planned()
    assert "retrying   -" in admin("outbox", "show", waiting).lines


def postponed(entry_id: str, now: FakeClock, tries: int) -> None:
    with db.transaction() as session:
        assert guard.wait(
            session,
            Delivery(entry_id, TASK, tries=tries),
            due_at=now.now + timedelta(minutes=4),
            waits_for="rate limit 6/m",
        )


@pytest.mark.parametrize("tries", [0, 1])
def test_an_entry_that_waits_for_its_rate_limit_shows_that(
    admin: Admin, database: Engine, now: FakeClock, tries: int
) -> None:
    entry_id = failing(now, attempts=tries)
    postponed(entry_id, now, tries)
    shown = admin("outbox", "show", entry_id)
    assert shown.lines[0] == f"{entry_id}: pending, due in 4m, waits for rate limit 6/m"
    assert shown.lines[-1] == f"python -m app.admin outbox retry {entry_id} | cancel {entry_id}"
    assert admin("outbox", "show", entry_id, "--json").json["waits_for"] == "rate limit 6/m"
    row = admin("outbox", "list").lines[4].split()
    assert row[1:10] == f"later email {tries} in 4m, waits for rate limit".split()


@pytest.mark.parametrize("tries", [0, 1])
def test_an_entry_that_is_published_or_over_waits_for_no_rate_limit(
    admin: Admin, database: Engine, now: FakeClock, tries: int
) -> None:
    published, cancelled = failing(now, attempts=tries), failing(now, attempts=tries)
    for entry_id in (published, cancelled):
        postponed(entry_id, now, tries)
    publish(published, now)
    admin("outbox", "cancel", cancelled)
    for entry_id in (published, cancelled):
        shown = admin("outbox", "show", entry_id)
        assert "rate limit" not in shown.out
        assert admin("outbox", "show", entry_id, "--json").json["waits_for"] is None


@pytest.mark.parametrize("tries", [0, 1])
@pytest.mark.parametrize("chosen", ["id", "all"])
def test_an_entry_that_waits_for_its_rate_limit_can_be_made_due(
    admin: Admin, database: Engine, now: FakeClock, tries: int, chosen: str
) -> None:
    """For instance because the limit was raised."""
    entry_id = failing(now, attempts=tries)
    postponed(entry_id, now, tries)
    planned(at=now.now + timedelta(minutes=4))
    choice = [entry_id] if chosen == "id" else ["--all", "--task", TASK]
    answer = admin("outbox", "retry", *choice)
    assert (answer.status, answer.out.count("1 entry")) == (0, 1)
    assert " due for " in admin("outbox", "show", entry_id).lines[0]


def test_rescheduled_attempts_are_shown(admin: Admin, database: Engine, now: FakeClock) -> None:
    shown = " ".join(admin("outbox", "show", failing(now, attempts=3)).out.split())
    assert "attempts 3 rescheduled, 0 redelivered" in shown
    assert "publishes 0 in this attempt, 0 resent in all" in shown


def test_a_pending_entry_is_cancelled_and_stays_so(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    entry_id = planned()
    first = admin("outbox", "cancel", entry_id)
    assert (first.status, first.out.count("is cancelled")) == (0, 1)
    again = admin("outbox", "cancel", entry_id, "--json")
    assert again.status == 0
    assert again.json == {"id": entry_id, "cancelled": False, "state": "cancelled"}


def test_what_is_done_or_dead_is_not_cancelled(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    for entry_id, state in ((done(now), "done"), (dead(now), "dead")):
        answer = admin("outbox", "cancel", entry_id)
        assert (answer.status, answer.out) == (1, f"{entry_id} is {state}: left as it is\n")


def test_several_entries_are_cancelled_after_a_question(
    admin: Admin, database: Engine, now: FakeClock, typed: Callable[[str], None]
) -> None:
    one, other, finished, bystander = planned(), failing(now), done(now), planned()
    chosen = (one, other, finished, one)
    unasked = admin("outbox", "cancel", *chosen)
    assert unasked.is_one_line_of_refusal
    assert unasked.err.startswith("Cancel 2 pending entries? Add --yes")
    typed("no\n")
    assert admin("outbox", "cancel", *chosen).status == 2
    assert "cancelled" not in states().values()
    typed("y\n")
    answer = admin("outbox", "cancel", *chosen)
    assert (answer.status, len(answer.lines)) == (1, 3)
    assert answer.lines[2] == f"{finished} is done: left as it is"
    cancelled = {each for each, state in states().items() if state == "cancelled"}
    assert (cancelled, states()[bystander]) == ({one, other}, "pending")
    assert admin("outbox", "cancel", one, bystander, "--yes", "--json").json == [
        {"id": one, "cancelled": False, "state": "cancelled"},
        {"id": bystander, "cancelled": True, "state": "cancelled"},
    ]


def test_an_unknown_id_among_several_cancels_nothing(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    assert admin("outbox", "cancel", planned(), "nobody", "--yes").is_one_line_of_refusal
    assert set(states().values()) == {"pending"}


def test_what_is_pending_is_listed_the_longest_due_first(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    later = planned(at=now.now + timedelta(hours=2))
    first = planned(1)
    now.advance(seconds=60)
    second = planned(2)
    now.advance(seconds=1)
    published = planned(3)
    publish(published, now)
    failed = failing(now, attempts=12)
    done(now)
    dead(now)
    now.advance(seconds=5)
    answer = admin("outbox", "list")
    assert answer.status == 0
    assert answer.lines[0] == "5 pending entries, the longest due first"
    assert answer.lines[2] == f"{TASK}: 5"
    assert answer.lines[3].split() == ["ID", "STATE", "QUEUE", "ATTEMPTS", "DUE", "LAST", "ERROR"]
    rows = [line.split() for line in answer.lines[4:9]]
    assert [row[1:] for row in rows] == [
        ["unpublished", "email", "0", "1m", "ago"],
        ["unpublished", "email", "0", "6s", "ago"],
        ["published", "email", "0", "5s", "ago"],
        ["retrying", "email", "12", "in", "4m", "ConnectionError:", "refused"],
        ["later", "email", "0", "in", "1h"],
    ]
    ids = [first, second, published, failed, later]
    shown = [row[0] for row in rows]
    assert all(whole.startswith(short) for whole, short in zip(ids, shown, strict=True))
    assert admin("outbox", "show", shown[0]).lines[0].startswith(first)
    assert [each["id"] for each in admin("outbox", "list", "--json").json] == ids


def test_entries_are_listed_by_task_in_the_order_of_the_longest_due(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    planned(task=OTHER)
    now.advance(seconds=1)
    planned()
    planned(task=OTHER)
    lines = admin("outbox", "list").lines
    assert [line for line in lines if line.endswith((": 1", ": 2"))] == [
        f"{OTHER}: 2",
        f"{TASK}: 1",
    ]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("pending", {"due", "published", "retrying", "later"}),
        ("unpublished", {"due"}),
        ("published", {"published"}),
        ("retrying", {"retrying"}),
        ("later", {"retrying", "later"}),
        ("done", {"done"}),
        ("dead", {"dead"}),
        ("cancelled", {"cancelled"}),
    ],
)
def test_entries_are_listed_by_state(
    admin: Admin, database: Engine, now: FakeClock, state: str, found: set[str]
) -> None:
    ids = {
        "due": planned(),
        "published": planned(),
        "retrying": failing(now),
        "later": planned(at=now.now + timedelta(hours=1)),
        "done": done(now),
        "dead": dead(now),
        "cancelled": planned(),
    }
    publish(ids["published"], now)
    admin("outbox", "cancel", ids["cancelled"])
    names = {entry_id: name for name, entry_id in ids.items()}
    listed = admin("outbox", "list", "--state", state, "--json").json
    assert {names[each["id"]] for each in listed} == found
    answer = admin("outbox", "list", "--state", state)
    assert answer.lines[0].startswith(f"{len(found)} {state} entr")


def test_what_has_ended_is_listed_the_latest_first(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    first = done(now)
    now.advance(minutes=2)
    second = done(now)
    answer = admin("outbox", "list", "--state", "done")
    assert answer.lines[0] == "2 done entries, the latest first"
    assert answer.lines[3].split()[4] == "ENDED"
    listed = admin("outbox", "list", "--state", "done", "--json").json
    assert [each["id"] for each in listed] == [second, first]


def test_entries_are_listed_by_queue(admin: Admin, database: Engine, now: FakeClock) -> None:
    planned()
    mine = planned(task=OTHER)
    assert [e["id"] for e in admin("outbox", "list", "--queue", "cache", "--json").json] == [mine]
    nothing = admin("outbox", "list", "--queue", "bookings")
    assert (nothing.status, nothing.out) == (0, "nothing in bookings is pending\n")
    mistyped = admin("outbox", "list", "--queue", "mail")
    assert mistyped.is_one_line_of_refusal
    assert mistyped.err.startswith("there is no queue 'mail'")


def test_a_list_with_long_errors_fits_the_terminal(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    failing(now, error="\x1b[2JSMTPError: " + "x" * 400)
    answer = admin("outbox", "list")
    assert max(len(line) for line in answer.lines) <= WIDTH
    assert "\x1b" not in answer.out


def test_a_unique_beginning_of_an_id_is_enough(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    numbered("01a2-one", "01a3-two")
    assert admin("outbox", "show", "01a3").lines[0].startswith("01a3-two: pending")
    assert admin("outbox", "cancel", "01a2").out.startswith("01a2-one is cancelled")
    assert states() == {"01a2-one": "cancelled", "01a3-two": "pending"}


@pytest.mark.parametrize(
    "words",
    [
        ("outbox", "show"),
        ("outbox", "cancel"),
        ("outbox", "retry"),
        ("deadletters", "show"),
        ("deadletters", "retry"),
        ("deadletters", "purge", "--yes"),
    ],
    ids=" ".join,
)
def test_a_beginning_of_several_ids_is_refused_with_a_list_of_them(
    admin: Admin, database: Engine, now: FakeClock, words: tuple[str, ...]
) -> None:
    numbered("01a2-one", "01a2-two")
    answer = admin(*words, "01a2")
    assert answer.is_one_line_of_refusal
    assert (
        answer.err
        == "'01a2' is the beginning of several ids: 01a2-one, 01a2-two. Type more of it\n"
    )
    empty = admin(*words, "")
    assert empty.is_one_line_of_refusal
    unknown = admin(*words, "02")
    assert unknown.err == "no entry has the id 02\n"
    assert set(states().values()) == {"pending"}


def test_of_very_many_candidates_a_few_are_listed(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    numbered(*(f"01a2-{number}" for number in range(8)))
    assert admin("outbox", "show", "01a2").err == (
        "'01a2' is the beginning of several ids: 01a2-0, 01a2-1, 01a2-2, 01a2-3, 01a2-4 and more. "
        "Type more of it\n"
    )


def test_a_whole_id_is_found_also_where_another_one_begins_with_it(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    numbered("job-1", "job-10")
    assert admin("outbox", "show", "job-1").lines[0].startswith("job-1: ")
    assert admin("outbox", "show", "JOB-10").status == 2


def test_an_entry_that_waits_for_its_next_attempt_is_due_now(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    entry_id = failing(now, attempts=3)
    now.advance(seconds=5)
    answer = admin("outbox", "retry", entry_id[:23])
    assert (answer.status, answer.lines[0]) == (0, "1 entry is due now")
    assert (entry(entry_id).due_at, entry(entry_id).tries) == (now.now, 3)
    again = admin("outbox", "retry", entry_id, "--json")
    assert (again.status, again.json) == (0, {"retried": [], "left": {entry_id: "unpublished"}})


def test_a_dead_letter_is_retried_by_either_command(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    waiting, buried = failing(now), dead(now)
    assert admin("outbox", "retry", waiting, buried, "--json").json == {
        "retried": [waiting, buried],
        "left": {},
    }
    assert set(states().values()) == {"pending"}


def test_what_does_not_wait_for_an_attempt_is_left_as_it_is(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    reminder = planned(at=now.now + timedelta(hours=2))
    published, finished, cancelled = failing(now), done(now), planned()
    publish(published, now)
    admin("outbox", "cancel", cancelled)

    def answer(entry_id: str) -> tuple[int, str]:
        told = admin("outbox", "retry", entry_id)
        assert told.lines[0] == "0 entries are due now"
        return told.status, told.lines[1].removeprefix(f"{entry_id} ")

    assert answer(published) == (0, "is published already: left as it is")
    assert answer(finished) == (0, "is done: left as it is")
    assert answer(cancelled) == (1, "is cancelled: left as it is")
    assert answer(reminder) == (1, "is planned for later and has not failed: left as it is")
    assert entry(reminder).due_at == now.now + timedelta(hours=2)


def test_all_of_a_task_that_wait_for_an_attempt_are_due_now(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    mine = {failing(now) for _ in range(5)}
    other, buried = failing(now, task=OTHER), dead(now)
    now.advance(seconds=1)
    answer = admin("outbox", "retry", "--all", "--task", TASK)
    assert (answer.status, answer.lines[0]) == (0, f"5 entries of {TASK} are due now")
    assert {each for each in mine if entry(each).due_at == now.now} == mine
    assert entry(other).due_at > now.now
    assert entry(buried).state is OutboxState.DEAD
    assert admin("outbox", "retry", "--all", "--task", TASK, "--json").json["retried"] == []
    assert admin("outbox", "retry", "--all", "--task", f"{TASK}s").is_one_line_of_refusal


@pytest.mark.parametrize("action", ["retry", "cancel"])
@pytest.mark.parametrize(
    "words", [(), ("--all",), ("--task", TASK), ("x", "--all", "--task", TASK)]
)
def test_a_choice_that_is_not_one_is_refused(
    admin: Admin, database: Engine, action: str, words: tuple[str, ...]
) -> None:
    answer = admin("outbox", action, *words)
    assert answer.is_one_line_of_refusal
    assert f"outbox {action}: " in answer.err


def test_all_pending_entries_of_a_task_are_cancelled_after_a_question(
    admin: Admin, database: Engine, now: FakeClock, typed: Callable[[str], None]
) -> None:
    mine = {planned(), planned(at=now.now + timedelta(hours=1)), failing(now)}
    other, buried, finished = planned(task=OTHER), dead(now), done(now)
    unasked = admin("outbox", "cancel", "--all", "--task", TASK)
    assert unasked.is_one_line_of_refusal
    assert unasked.err == (
        f"Cancel 3 pending entries of {TASK}? Add --yes to do it without a terminal\n"
    )
    typed("no\n")
    assert admin("outbox", "cancel", "--all", "--task", TASK).status == 2
    assert "cancelled" not in states().values()
    typed("y\n")
    answer = admin("outbox", "cancel", "--all", "--task", TASK)
    assert (answer.status, answer.lines[0]) == (0, f"3 entries of {TASK} are cancelled")
    assert {each for each, state in states().items() if state == "cancelled"} == mine
    left = {other: "pending", buried: "dead", finished: "done"}
    assert left.items() <= states().items()
    again = admin("outbox", "cancel", "--all", "--task", TASK, "--json")
    assert (again.status, again.json) == (0, {"cancelled": 0})


def test_a_script_cancels_a_task_that_this_code_has_no_more(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    failing(now, task="app.tasks.email.renamed")
    failing(now, task="app.tasks.email.renamed")
    told = admin(
        "outbox", "cancel", "--all", "--task", "app.tasks.email.renamed", "--yes", "--json"
    )
    assert told.json == {"cancelled": 2}
    mistyped = admin("outbox", "cancel", "--all", "--task", "app.tasks.email.renamd", "--yes")
    assert mistyped.is_one_line_of_refusal


def test_more_than_a_batch_of_a_task_is_retried_and_cancelled(
    admin: Admin, database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for act in (pending.attempt_all_now, pending.cancel_batch):
        monkeypatch.setitem(act.__kwdefaults__, "limit", 2)
    for _ in range(5):
        failing(now)
    assert len(admin("outbox", "retry", "--all", "--task", TASK, "--json").json["retried"]) == 5
    assert admin("outbox", "cancel", "--all", "--task", TASK, "--yes", "--json").json == {
        "cancelled": 5
    }


def test_only_a_tasks_entries_are_listed(admin: Admin, database: Engine, now: FakeClock) -> None:
    planned()
    other = "app.tasks.cache.update_availability"
    with db.transaction() as session:
        mine = outbox.enqueue(session, other)
    assert [each["id"] for each in admin("outbox", "list", "--task", other, "--json").json] == [
        mine
    ]
    nothing = admin("outbox", "list", "--task", "app.tasks.health.health_check")
    assert (nothing.status, nothing.out) == (
        0,
        "nothing of app.tasks.health.health_check is pending\n",
    )
    mistyped = admin("outbox", "list", "--task", "app.tasks.health.health_chek")
    assert mistyped.status == 2
    assert mistyped.err == (
        "there is no task 'app.tasks.health.health_chek': "
        "did you mean 'app.tasks.health.health_check'?\n"
    )


def test_a_person_sees_the_first_of_many(
    admin: Admin, database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entries, "SHOWN", 2)
    for number in range(5):
        planned(number)
    lines = admin("outbox", "list").lines
    assert lines[0] == "5 pending entries, the longest due first"
    assert sum("unpublished" in line for line in lines) == 2
    assert "3 more are not shown: --json lists all" in lines
    assert len(admin("outbox", "list", "--json").json) == 5


def test_an_empty_list_says_so(admin: Admin, database: Engine) -> None:
    assert admin("outbox", "list").out == "nothing is pending\n"
    assert admin("outbox", "list", "--json").json == []


def test_a_shown_beginning_is_as_long_as_the_shown_ids_need() -> None:
    one, other = "01a210a9-142b-75f9-8e83-d0d80fef9048", "01a210a9-142b-75f9-8e83-d0d80fef9111"
    assert entries.short_ids([one]) == [one[: entries.SHORT_ID]]
    assert entries.short_ids([other, one]) == [other[:34], one[:34]]


def test_nothing_is_left_of_a_renamed_tasks_work_after_it_was_cancelled(
    admin: Admin, database: Engine
) -> None:
    """The app does not know the name any more, the outbox does."""
    with db.transaction() as session:
        outbox.enqueue(session, "app.tasks.email.renamed", unchecked=True)
    words = ("outbox", "cancel", "--all", "--task", "app.tasks.email.renamed", "--yes")
    assert [admin(*words).status for _ in range(2)] == [0, 0]
    assert admin("outbox", "list", "--task", "app.tasks.email.renamed").status == 0
    assert admin("outbox", "list", "--task", "app.tasks.email.never").status == 2
