"""Started commands end when we say so, and when we die."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from scripts.live.deployment import REPOSITORY
from scripts.live.processes import (
    Process,
    ProcessEndedError,
    Processes,
    is_running,
    wait_until_gone,
)

SLEEPS = "import time; print('up', flush=True); time.sleep(60)"
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); " + SLEEPS
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPS
# A parent that says the pid of its child, as a prefork worker has children.
HAS_A_CHILD = (
    "import subprocess, sys, time; child = subprocess.Popen(['sleep', '60']);"
    " print('child', child.pid, flush=True); time.sleep(60)"
)


@pytest.fixture
def python(tmp_path: Path) -> Callable[..., Process]:
    """A Process, not started, that runs this Python source."""

    def make(source: str, name: str = "script") -> Process:
        return Process([sys.executable, "-c", source], log=tmp_path / f"{name}.log", name=name)

    return make


def zombies() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if p.status() == psutil.STATUS_ZOMBIE]


def test_a_process_ends_on_sigterm_with_its_own_exit_code(python: Callable[..., Process]) -> None:
    script = python(POLITE).start()
    script.wait_for_line("^up$")
    assert script.terminate(grace=10) == 7
    assert not script.alive
    assert zombies() == []


def test_a_process_deaf_to_sigterm_is_killed_after_the_grace(
    python: Callable[..., Process],
) -> None:
    script = python(DEAF).start()
    script.wait_for_line("^up$")
    began = time.monotonic()
    assert script.terminate(grace=0.3) == -signal.SIGKILL
    assert 0.3 <= time.monotonic() - began < 5


def test_a_paused_process_still_hears_sigterm(python: Callable[..., Process]) -> None:
    script = python(POLITE).start()
    script.wait_for_line("^up$")
    script.signal(signal.SIGSTOP)
    assert script.terminate(grace=10) == 7


def test_kill_takes_the_descendants_along(python: Callable[..., Process]) -> None:
    script = python(HAS_A_CHILD).start()
    child = int(script.wait_for_line(r"child (\d+)")[1])
    assert [process.pid for process in script.descendants()] == [child]
    assert script.kill() == -signal.SIGKILL
    assert not is_running(child)


def test_kill_alone_leaves_the_children_and_kill_finds_them_later(
    python: Callable[..., Process],
) -> None:
    script = python(HAS_A_CHILD).start()
    child = int(script.wait_for_line(r"child (\d+)")[1])
    assert script.kill_alone() == -signal.SIGKILL
    assert not script.alive
    assert is_running(child)
    script.kill()
    assert not is_running(child)


def test_terminate_leaves_no_orphan(python: Callable[..., Process]) -> None:
    script = python(HAS_A_CHILD).start()  # ends on SIGTERM without a thought for its child
    child = int(script.wait_for_line(r"child (\d+)")[1])
    assert script.terminate() == -signal.SIGTERM
    assert not is_running(child)


def test_a_process_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    source = textwrap.dedent(
        f"""
        import sys, time
        from pathlib import Path
        from scripts.live.processes import Process
        child = Process([sys.executable, "-c", {SLEEPS!r}], log=Path({str(tmp_path / "c")!r}))
        child.start().wait_for_line("^up$")
        print(child.pid, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert is_running(child)
        parent.kill()
    wait_until_gone(child)


def test_a_process_outlives_the_thread_that_asked_for_it(python: Callable[..., Process]) -> None:
    # The kernel's "parent" is a thread: forked in this one it would die with it.
    script = python(SLEEPS)
    # It waits for the line, since the kernel knows of the wish only by then.
    thread = threading.Thread(target=lambda: script.start().wait_for_line("^up$"))
    thread.start()
    thread.join()
    time.sleep(0.2)  # in vain: for the kill that must not come
    assert script.alive
    script.kill()


def test_ctrl_c_of_our_terminal_does_not_reach_it(python: Callable[..., Process]) -> None:
    script = python("import os; print('session', os.getsid(0), flush=True); " + SLEEPS).start()
    session = int(script.wait_for_line(r"session (\d+)")[1])
    assert session == script.pid != os.getsid(0)
    script.kill()


def test_waiting_for_a_line_shows_the_log_of_a_process_that_ended(
    python: Callable[..., Process],
) -> None:
    script = python("raise SystemExit('REDIS_URL is no URL')").start()
    with pytest.raises(ProcessEndedError, match=r"ended with 1 .*\n(.*\n)*REDIS_URL is no URL"):
        script.wait_for_line("ready")


def test_waiting_for_a_line_ends_after_its_timeout(python: Callable[..., Process]) -> None:
    script = python(SLEEPS).start()
    with pytest.raises(TimeoutError, match=r"did not write 'ready' in 0\.2 s"):
        script.wait_for_line("ready", timeout=0.2)
    script.kill()


def test_a_second_start_is_not_confused_by_what_the_first_one_wrote(
    python: Callable[..., Process],
) -> None:
    script = python("print('once', flush=True)").start()
    script.wait(timeout=10)
    assert script.log_text() == "once\n"
    script.start().wait(timeout=10)
    assert script.log_text() == "once\n"
    assert script.log.read_text() == "once\nonce\n"


def test_a_command_that_does_not_exist_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-command: command not found"):
        Process(["no-such-command"], log=tmp_path / "log").start()


def test_processes_stop_in_reverse_order(python: Callable[..., Process], tmp_path: Path) -> None:
    ends = tmp_path / "ends"

    def says_when_it_ends(name: str) -> Process:
        writes = f"lambda *_: (open({str(ends)!r}, 'a').write('{name} '), sys.exit())"
        return python(f"import signal, sys; signal.signal(15, {writes}); {SLEEPS}", name)

    with Processes() as processes:
        for name in ("redis", "worker", "beat"):
            processes.start(says_when_it_ends(name)).wait_for_line("^up$")
    assert ends.read_text() == "beat worker redis "


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_processes_leave_nothing_after_an_exception(
    python: Callable[..., Process], error: type[BaseException]
) -> None:
    processes = Processes()

    def goes_wrong() -> None:
        with processes:
            processes.start(python(SLEEPS))
            processes.start(python(HAS_A_CHILD)).wait_for_line("child")
            raise error

    with pytest.raises(error):
        goes_wrong()
    assert len(list(processes)) == 2
    assert not any(process.alive or process.descendants() for process in processes)
    assert zombies() == []


def test_a_second_ctrl_c_kills_what_does_not_want_to_end(
    python: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed_again(self: Process, grace: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Process, "terminate", pressed_again)
    with pytest.raises(KeyboardInterrupt), Processes() as processes:
        started = [processes.start(python(DEAF, name)) for name in ("one", "two")]
    assert not any(process.alive for process in started)


def test_the_logs_of_all_processes_are_at_hand(python: Callable[..., Process]) -> None:
    with Processes() as processes:
        processes.start(python("print('hello')", "greeter")).wait(timeout=10)
    assert processes.logs() == {"greeter.log": "hello\n"}
    assert re.match("<Process greeter .pid", repr(next(iter(processes))))
