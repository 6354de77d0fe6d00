"""What an operator sees of the dead letters, and does with them."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import Engine, select

from app import db
from app.admin.entries import SHOWN
from app.admin.output import WIDTH
from app.models import OutboxEntry, OutboxState
from tests.fakes import FakeClock
from tests.unit.admin.conftest import TASK, Admin, dead, done, planned

OTHER = "app.tasks.bookings.send_due_reminders"


def states() -> dict[str, OutboxState]:
    with db.reading() as session:
        return dict(session.execute(select(OutboxEntry.id, OutboxEntry.state)).all())


def test_no_dead_letters_is_said_in_one_line(admin: Admin, database: Engine) -> None:
    assert admin("deadletters", "list").out == "no dead letters\n"
    assert admin("deadletters", "list", "--json").json == []
    asked = admin("deadletters", "list", "--task", TASK, "--since", "90m")
    assert asked.out == f"no dead letters of {TASK} in the last 90m\n"


def test_a_list_begins_with_the_verdict_and_ends_with_where_to_look(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    first = dead(now, error="ConnectionError: refused")
    now.advance(minutes=90)
    second = dead(now, task=OTHER)
    now.advance(minutes=5)
    answer = admin("deadletters", "list")
    assert answer.status == 0
    assert answer.lines[0] == "2 dead letters, the latest 5m ago"
    (row,) = (line.split() for line in answer.lines if first in line)
    assert row == [first, "1h", "ago", "1", "ConnectionError:", "refused"]
    assert f"{OTHER}: 1" in answer.lines
    assert any(second in line for line in answer.lines)
    assert "deadletters show ID" in answer.out


def test_a_list_fits_the_terminal_and_moves_no_cursor(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    dead(now, error="\x1b[2JSMTPError: " + "x" * 400 + "\nsecond line")
    answer = admin("deadletters", "list")
    assert max(len(line) for line in answer.lines) == WIDTH
    assert "\x1b" not in answer.out
    assert "second line" not in answer.out


def test_a_list_is_of_one_task_and_of_a_time(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    old = dead(now)
    now.advance(hours=2)
    other = dead(now, task=OTHER)

    def ids(*words: str) -> list[str]:
        return [letter["id"] for letter in admin("deadletters", "list", "--json", *words).json]

    assert ids() == [other, old]
    assert ids("--task", TASK) == [old]
    assert ids("--since", "2h") == [other, old]
    assert ids("--since", "119m") == [other]
    assert ids("--since", "119m", "--task", TASK) == []


def test_a_task_that_this_code_has_no_more_is_found_by_its_dead_letters(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    old = dead(now, task="app.tasks.email.of_last_year")
    (letter,) = admin(
        "deadletters", "list", "--json", "--task", "app.tasks.email.of_last_year"
    ).json
    assert letter["id"] == old
    retried = admin("deadletters", "retry", "--all", "--task", "app.tasks.email.of_last_year")
    assert retried.status == 0


def test_of_very_many_a_person_sees_the_latest_and_a_machine_all(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    for number in range(SHOWN + 3):
        dead(now, number)
    answer = admin("deadletters", "list")
    assert answer.lines[0].startswith(f"{SHOWN + 3} dead letters")
    assert "3 older ones are not shown" in answer.out
    assert len(admin("deadletters", "list", "--json").json) == SHOWN + 3


def test_the_machine_gets_arguments_error_and_instants(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    entry_id = dead(now, 42, error="ValueError: no")
    (letter,) = admin("deadletters", "list", "--json").json
    assert letter["id"] == entry_id
    assert (letter["task"], letter["args"], letter["kwargs"]) == (TASK, [42], {})
    assert (letter["error"], letter["queue"], letter["urgency"]) == ("ValueError: no", "email", 5)
    assert letter["finished_at"] == "2026-07-01T12:00:00+00:00"


def test_one_is_shown_with_every_error_and_the_last_traceback(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    entry_id = dead(now, 42, "two")
    answer = admin("deadletters", "show", entry_id)
    assert answer.status == 0
    assert answer.lines[0] == f"{entry_id}: dead, ValueError: no"
    assert "arguments  42, 'two'" in answer.out
    assert "  line 1\n  line 2\n" in answer.out
    assert answer.lines[-1].endswith(f"deadletters retry {entry_id}")
    (error,) = admin("deadletters", "show", entry_id, "--json").json["errors"]
    assert error["error"] == "ValueError: no"


def test_what_is_no_dead_letter_is_shown_elsewhere(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    answer = admin("deadletters", "show", done(now))
    assert answer.is_one_line_of_refusal
    assert "it is done" in answer.err
    assert "outbox show" in answer.err


def test_a_retry_makes_them_pending_once(admin: Admin, database: Engine, now: FakeClock) -> None:
    first, second = dead(now), dead(now)
    answer = admin("deadletters", "retry", first, second)
    assert (answer.status, answer.lines[0]) == (0, "2 dead letters will run again")
    assert set(states().values()) == {OutboxState.PENDING}
    again = admin("deadletters", "retry", first)
    assert again.status == 0
    assert again.lines == [
        "0 dead letters will run again",
        f"{first} is no dead letter, it is pending: left as it is",
    ]


def test_a_retry_warns_of_a_task_that_no_longer_exists(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    renamed, known = dead(now, task=f"{TASK}s"), dead(now, 42)
    answer = admin("deadletters", "retry", renamed, known)
    assert (answer.status, answer.lines[0]) == (0, "2 dead letters will run again")
    assert answer.err == f"warning: there is no task '{TASK}s': did you mean '{TASK}'?\n"


def test_what_is_done_is_not_retried(admin: Admin, database: Engine, now: FakeClock) -> None:
    finished = done(now)
    answer = admin("deadletters", "retry", finished, "--json")
    assert answer.json == {"retried": [], "left": {finished: "done"}}
    assert states() == {finished: OutboxState.DONE}


def test_what_is_cancelled_stays_so_and_the_exit_status_says_it(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    cancelled = planned()
    admin("outbox", "cancel", cancelled)
    assert admin("deadletters", "retry", cancelled).status == 1
    assert states() == {cancelled: OutboxState.CANCELLED}


def test_one_unknown_id_retries_none(admin: Admin, database: Engine, now: FakeClock) -> None:
    entry_id = dead(now)
    answer = admin("deadletters", "retry", entry_id, "nobody")
    assert answer.is_one_line_of_refusal
    assert states() == {entry_id: OutboxState.DEAD}


def test_all_of_a_task_are_retried_and_no_other(
    admin: Admin, database: Engine, now: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = {dead(now, number) for number in range(5)}
    other = dead(now, task=OTHER)
    answer = admin("deadletters", "retry", "--all", "--task", TASK)
    assert answer.lines[0] == f"5 dead letters of {TASK} will run again"
    assert {entry_id for entry_id, state in states().items() if state == "pending"} == mine
    assert states()[other] is OutboxState.DEAD
    none = admin("deadletters", "retry", "--all", "--task", TASK)
    assert (none.status, none.lines) == (0, [f"0 dead letters of {TASK} will run again"])


def test_a_purge_says_how_many(admin: Admin, database: Engine, now: FakeClock) -> None:
    for _ in range(3):
        dead(now)
    now.advance(days=30)
    young = dead(now)
    assert admin("deadletters", "purge", "--before", "30d").out.startswith("0 dead letters")
    now.now += timedelta(microseconds=1)
    answer = admin("deadletters", "purge", "--before", "30d", "--yes")
    assert answer.out == "3 dead letters of more than 30d ago deleted\n"
    assert states() == {young: OutboxState.DEAD}
    assert admin("deadletters", "purge", "--before", "30d", "--json").json == {"purged": 0}
    now.advance(seconds=1)
    answer = admin("deadletters", "purge", "--before", "0s")
    assert answer.out == "1 dead letter of more than 0s ago deleted\n"


def test_a_purge_of_more_than_one_asks_first(
    admin: Admin, database: Engine, now: FakeClock, typed: Callable[[str], None]
) -> None:
    first, second = dead(now), dead(now)
    now.advance(seconds=1)
    unasked = admin("deadletters", "purge", "--before", "0s")
    assert unasked.is_one_line_of_refusal
    assert unasked.err.startswith("Delete 2 dead letters of more than 0s ago? Add --yes")
    typed("\n")
    assert admin("deadletters", "purge", first, second).err.endswith("nothing was changed\n")
    assert set(states()) == {first, second}
    typed("yes\n")
    assert admin("deadletters", "purge", "--before", "0s", "--json").json == {"purged": 2}
    assert states() == {}


def test_dead_letters_are_purged_by_their_ids_and_nothing_else_is(
    admin: Admin, database: Engine, now: FakeClock
) -> None:
    first, second, third, finished = dead(now), dead(now), dead(now), done(now)
    assert admin("deadletters", "purge", first[:30]).out == "1 dead letter deleted\n"
    answer = admin("deadletters", "purge", second, finished, "--yes")
    assert answer.lines == [
        "1 dead letter deleted",
        f"{finished} is done: left as it is",
    ]
    assert answer.status == 0
    assert admin("deadletters", "purge", finished, "--json").json == {
        "purged": 0,
        "left": {finished: "done"},
    }
    assert set(states()) == {third, finished}


@pytest.mark.parametrize("words", [(), ("some-id", "--before", "30d")])
def test_a_purge_is_of_ids_or_of_an_age(
    admin: Admin, database: Engine, words: tuple[str, ...]
) -> None:
    assert admin("deadletters", "purge", *words).is_one_line_of_refusal
