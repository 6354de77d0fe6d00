"""Priorities, and a schedule of crontabs in local time."""

from celery import Celery, signals
from celery.schedules import crontab

app = Celery("shop", broker="redis://broker.invalid:6379/0", backend="redis://broker.invalid/1")
app.conf.update(
    timezone="Europe/Berlin",
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={
        "priority_steps": list(range(10)),
        "queue_order_strategy": "priority",
        "visibility_timeout": 3600,
    },
    beat_schedule={
        "invoices": {
            "task": "app.invoices",
            "schedule": crontab(hour=2, minute=30),
            "options": {"priority": 6},
        },
        "stock": {"task": "app.stock", "schedule": crontab(minute="*/10")},
        "nightly-report": {"task": "app.report", "schedule": crontab(hour=2, minute=30)},
    },
)


@signals.task_prerun.connect
def connect_to_the_warehouse(**_):
    raise ConnectionError("the replay called a function of the shop's")


@app.task(name="app.checkout", priority=0, autoretry_for=(OSError,), retry_backoff=True)
def checkout(order=None):
    raise AssertionError("the replay ran a body of the shop's")


@app.task(name="app.invoices", time_limit=1800)
def invoices():
    raise AssertionError("the replay ran a body of the shop's")


@app.task(name="app.stock", rate_limit="30/m")
def stock():
    raise AssertionError("the replay ran a body of the shop's")


@app.task(name="app.report", soft_time_limit=300)
def report():
    raise AssertionError("the replay ran a body of the shop's")
