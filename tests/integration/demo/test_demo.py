"""The demo as a person runs it: it adds up, also under kills, and leaves nothing behind."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, NoReturn, Self

import psutil
import pytest

from scripts.demonstration import crew
from scripts.live.deployment import REPOSITORY, Deployment
from scripts.live.mailbox import Mailbox
from scripts.live.processes import is_running, wait_until_gone
from scripts.live.redis_server import NoRedisServerError, RedisServer, find_server

STARTED = 60  # seconds for the processes to be ready, on a busy machine
STOPPED = 60  # seconds to drain and stop

# Each test is as slow as the show that it watches.
pytestmark = pytest.mark.timeout(240)

Logs = Callable[[Callable[[], dict[str, str]]], None]


class Demo:
    """A running demo, and what it has said so far."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.folder = folder
        self.output = folder.with_suffix(".out")
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scripts.demonstration", "--folder", folder, *arguments],
                cwd=REPOSITORY,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        deadline = time.monotonic() + STARTED
        while words not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"it never said {words!r}:\n{self.said()}")
            time.sleep(0.1)

    def family(self) -> set[int]:
        ours = psutil.Process(self.process.pid)
        return {ours.pid, *(child.pid for child in ours.children(recursive=True))}

    def ports(self) -> set[int]:
        listening = set()
        for pid in self.family():
            with suppress(psutil.NoSuchProcess):  # --kill was faster
                for connection in psutil.Process(pid).net_connections(kind="tcp"):
                    if connection.status == psutil.CONN_LISTEN:
                        listening.add(connection.laddr.port)
        return listening

    def logs(self) -> dict[str, str]:
        logs = (self.folder / "logs").rglob("*")
        files = [self.output, *(path for path in logs if path.is_file())]
        return {file.name: file.read_text(errors="replace") for file in files}


@pytest.fixture
def demo(
    tmp_path: Path, missing_service: Callable[[str], NoReturn], show_logs: Logs
) -> Iterator[Callable[..., Demo]]:
    try:
        find_server()
    except NoRedisServerError as error:
        missing_service(str(error))
    running = []

    def start(*arguments: str) -> Demo:
        started = Demo(tmp_path / f"demo{len(running) or ''}", *arguments)
        running.append(started)
        show_logs(started.logs)
        return started

    yield start
    for started in running:
        started.process.kill()
        started.process.wait()


def figures_of(demo: Demo, file: Path, *, seconds: float) -> dict[str, Any]:
    assert demo.process.wait(STARTED + seconds + STOPPED) == 0, demo.said()
    figures: dict[str, Any] = json.loads(file.read_text())
    return figures


def test_a_show_adds_up(demo: Callable[..., Demo], tmp_path: Path) -> None:
    file = tmp_path / "demo.json"
    show = demo("--seconds", "20", "--seed", "1", "--json", str(file))
    figures = figures_of(show, file, seconds=20)
    bookings, mails, outbox = figures["bookings"], figures["mails"], figures["outbox"]
    assert bookings["confirmed"] + bookings["cancelled"] >= 20
    assert mails["expected"] == mails["delivered"] >= 50
    assert (mails["doubled"], mails["uncertain"], figures["lost"]) == (0, 0, 0)
    assert (outbox["pending"], outbox["dead"]) == (0, 0)
    # From midnight until they go out, yesterday's digests and its week's reports are planned.
    assert outbox["later"] <= 2
    assert all(task["succeeded"] and not task["failed"] for task in figures["tasks"].values())
    assert outbox["done"] == sum(task["succeeded"] for task in figures["tasks"].values())
    assert "It adds up" in show.said()


def test_what_it_counted_is_what_it_left(demo: Callable[..., Demo], tmp_path: Path) -> None:
    file = tmp_path / "demo.json"
    figures = figures_of(demo("--seconds", "5", "--json", str(file)), file, seconds=5)
    assert Mailbox(Path(figures["mailbox"])).delivered == figures["mails"]["delivered"]
    database = sqlite3.connect(figures["database"].removeprefix("sqlite:///"))
    query = "SELECT count(*) FROM bookings WHERE status = 'confirmed'"
    assert database.execute(query).fetchone() == (figures["bookings"]["confirmed"],)
    # Before eight in the morning yesterday's digests wait for it.
    due = "SELECT DISTINCT state FROM outbox_entries WHERE due_at <= datetime('now')"
    assert {state for (state,) in database.execute(due)} <= {"done", "cancelled"}
    database.close()
    left = {path.name for path in (tmp_path / "demo").iterdir()}
    assert left == {"logs", "mail", "marketplace.sqlite3", "redis"}, "no write-ahead log"


def test_a_show_adds_up_while_its_processes_are_killed(
    demo: Callable[..., Demo], tmp_path: Path
) -> None:
    file = tmp_path / "demo.json"
    show = demo("--kill", "--seconds", "25", "--seed", "1", "--json", str(file))
    figures = figures_of(show, file, seconds=25)
    mails = figures["mails"]
    assert (figures["lost"], figures["outbox"]["pending"]) == (0, 0)
    assert mails["doubled"] <= mails["uncertain"]
    for killed in ("KILLED     worker", "KILLED     beat", "KILLED     Redis"):
        assert killed in show.said()


