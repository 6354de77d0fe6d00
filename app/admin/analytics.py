"""``python -m app.admin analytics``: metrics of days that nobody has counted."""

import argparse
from typing import Any
from zoneinfo import ZoneInfo

from app import clock, db, schema
from app.admin.arguments import UsageError, add_json, day
from app.admin.output import as_json, several
from app.domain.days import WrongDayError
from app.services import analytics
from app.settings import load_settings

COMMAND = "python -m app.admin analytics"


def add_to(topics: Any) -> None:
    """Add the topic's commands to the parser."""
    topic = topics.add_parser("analytics", help="the metrics of each day")
    actions = topic.add_subparsers(dest="action", required=True)
    backfill = actions.add_parser(
        "backfill",
        help="count days of the past, or count them again",
        description="Count each day from FIRST to LAST, both included, in the schedule's time "
        f"zone. At most {analytics.MOST_DAYS} days. A day that was counted is counted again.",
    )
    backfill.add_argument("first", type=day, metavar="FIRST", help="the first day: 2026-11-01")
    backfill.add_argument("last", type=day, metavar="LAST", help="the last day, included")
    add_json(backfill)
    backfill.set_defaults(run=_backfill)


def _backfill(chosen: argparse.Namespace) -> int:
    schema.check(db.engine())
    zone = ZoneInfo(load_settings().celery_timezone)
    try:
        with db.transaction() as session:
            planned = analytics.plan_backfill(
                session,
                chosen.first.isoformat(),
                chosen.last.isoformat(),
                zone=zone,
                now=clock.utcnow(),
            )
    except WrongDayError as error:
        raise UsageError(f"{COMMAND} backfill: {error}") from None
    if chosen.json:
        as_json({"first": planned.first, "last": planned.last, "days": planned.days})
        return 0
    print(f"{several(planned.days, 'day')} will be counted, {planned.first} to {planned.last}")
    print("beat publishes them within seconds. python -m app.admin outbox status")
    return 0
