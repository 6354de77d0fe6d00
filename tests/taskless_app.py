"""A Celery app with this project's configuration and none of its tasks, on a given Redis."""

from celery import Celery

from app.settings import load_settings
from app.tasks.celery_config import config


def taskless_app(url: str) -> Celery:
    """The caller closes it."""
    app = Celery("taskless", set_as_current=False)
    app.conf.update(config(load_settings()), broker_url=url, result_backend=url, include=[])
    return app
