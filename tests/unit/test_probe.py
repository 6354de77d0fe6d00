"""A health check's question, asked of pages that answer well, badly and not at all."""

import subprocess
import sys
from typing import Any

import pytest

from app import probe

PAGE = """# HELP worker_slots Slots of this worker's pool.
# TYPE worker_slots gauge
worker_slots{state="busy"} 0.0
# HELP outbox_rows Entries of the outbox, by state.
up_since 17.0
"""


class Answer:
    def __init__(self, status: int, page: str) -> None:
        self.status = status
        self._page = page

    def read(self) -> bytes:
        return self._page.encode()


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the page answers; an exception: that it does not."""
    asked: list[str] = []

    def install(answer: Answer | Exception) -> list[str]:
        class Connection:
            def __init__(self, address: str, timeout: float) -> None:
                asked.append(address)

            def request(self, method: str, path: str) -> None:
                asked.append(path)

            def getresponse(self) -> Answer:
                if isinstance(answer, Exception):
                    raise answer
                return answer

            def close(self) -> None: ...

        monkeypatch.setattr(probe, "HTTPConnection", Connection)
        return asked

    return install


def test_a_page_with_what_is_asked_for_is_well(answers: Any) -> None:
    asked = answers(Answer(200, PAGE))
    assert probe.problem("http://127.0.0.1:9540/metrics", ["worker_slots", "up_since"]) is None
    assert asked == ["127.0.0.1:9540", "/metrics"]


def test_a_metric_that_is_only_described_is_missing(answers: Any) -> None:
    """So a page looks while Redis or the database does not answer."""
    answers(Answer(200, PAGE))
    found = probe.problem("http://127.0.0.1:9540/metrics", ["worker_slots", "outbox_rows"])
    assert found == "http://127.0.0.1:9540/metrics does not tell outbox_rows"


def test_an_error_page_is_a_problem(answers: Any) -> None:
    answers(Answer(500, PAGE))
    assert probe.problem("http://127.0.0.1:9540/") == (
        "http://127.0.0.1:9540/ answers with status 500"
    )


@pytest.mark.parametrize("error", [ConnectionRefusedError("refused"), TimeoutError("timed out")])
def test_no_page_is_a_problem(answers: Any, error: Exception) -> None:
    answers(error)
    assert probe.problem("http://127.0.0.1:9540/") == (
        f"http://127.0.0.1:9540/ does not answer: {error}"
    )


def test_the_exit_status_says_it(answers: Any, capsys: pytest.CaptureFixture[str]) -> None:
    answers(Answer(200, PAGE))
    assert probe.main(["http://127.0.0.1:9540/metrics", "worker_slots"]) == 0
    assert probe.main(["http://127.0.0.1:9540/metrics", "nothing"]) == 1
    assert probe.main([]) == 2
    assert "usage: python -m app.probe URL" in capsys.readouterr().err


def test_it_loads_nothing_that_takes_long() -> None:
    """It runs in every container every few seconds."""
    program = "import app.probe, sys; print(sorted({'celery', 'sqlalchemy'} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout == "[]\n", said.stderr


@pytest.mark.parametrize(
    "url", ["http://\udcff\udcfe/", "http://127.0.0.1:x/", "http://[::1/", "http://a b/"]
)
def test_what_is_no_address_does_not_answer(url: str) -> None:
    said = probe.problem(url)
    assert said is not None
    assert said.startswith(f"{url} does not answer: ")


def test_a_page_that_is_no_text_is_one_line(answers: Any) -> None:
    class Bytes(Answer):
        def read(self) -> bytes:
            return b"\xff\xfe"

    answers(Bytes(200, ""))
    assert probe.problem("http://127.0.0.1:9540/metrics") is not None
