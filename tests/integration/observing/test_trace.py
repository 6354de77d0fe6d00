"""From a request to its mail: one trace id in the rows, the messages and the log lines."""

from datetime import timedelta

import pytest
from sqlalchemy import select

from app import clock, db, trace
from app.models import EmailMessage, OutboxEntry
from app.services import bookings
from scripts.live.job_bench import JobBench
from tests.builders import a_service, a_student
from tests.integration.observing.watching import ANSWER, Watched

A = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.timeout(120)
def test_a_mail_leads_back_to_the_request_that_caused_it(watched: Watched, bench: JobBench) -> None:
    bench.live.app = "app.tasks"
    watched.start_worker()
    now = clock.utcnow()
    with db.transaction() as session:
        student, service = a_student(session).id, a_service(session).id
    with trace.use(A):
        with db.transaction() as session:
            lesson = bookings.book(
                session,
                student_id=student,
                service_id=service,
                starts_at=(now + timedelta(days=3)).replace(minute=0, second=0, microsecond=0),
                now=now,
            )
        with db.transaction() as session:
            bookings.confirm(session, lesson.id, now=now)
    bench.live.mailbox.wait_for(2, timeout=ANSWER)

    with db.reading() as session:
        assert set(session.scalars(select(EmailMessage.trace_id))) == {A}
        assert set(session.scalars(select(OutboxEntry.trace_id))) == {A}
    steps = {"app.tasks.email.send_booking_confirmation", "app.tasks.email.deliver"}
    bench.wait_until(lambda: steps <= succeeded(watched), timeout=ANSWER)


def succeeded(watched: Watched) -> set[str]:
    """The tasks of the request's trace that have succeeded, as the log has them."""
    return {
        line["task"]
        for line in watched.lines()
        if line.get("trace_id") == A and "succeeded" in line["event"]
    }
