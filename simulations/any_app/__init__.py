"""Any Celery app's day: its schedule, routes, limits, retries and priorities on virtual time."""