@pytest.mark.parametrize("arguments", [(), ("--kill",)])
def test_ctrl_c_stops_all_of_it_and_still_counts(
    demo: Callable[..., Demo], arguments: tuple[str, ...]
) -> None:
    show = demo(*arguments)
    show.wait_for("confirmed  lesson")
    family, ports = show.family(), show.ports()
    assert len(family) >= 5, "itself, Redis, a worker, beat, Flower"
    assert len(ports) >= 3, "Redis, the mail server, Flower"
    show.process.send_signal(signal.SIGINT)
    assert show.process.wait(STOPPED) == 0, show.said()
    assert "It adds up" in show.said()
    assert not any(map(is_running, family))
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not list((show.folder / "mail" / "tmp").iterdir()), "half a mail"


def test_ctrl_c_while_it_starts_leaves_nothing(demo: Callable[..., Demo]) -> None:
    show = demo()
    show.wait_for("starting   a worker")
    family = show.family()
    show.process.send_signal(signal.SIGINT)
    assert show.process.wait(STOPPED) == 130, show.said()
    assert not any(map(is_running, family))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["confirmed  lesson", "closing    people"])
def test_a_second_signal_ends_it_at_once_in_one_line(
    demo: Callable[..., Demo], number: int, after: str
) -> None:
    show = demo(*(["--seconds", "5"] if after.startswith("closing") else []))
    show.wait_for(after)
    family, said = show.family(), show.said()
    show.process.send_signal(number)
    show.wait_for("closing    people")
    time.sleep(0.3)  # the kernel makes one of two that come together
    show.process.send_signal(number)
    asked = time.monotonic()
    show.process.send_signal(number)  # one too many, while it kills its processes
    assert show.process.wait(STOPPED) == 130, show.said()
    assert time.monotonic() - asked < 8, "no process was waited for"
    assert show.said().splitlines()[-1] == "demo: interrupted, nothing was counted"
    assert "It does not add up" not in show.said()
    assert "Traceback" not in show.said()
    # The first signal may have drained something before the second came.
    assert len(show.said().splitlines()) - len(said.splitlines()) < 20
    for pid in family:
        wait_until_gone(pid)


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 0.5, 1.0, 2.0])
def test_a_signal_in_the_first_seconds_ends_it_in_one_line(tmp_path: Path, seconds: float) -> None:
    """As ``scripts/demo`` starts it: deaf to SIGINT for the moment until Python listens."""
    with subprocess.Popen(
        [sys.executable, "-m", "scripts.demonstration", "--folder", str(tmp_path / "demo")],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ) as show:
        time.sleep(seconds)
        while show.poll() is None:  # again, where it was too early to be heard
            show.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert show.stdout is not None
        assert show.stderr is not None
        said = show.stderr.read().decode()
    assert show.returncode == 130
    assert said == "demo: interrupted, nothing was counted\n"


def test_two_demos_at_a_time_have_a_flower_each(demo: Callable[..., Demo]) -> None:
    shows = [demo(), demo()]
    ports = []
    for show in shows:
        show.wait_for("confirmed  lesson")
        [port] = re.findall(r"Flower +http://127\.0\.0\.1:(\d+)", show.said())
        assert int(port) in show.ports()
        ports.append(port)
    assert len(set(ports)) == 2


def test_a_port_taken_at_the_last_moment_is_not_flowers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with (
        HealthyPage() as foreign,
        RedisServer() as redis,
        Deployment(redis_url=redis.url) as live,
    ):
        free = crew.free_port()
        ports = iter([foreign.port, free])
        monkeypatch.setattr(crew, "free_port", lambda _preferred=None: next(ports))
        made = crew.Crew(live, say=lambda what, text: said.append(f"{what} {text}"))
        assert made.flower_port == free
        assert made.flower.process.listens_on(free)


def test_a_flower_that_lost_its_port_moves_and_is_ready_when_it_answers(tmp_path: Path) -> None:
    said: list[str] = []
    with RedisServer() as redis, Deployment(redis_url=redis.url) as live:
        made = crew.Crew(live, say=lambda what, text: said.append(f"{what} {text}"))
        first = made.flower_port
        made.flower.kill()
        with HealthyPage(first):
            elapsed, until = 10.0, time.monotonic() + STARTED
            while "ready Flower" not in said and time.monotonic() < until:
                elapsed += 0.5
                made.watch(elapsed)
                time.sleep(0.1)
            assert made.flower_port != first
            assert f"moved Flower, to http://127.0.0.1:{made.flower_port}" in said
            assert made.flower.process.listens_on(made.flower_port)


class HealthyPage(HTTPServer):
    """A foreign server whose every page answers 200, as another demo's Flower does."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Healthy)
        self.port = self.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def test_it_stops_when_nobody_reads_any_more(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.demonstration", "--folder", tmp_path / "demo"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as show:
        assert show.stdout is not None
        show.stdout.readline()
        show.stdout.close()
        assert show.wait(STARTED + STOPPED) == 0


def test_its_processes_do_not_outlive_it(demo: Callable[..., Demo]) -> None:
    show = demo()
    show.wait_for("booked     lesson")
    family = show.family()
    show.process.kill()
    show.process.wait()
    for pid in family:
        wait_until_gone(pid)


def test_a_port_in_use_is_said_and_another_taken(demo: Callable[..., Demo]) -> None:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", 5555))
            taken.listen()
        except OSError:
            pass  # somebody else has it: just as well
        show = demo()
        show.wait_for("port 5555 is in use")


def test_a_wrong_word_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    before = {path.name for path in REPOSITORY.iterdir()}
    refused = subprocess.run(
        [REPOSITORY / "scripts" / "demo", "--json", "no/such/folder/demo.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.count("\n") == 1
    assert str(tmp_path / "no" / "such" / "folder") in refused.stderr
    assert {path.name for path in REPOSITORY.iterdir()} == before
    assert not list(tmp_path.iterdir())
