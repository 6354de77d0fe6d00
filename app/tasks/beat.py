"""``python -m app.tasks.beat``: becomes ``celery -A app.tasks beat`` with the same options."""

from app.tasks.command import become

if __name__ == "__main__":
    become("beat")
