"""A worker looks for others of its name while it already works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOKING = """
import os
from threading import Event, Thread
from time import monotonic, sleep
from app.tasks import startup

LOOKS_FOR = 1.0
looks = Event()

def pids_of(app, name, *, timeout):
    looks.set()
    sleep(LOOKS_FOR)
    return [os.getpid()]

startup.pids_of = pids_of
Thread(target=startup._warn_of_namesakes, args=(None, "worker@here")).start()
looks.wait()
before = monotonic()
if os.fork() == 0:
    os._exit(0)
print(monotonic() - before > LOOKS_FOR / 2)
"""


@pytest.mark.parametrize("url", ["sqlite:///none.sqlite3", "postgresql+psycopg://127.0.0.1:1/none"])
def test_no_child_is_forked_while_a_thread_looks_for_a_worker_of_the_same_name(
    url: str, tmp_path: Path
) -> None:
    """It would inherit the locks that the thread holds in Celery's pool of connections."""
    answer = subprocess.run(
        [sys.executable, "-c", LOOKING],
        env={**os.environ, "DATABASE_URL": url, "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "True"
