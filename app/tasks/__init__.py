"""The Celery deployment: ``celery -A app.tasks worker`` finds it here."""

from app.tasks import command_line, interrupts

if command_line.celery_command() in command_line.PROCESSES:
    interrupts.end_quietly()  # what is imported below takes a second

from app.tasks import (
    context,
    dead_children,
    exposition,
    lease,
    logs,
    outage,
    pauses,
    recorder,
    startup,
    stopping,
    watchdog,
)
from app.tasks.base import BaseTask
from app.tasks.celery_app import celery_app

logs.connect()
context.connect()
startup.connect(celery_app)
stopping.install(celery_app)
dead_children.install(celery_app)
recorder.install(celery_app)
lease.install(celery_app)
pauses.install(celery_app)
outage.install(celery_app)
watchdog.install(celery_app)
exposition.install(celery_app)

__all__ = ["BaseTask", "celery_app"]
