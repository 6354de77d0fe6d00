"""``python -m app.admin mails``: what became of a mail, and why one came twice."""

import argparse
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from app import clock, db, schema
from app.admin import entries
from app.admin.arguments import UsageError, add_json
from app.admin.output import age, as_json, figures, instant, several, table
from app.domain.errors import one_line
from app.models import EmailMessage, EmailState, OutboxEntry, OutboxState
from app.outbox import status
from app.services import email_history
from app.services.email_history import Mail, Wanted
from app.settings import load_settings

COMMAND = "python -m app.admin mails"
ERRORS_SHOWN = 10
_LARGEST_ID = 2**63 - 1


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("mails", help="mails that were planned, sent, failed or duplicated")
    actions = topic.add_subparsers(dest="action", required=True)
    listed = actions.add_parser("list", help="mails, those planned last first")
    listed.add_argument("--state", choices=[state.value for state in EmailState])
    listed.add_argument("--booking", type=_row_id, metavar="ID", help="only about this booking")
    listed.add_argument("--user", type=_row_id, metavar="ID", help="only to this user")
    listed.add_argument(
        "--duplicated", action="store_true", help="only those that may have gone out twice"
    )
    listed.set_defaults(run=_list)
    show = actions.add_parser("show", help="one mail, with the entries that deliver it")
    show.add_argument("id", metavar="ID", help="an id, or a unique beginning of one")
    show.set_defaults(run=_show)
    for action in (listed, show):
        add_json(action)


def _row_id(typed: str) -> int:
    if not typed.isascii() or not typed.isdecimal() or not 0 < int(typed) <= _LARGEST_ID:
        raise argparse.ArgumentTypeError(f"{typed!r:.40} is not an id: write a number such as 42")
    return int(typed)


def _list(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    wanted = Wanted(
        state=None if chosen.state is None else EmailState(chosen.state),
        booking=chosen.booking,
        user=chosen.user,
        duplicated=chosen.duplicated,
    )
    with db.reading() as session:
        found = email_history.find(
            session,
            wanted,
            settings=load_settings(),
            limit=None if chosen.json else entries.SHOWN,
        )
        total = email_history.count(session, wanted)
    if chosen.json:
        as_json([asdict(mail) for mail in found])
        return 0
    state = f"{chosen.state} " if chosen.state else ""
    asked = (
        (f" about booking {chosen.booking}" if chosen.booking else "")
        + (f" to user {chosen.user}" if chosen.user else "")
        + (" possibly duplicated" if chosen.duplicated else "")
    )
    if not found:
        print(f"no {state}mails{asked}")
        return 0
    print(f"{several(total, f'{state}mail')}{asked}, the latest first")
    print()
    now = clock.utcnow()
    table(
        ("ID", "KIND", "ABOUT", "USER", "STATE", "CLAIMS", "UNKNOWN", "PLANNED", "TO"),
        [
            (
                *(mail.id, mail.kind, mail.about, mail.user, mail.state, mail.claims),
                *(mail.uncertain, f"{_age(now - mail.created_at)} ago", mail.address),
            )
            for mail in found
        ],
        numbers=(0, 3, 5, 6),
    )
    print()
    if total > len(found):
        more = total - len(found)
        are = "one is" if more == 1 else "ones are"
        print(f"{more:,} older {are} not shown: --json lists all")
    print("UNKNOWN: how often nobody knew whether it was sent, so that it went out again")
    print(f"{COMMAND} show ID")
    return 0


def _show(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    settings = load_settings()
    with db.reading() as session:
        email_id = entries.whole_id(session, EmailMessage.id, chosen.id)
        mail = (
            None
            if email_id is None
            else email_history.read(session, int(email_id), settings=settings)
        )
        if mail is None:
            raise UsageError(f"no mail has the id {chosen.id}")
        delivered_by = email_history.deliveries(session, mail)
    if chosen.json:
        described = [entries.described(entry) for entry in delivered_by]
        as_json({**asdict(mail), "entries": described})
        return 0
    pending = any(entry.state is OutboxState.PENDING for entry in delivered_by)
    print(f"{mail.id}: {_verdict(mail, pending=pending)}")
    print()
    figures(
        [
            ("kind", mail.kind),
            ("about", mail.about),
            ("recipient", f"user {mail.user}, {mail.address}"),
            ("planned", instant(mail.created_at)),
            ("claims", mail.claims),
            ("sent", instant(mail.sent_at)),
            ("failed", instant(mail.failed_at)),
            ("message id", mail.message_id),
        ]
    )
    print()
    for entry in delivered_by:
        _show_entry(entry)
    if delivered_by:
        print("python -m app.admin outbox show ID")
    else:
        print(f"no entry: done ones are deleted after {settings.outbox_retention_days} days")
    return 0


def _show_entry(entry: OutboxEntry) -> None:
    again = f", {several(entry.tries, 'attempt')} rescheduled" if entry.tries else ""
    print(f"{entry.id}: {status.stage(entry, now=clock.utcnow())}{again}")
    errors = entries.errors_of(entry)
    if len(errors) > ERRORS_SHOWN:
        print(f"  {len(errors) - ERRORS_SHOWN:,} earlier errors are not shown")
    for error in errors[-ERRORS_SHOWN:]:
        print(f"  {error}")
    print()


def _verdict(mail: Mail, *, pending: bool) -> str:
    verdict: str = mail.state.value
    error = f", {one_line(mail.error)}" if mail.error else ""
    match mail.state:
        case EmailState.SENT if not mail.uncertain:
            verdict = "sent once"
        case EmailState.QUEUED | EmailState.FAILED:
            verdict += error
        case EmailState.CANCELLED:
            verdict += ": it had become pointless or unwanted"
        case EmailState.SENDING:
            left = (mail.leased_until or mail.created_at) - clock.utcnow()
            verdict += (
                f", claimed for {age(left)} more"
                if left > timedelta(0)
                else f", its claim ran out {age(-left)} ago and its fate is unknown"
                + (": the next attempt sends it again" if pending else "")
            )
    if mail.uncertain:
        times = "once" if mail.uncertain == 1 else f"{mail.uncertain:,} times"
        last = f", last on {instant(mail.uncertain_at)}" if mail.uncertain_at else ""
        verdict += f", possibly duplicated: its fate was unknown {times}{last}"
    if mail.state in {EmailState.QUEUED, EmailState.SENDING} and not pending:
        verdict += ", no pending entry delivers it"
    return verdict


def _age(length: timedelta) -> str:
    return age(max(timedelta(0), length))
