"""Tell many people one thing while the worker that writes it is killed, and count who was told.

    python -m scripts.prove_broadcast --users 100000 --kills 10

Prints a row for each kill and the count at the end. Exit status 0 only where each user has
exactly one notification, each page was written once, and every kill fell into the broadcast.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from random import Random
from time import monotonic, sleep

from sqlalchemy import func, insert, select

from app import clock, db
from app.models import Broadcast, Notification, OutboxEntry, OutboxState, Role, User
from app.services.broadcasts import BROADCAST, PAGE, create_broadcast
from scripts.arguments import command, number, positive, run_command
from scripts.live.deployment import Deployment
from scripts.live.job_bench import JobBench, job_bench
from scripts.live.redis_server import RedisServer

POLL_SECONDS = 0.02
LONGEST_PAGE_SECONDS = 0.05
"""A kill comes up to so long after it fell due: anywhere in a page, and between two."""
DRAIN_SECONDS = 300.0
# A dead worker's message comes back sooner than in production, so that the rounds are short.
ENVIRONMENT = {"VISIBILITY_TIMEOUT_SECONDS": "3", "LEASE_INTERVAL_SECONDS": "1"}


@dataclass(frozen=True)
class Count:
    users: int
    notifications: int
    missing: int
    """Users without one."""
    doubled: int
    """Notifications beyond each user's first."""
    kills: int
    """While the broadcast went on."""
    pages: int
    """Outbox entries, each of which wrote a page."""
    undone: int
    """Those among them that are not done."""
    redelivered: int
    resent: int
    seconds: float

    def is_right(self, *, kills: int) -> bool:
        each_once = self.missing == self.doubled == self.undone == 0
        return each_once and self.pages == pages_of(self.users) and self.kills == kills


def main() -> int:
    parser = command("prove_broadcast", __doc__)
    parser.add_argument("--users", type=positive, default=100_000, help="how many (100000)")
    parser.add_argument("--kills", type=positive, default=10, help="of the worker (10)")
    parser.add_argument(
        "--seed", type=number(), default=0, help="draws the moments of the kills (0)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for machines")
    options = parser.parse_args()
    if options.kills >= pages_of(options.users):
        parser.error(
            f"--kills {options.kills}: there are {pages_of(options.users)} pages, and each kill "
            f"needs one of its own: use --users {(options.kills + 1) * PAGE} or more"
        )
    with (
        RedisServer() as redis_server,
        Deployment(redis_url=redis_server.url) as live,
        job_bench(live) as bench,
    ):
        count = prove(
            bench,
            users=options.users,
            kills=options.kills,
            rng=Random(options.seed),
            say=_be_silent if options.json else _print_now,
        )
    right = count.is_right(kills=options.kills)
    if options.json:
        print(json.dumps({"right": right, **asdict(count)}, indent=2))
    else:
        print(_verdict(count, right=right))
    return 0 if right else 1


def pages_of(users: int) -> int:
    """The last page is the first that is not full."""
    return users // PAGE + 1


def prove(
    bench: JobBench, *, users: int, kills: int, rng: Random, say: Callable[[str], None]
) -> Count:
    """Make ``users``, broadcast, and kill the worker ``kills`` times on the way."""
    started = monotonic()
    _make_users(users)
    bench.live.start_beat(environment=ENVIRONMENT)
    with db.transaction() as session:
        broadcast_id = create_broadcast(
            session, title="News", body="The new season begins.", now=clock.utcnow()
        )
    say(f"{'kill':>6} {'told':>8} {'pages':>6} {'redelivered':>12} {'resent':>7}")
    hits = 0
    for kill in range(kills):
        worker = bench.live.start_worker(name=f"worker-{kill}", environment=ENVIRONMENT)
        _wait_for(users * (kill + 1) // (kills + 1), broadcast_id)
        sleep(rng.uniform(0, LONGEST_PAGE_SECONDS))
        worker.kill()
        hits += not _is_finished(broadcast_id)
        say(_row(str(kill + 1)))
    bench.live.start_worker(name="last", environment=ENVIRONMENT)
    try:
        _wait_for(users, broadcast_id)
        bench.wait_until(lambda: not _undone(), timeout=DRAIN_SECONDS)
    except TimeoutError as error:
        say(str(error))
    say(_row("end"))
    return _count(kills=hits, seconds=monotonic() - started)


def _make_users(number: int) -> None:
    with db.transaction() as session:
        session.execute(
            insert(User),
            [
                {
                    "role": Role.STUDENT if n % 10 else Role.INSTRUCTOR,
                    "email": f"reader{n}@crowd.example",
                    "name": f"Reader {n}",
                    "time_zone": "UTC",
                }
                for n in range(number)
            ],
        )


def _wait_for(told: int, broadcast_id: int) -> None:
    """Wait until so many people are told, or the broadcast says that it is finished."""
    ends = monotonic() + DRAIN_SECONDS
    while _told() < told and not _is_finished(broadcast_id):
        if monotonic() > ends:
            raise TimeoutError(f"{_told()} of {told} told after {DRAIN_SECONDS:.0f} s")
        sleep(POLL_SECONDS)


def _told() -> int:
    with db.reading() as session:
        return session.scalar(select(func.count(Notification.id))) or 0


def _is_finished(broadcast_id: int) -> bool:
    with db.reading() as session:
        return session.get_one(Broadcast, broadcast_id).finished_at is not None


def _undone() -> int:
    with db.reading() as session:
        return (
            session.scalar(
                select(func.count()).where(
                    OutboxEntry.task == BROADCAST, OutboxEntry.state != OutboxState.DONE
                )
            )
            or 0
        )


def _pages() -> tuple[int, int, int]:
    """How many entries there are, their redeliveries and their resends."""
    with db.reading() as session:
        pages, redelivered, resent = session.execute(
            select(
                func.count(),
                func.coalesce(func.sum(OutboxEntry.deliveries), 0),
                func.coalesce(func.sum(OutboxEntry.resent), 0),
            ).where(OutboxEntry.task == BROADCAST)
        ).one()
    return pages, redelivered, resent


def _count(*, kills: int, seconds: float) -> Count:
    with db.reading() as session:
        users = list(session.scalars(select(User.id)))
        told = Counter(session.scalars(select(Notification.user_id)))
    pages, redelivered, resent = _pages()
    return Count(
        users=len(users),
        notifications=told.total(),
        missing=len(set(users) - told.keys()),
        doubled=told.total() - len(told),
        kills=kills,
        pages=pages,
        undone=_undone(),
        redelivered=redelivered,
        resent=resent,
        seconds=round(seconds, 1),
    )


def _row(name: str) -> str:
    pages, redelivered, resent = _pages()
    return f"{name:>6} {_told():>8} {pages:>6} {redelivered:>12} {resent:>7}"


def _verdict(count: Count, *, right: bool) -> str:
    verdict = "each user has exactly one" if right else "NOT each user has exactly one"
    return (
        f"{verdict}: {count.users} users, {count.notifications} notifications, "
        f"{count.missing} missing, {count.doubled} doubled; the worker was killed {count.kills} "
        f"times in {count.pages} pages, of which {count.redelivered} were redelivered and "
        f"{count.resent} resent; {count.undone} undone; {count.seconds:.0f} s"
    )


def _be_silent(_: str) -> None:
    pass


def _print_now(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
