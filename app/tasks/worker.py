"""``python -m app.tasks.worker``: becomes ``celery -A app.tasks worker`` with the same options."""

from app.tasks.command import become

if __name__ == "__main__":
    become("worker")
