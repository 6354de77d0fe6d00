"""Mails: planned for their readers, then delivered in chunks."""

from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

from celery.exceptions import SoftTimeLimitExceeded

from app import clock, db
from app.adapters.mailers import mailer_from
from app.domain import days
from app.domain.calendar import day_of
from app.services import digests, email, email_delivery, password_resets, weekly_reports
from app.settings import load_settings
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.email.send_booking_confirmation")
def send_booking_confirmation(self: BaseTask, booking_id: int) -> dict[str, Any]:
    """Tell both sides that the lesson is confirmed."""
    with self.transaction() as session:
        return {"planned": len(email.queue_confirmation(session, booking_id, now=clock.utcnow()))}


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.email.send_booking_cancellation")
def send_booking_cancellation(self: BaseTask, booking_id: int) -> dict[str, Any]:
    """Tell both sides that the lesson is cancelled."""
    with self.transaction() as session:
        return {"planned": len(email.queue_cancellation(session, booking_id, now=clock.utcnow()))}


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.email.send_no_show_notice")
def send_no_show_notice(self: BaseTask, booking_id: int) -> dict[str, Any]:
    """Tell both sides who did not come to the lesson."""
    with self.transaction() as session:
        return {"planned": len(email.queue_no_show_notice(session, booking_id, now=clock.utcnow()))}


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.email.send_password_reset")
def send_password_reset(self: BaseTask, reset_id: int) -> dict[str, Any]:
    """Send the link that opens an account once. The token itself is not among the arguments."""
    with self.transaction() as session:
        return {"planned": len(password_resets.queue_mail(session, reset_id, now=clock.utcnow()))}


@celery_app.task(base=BaseTask, bind=True, name="app.tasks.email.send_digests")
def send_digests(self: BaseTask, date_iso: str, after_user_id: int = 0) -> dict[str, Any]:
    """Send everybody what they have not read of a day, such as 2026-11-01, that is over."""
    day = days.parse(date_iso)
    zone = ZoneInfo(load_settings().celery_timezone)
    with self.transaction() as session:
        summary = digests.enqueue(
            session, day, zone=zone, now=clock.utcnow(), after_user_id=after_user_id
        )
        return asdict(summary)


@celery_app.task(
    base=BaseTask,
    bind=True,
    name="app.tasks.email.send_weekly_reports",
    max_retries=48,
    retry_base=1800.0,
    retry_cap=1800.0,
)
def send_weekly_reports(
    self: BaseTask, week_start_iso: str, after_user_id: int = 0
) -> dict[str, Any]:
    """Send each instructor the figures of the week that began on this Monday.

    Waits for a day that is still to be counted, a day long; after that it is a dead letter,
    to be retried when the day is.
    """
    monday = days.parse_monday(week_start_iso)
    with db.reading() as session:
        zone = ZoneInfo(load_settings().celery_timezone)
        weekly_reports.check_counted(session, monday, today=day_of(clock.utcnow(), zone))
    with self.transaction() as session:
        summary = weekly_reports.enqueue(
            session, monday, now=clock.utcnow(), after_user_id=after_user_id
        )
        return asdict(summary)


# RFC 5321, section 4.5.4.1: try for four to five days, half an hour apart.
@celery_app.task(
    base=BaseTask,
    bind=True,
    name="app.tasks.email.deliver",
    max_retries=250,
    retry_cap=1800.0,
    # The mails that the time limit kept from going out have done nothing wrong.
    transient_errors=(*BaseTask.transient_errors, SoftTimeLimitExceeded),
)
def deliver(self: BaseTask, email_ids: list[int], include_failed: bool = False) -> dict[str, Any]:
    """Send the mails that wait among ``email_ids``, and come again for the rest.

    Each mail has a claim of its own, so this needs no guard; the run is done when no mail
    waits any more. ``include_failed`` sends failed ones too: a dead letter that is retried.
    """
    settings = load_settings()
    summary = email_delivery.deliver(
        email_ids,
        mailer=mailer_from(settings),
        settings=settings,
        clock=clock.utcnow,
        include_failed=include_failed,
    )
    if summary.error is not None:
        raise self.retry(exc=summary.error)
    if summary.retry_after is not None:
        raise self.retry(exc=summary.claimed, countdown=summary.retry_after)
    with self.transaction() as session:
        # The time was up for them before this task's limit.
        email.enqueue_deliveries(
            session, summary.left, urgency=self.urgency, include_failed=include_failed
        )
    return {"sent": summary.sent, "failed": summary.failed, "cancelled": summary.cancelled}
