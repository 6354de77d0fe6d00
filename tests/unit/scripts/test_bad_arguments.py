"""Every command refuses a bad argument with one line, exit status 2 and nothing left behind."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BAD = "--no-such-option"
PYTHON_COMMANDS = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("scripts", "loadtests", "simulations", "app")
    for file in (ROOT / folder).rglob("*.py")
    if 'if __name__ == "__main__":' in file.read_text(encoding="utf-8")
)
"""Every module that can be run, but for those of ``ELSEWHERE``."""
ELSEWHERE = {
    "app.tasks.beat": "Celery reads its arguments",
    "app.tasks.worker": "Celery reads its arguments",
    "app.probe": "a container's health check, whose arguments are metrics' names",
    "scripts.benchmarks.publish": "only scripts.benchmarks.stage starts it",
    "scripts.benchmarks.smtp_sink": "only its own context manager starts it",
    "scripts.live.tethered": "only scripts.live.processes starts it",
    "simulations.day": "tests/simulation/test_cli.py",
}


def refused(name: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of the module's ``main`` with these arguments, in this process."""
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    module = import_module(name)
    main = module.main
    try:
        takes = inspect.signature(main).parameters
        return int(main(list(arguments)) if takes else main())
    except SystemExit as ended:
        return int(ended.code or 0)


@pytest.mark.parametrize("name", [name for name in PYTHON_COMMANDS if name not in ELSEWHERE])
def test_a_python_command_refuses_a_bad_argument(
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(name, monkeypatch, BAD) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1), printed.err
    assert list(tmp_path.iterdir()) == []


BAD_VALUES = [
    ("scripts.audit", "word"),
    ("scripts.bench_all", "--only nothing"),
    ("scripts.bench_all", "--small"),
    ("scripts.bench_all", "--page no/folder/page.md"),
    ("scripts.bench_all", "--json ."),
    ("scripts.bench_capacity", "--day 0 1 1 1"),
    ("scripts.bench_capacity", "--day 1 2"),
    ("scripts.bench_growth", "--n 10"),
    ("scripts.bench_simulation", "--most 10"),
    ("scripts.bench_simulation", "--year -1"),
    ("scripts.bench_simulation", "--json no/folder/file.json"),
    ("scripts.bench_storm", "--n 0"),
    ("scripts.bench_storm", "--n 1.5"),
    ("scripts.bench_storm", "--system none"),
    ("scripts.bench_urgency", "--flood x"),
    ("scripts.mutate", "no-such-mutation"),
    ("scripts.prove_broadcast", "--kills 11 --users 1000"),
    ("scripts.prove_broadcast", "--seed x"),
    ("scripts.prove_dst", "--zones 0"),
    ("scripts.prove_dst", "--cases 0"),
    ("scripts.prove_dst", "--first-year 2030 --last-year 2029"),
    ("scripts.prove_dst", "--last-year 10000"),
    ("scripts.prove_faults", "--faults nothing"),
    ("scripts.prove_schedule", "--year 0"),
    ("scripts.prove_schedule", "--processes 0"),
    ("scripts.prove_schedule", "--kills -1"),
    ("scripts.prove_urgency", "--backlog 1"),
]


@pytest.mark.parametrize(("name", "words"), BAD_VALUES)
def test_a_value_that_cannot_be_meant_is_refused(
    name: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(name, monkeypatch, *words.split()) == 2
    printed = capsys.readouterr()
    assert (printed.out, len(printed.err.splitlines())) == ("", 1), printed.err
    assert words.split()[0].removeprefix("--") in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["bench_all", "build_images", "demo", "lock", "make_secrets"])
def test_a_shell_command_refuses_a_bad_argument_before_it_makes_anything(
    name: str, tmp_path: Path
) -> None:
    for folder in ("scripts", "simulations", "app"):
        (tmp_path / folder).mkdir()
        for file in (ROOT / folder).rglob("*.py"):
            copy = tmp_path / file.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
    for file in (name, "virtualenv.sh"):
        shutil.copy(ROOT / "scripts" / file, tmp_path / "scripts")
    before = sorted(tmp_path.rglob("*"))
    # A Python without this project's dependencies, as on a fresh machine.
    ended = subprocess.run(
        [str(tmp_path / "scripts" / name), BAD],
        env={**os.environ, "PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHON": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert (ended.stdout, len(ended.stderr.splitlines())) == ("", 1), ended.stderr
    assert sorted(tmp_path.rglob("*")) == before
