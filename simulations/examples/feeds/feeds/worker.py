"""Entries at intervals, routes by pattern, and a chain that one of its tasks begins."""

from datetime import timedelta

from celery import Celery, chain

celery = Celery("feeds", broker="amqp://broker.invalid//")
celery.conf.update(
    timezone="UTC",
    task_routes={"feeds.fetch_*": {"queue": "network"}, "feeds.index": {"queue": "search"}},
    beat_schedule={
        "fetch": {"task": "feeds.fetch_all", "schedule": timedelta(minutes=5)},
        "clean": {"task": "feeds.clean", "schedule": 3600.0},
    },
)


@celery.task(name="feeds.fetch_all")
def fetch_all():
    chain(fetch_one.si("https://feeds.invalid/1"), index.si(1)).delay()


@celery.task(name="feeds.fetch_one", bind=True, max_retries=4, default_retry_delay=60)
def fetch_one(self, address=None):
    raise AssertionError("the replay ran a body of the reader's")


@celery.task(name="feeds.index")
def index(number=None):
    raise AssertionError("the replay ran a body of the reader's")


@celery.task(name="feeds.clean")
def clean():
    raise AssertionError("the replay ran a body of the reader's")
