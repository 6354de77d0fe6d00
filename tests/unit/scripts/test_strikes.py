"""A fault that does nothing to the containers fails: durable work survives that anyhow."""

import signal
import subprocess
import sys
from contextlib import nullcontext
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from scripts import prove_faults
from scripts.faults import figures, load, strikes
from scripts.faults.stage import Stage
from scripts.faults.strikes import FAULTS, Fault


class Untouched:
    """Of a Redis: it takes everything and forgets nothing."""

    def __enter__(self) -> "Untouched":
        return self

    def __exit__(self, *_: object) -> None: ...

    def flushall(self) -> None: ...

    def set(self, _key: str, _value: str) -> None: ...

    def config_get(self, name: str) -> dict[str, str]:
        return {name: "100mb"}

    def config_set(self, _name: str, _value: str) -> None: ...


@pytest.fixture
def untouched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage whose Docker says yes to everything and does nothing."""

    def agree(*arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        since = "2026-11-25T08:00:00Z" if arguments[0] == "inspect" else ""
        return subprocess.CompletedProcess(arguments, 0, stdout=since, stderr="")

    monkeypatch.setattr(strikes, "docker", agree)
    monkeypatch.setattr(strikes.time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(strikes, "DOCKER_SECONDS", 0.1)
    monkeypatch.setattr(strikes, "TRIED_SECONDS", 0.1)
    monkeypatch.setattr(figures, "mails_put_back", lambda: 0)
    monkeypatch.setattr(figures, "plant", lambda arguments: [str(each) for each in arguments])
    monkeypatch.setattr(figures, "cannot_be_published", lambda _ids: 0)
    monkeypatch.setattr(figures, "cancel", lambda _ids: None)
    monkeypatch.setattr(figures, "count", lambda _name: SimpleNamespace(done=0))
    monkeypatch.setattr(load, "plan_later", lambda *_args, **_options: None)
    return SimpleNamespace(
        names=lambda service: [f"{service}_1"],
        network="network",
        redis=Untouched,
        redis_answers=lambda patience: True,
        postgres_answers=lambda patience: True,
        postgres_refuses=nullcontext,
        waiting=lambda: 0,
        held=lambda: 0,
        compose=SimpleNamespace(project="project", run=agree, wait_until_healthy=lambda: None),
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_strike_that_does_nothing_fails(fault: Fault, untouched: Stage) -> None:
    with pytest.raises(AssertionError):
        fault.begin(untouched, lambda: None)


def test_workers_that_hold_nothing_when_they_die_are_no_fault(
    untouched: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = count()

    def kill(*arguments: str, **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(arguments, 0, stdout=f"start-{next(starts)}", stderr="")

    monkeypatch.setattr(strikes, "docker", kill)
    with pytest.raises(AssertionError, match="no worker held a message"):
        strikes.kill_workers(untouched)


def test_who_strikes_no_fault_does_not_import_them() -> None:
    program = (
        "import sys, tests.chaos_table;"
        "print([name for name in sys.modules if name.startswith('scripts')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_the_command_says_in_a_line_that_a_fault_struck_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def strike_nothing(*_: object) -> None:
        raise AssertionError("the strike struck nothing: redis_1 answers")

    monkeypatch.setattr(prove_faults, "_prove", strike_nothing)
    handler = signal.getsignal(signal.SIGTERM)
    assert prove_faults.main(["--jobs", "1"]) == 1
    signal.signal(signal.SIGTERM, handler)
    assert capsys.readouterr().err == "NOT proven: the strike struck nothing: redis_1 answers\n"
