from datetime import timedelta

import pytest
from sqlalchemy.orm import Session

from app.domain.notifications import BODY_LENGTH, TITLE_LENGTH
from app.models import Broadcast, NotificationKind, Role
from app.services import broadcasts
from app.services.broadcasts import BROADCAST, BroadcastPage
from app.services.errors import MissingRowError
from tests.builders import NOON, a_student, all_notifications, an_instructor, planned

LATER = NOON + timedelta(minutes=1)
PAGE = 3


def a_broadcast(session: Session, audience: Role | None = None) -> Broadcast:
    broadcast_id = broadcasts.create_broadcast(
        session, title="News", body="The new season begins.", audience=audience, now=NOON
    )
    return session.get_one(Broadcast, broadcast_id)


def write_all(session: Session, broadcast: Broadcast) -> list[BroadcastPage]:
    """Run page after page, as the plan of each says, until no new one is planned."""
    pages, begun = [], 0
    while len(plan := planned(session)) > begun:
        args = plan[begun][1]
        begun += 1
        pages.append(broadcasts.write_page(session, *args[:1], **after(args), now=LATER, page=PAGE))
    return pages


def after(args: list[int]) -> dict[str, int]:
    return {"after_user_id": args[1]} if len(args) > 1 else {}


def readers(session: Session) -> list[int]:
    return sorted(told.user_id for told in all_notifications(session))


@pytest.mark.parametrize("people", [0, 1, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE])
def test_everybody_is_told_once_in_pages(session: Session, people: int) -> None:
    everybody = [a_student(session).id for _ in range(people)]
    broadcast = a_broadcast(session)
    pages = write_all(session, broadcast)
    assert readers(session) == everybody
    assert len(pages) == people // PAGE + 1
    assert sum(page.created for page in pages) == people
    assert broadcast.finished_at == LATER


def test_a_reader_sees_the_text_of_the_broadcast(session: Session) -> None:
    reader = a_student(session)
    broadcast = a_broadcast(session)
    write_all(session, broadcast)
    (told,) = all_notifications(session)
    assert (told.user_id, told.kind, told.title, told.body) == (
        reader.id,
        NotificationKind.BROADCAST,
        "News",
        "The new season begins.",
    )
    assert (told.key, told.created_at) == (f"broadcast:{broadcast.id}:{reader.id}", LATER)


@pytest.mark.parametrize("audience", Role)
def test_a_broadcast_to_one_role_reaches_nobody_else(session: Session, audience: Role) -> None:
    people = [(a_student if n % 2 else an_instructor)(session) for n in range(4 * PAGE)]
    write_all(session, a_broadcast(session, audience))
    assert readers(session) == [person.id for person in people if person.role is audience]


def test_a_page_that_is_written_again_doubles_nothing_and_forks_no_chain(session: Session) -> None:
    everybody = [a_student(session).id for _ in range(PAGE + 1)]
    broadcast = a_broadcast(session)
    write_all(session, broadcast)
    before = planned(session)
    again = broadcasts.write_page(session, broadcast.id, now=LATER, page=PAGE)
    assert again == BroadcastPage(created=0, finished=False)
    assert planned(session) == before
    assert readers(session) == everybody


def test_a_broadcast_is_finished_with_its_last_page_and_stays_so(session: Session) -> None:
    for _ in range(PAGE):
        a_student(session)
    broadcast = a_broadcast(session)
    broadcasts.write_page(session, broadcast.id, now=NOON, page=PAGE)
    assert broadcast.finished_at is None
    last = readers(session)[-1]
    for now in (NOON, LATER):
        broadcasts.write_page(session, broadcast.id, after_user_id=last, now=now, page=PAGE)
    assert broadcast.finished_at == NOON


def test_two_broadcasts_reach_the_same_people(session: Session) -> None:
    reader = a_student(session)
    for _ in range(2):
        write_all(session, a_broadcast(session))
    assert readers(session) == [reader.id, reader.id]


def test_an_unknown_broadcast_is_named(session: Session) -> None:
    with pytest.raises(MissingRowError, match="broadcast 999"):
        broadcasts.write_page(session, 999, now=NOON)


@pytest.mark.parametrize(
    ("title", "body", "complaint"),
    [
        (" ", "Text", "the title of a broadcast is empty"),
        ("News", "", "the body of a broadcast is empty"),
        ("x" * (TITLE_LENGTH + 1), "Text", f"title .* at most {TITLE_LENGTH}"),
        ("News", "x" * (BODY_LENGTH + 1), f"body .* at most {BODY_LENGTH}"),
    ],
)
def test_a_text_that_nobody_could_read_is_refused(
    session: Session, title: str, body: str, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        broadcasts.create_broadcast(session, title=title, body=body, now=NOON)
    assert planned(session) == []


def test_the_longest_text_is_taken(session: Session) -> None:
    broadcasts.create_broadcast(session, title="x" * TITLE_LENGTH, body="x" * BODY_LENGTH, now=NOON)
    assert [task for task, _ in planned(session)] == [BROADCAST]
