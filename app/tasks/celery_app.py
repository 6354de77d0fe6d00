"""The Celery instance."""

import sys
from importlib.util import find_spec

from app.settings import SettingsError, load_settings
from app.tasks import flower
from app.tasks.celery_config import TASK_MODULES, config
from app.tasks.typed_app import TypedCelery

try:
    settings = load_settings()
    flower.configure()
except SettingsError as error:
    # Raised from here, it would be a traceback; raised later, in on_configure, Celery
    # swallows it and dials a default broker.
    sys.stderr.write(f"{error}\n")
    raise SystemExit(2) from None

for module in TASK_MODULES:
    if find_spec(f"app.tasks.{module}") is None:
        # Celery would import it later, and end with a traceback.
        sys.stderr.write(
            f"TASK_MODULES in app/tasks/celery_config.py: there is no module app.tasks.{module}\n"
        )
        raise SystemExit(2)

celery_app = TypedCelery("app.tasks")
celery_app.conf.update(config(settings))
