"""What the audit says, and when it fails."""

import pytest

from scripts import audit

VULNERABLE = {
    "name": "jinja2",
    "version": "2.10",
    "vulns": [{"id": "CVE-2019-10906", "fix_versions": ["2.10.1"]}],
}
SOUND = {"name": "kombu", "version": "5.7.0", "vulns": []}
UNKNOWN = {"name": "greenlet", "skip_reason": "Dependency not found"}


def test_a_finding_fails_and_says_what_mends_it() -> None:
    verdict = audit.of_vulnerabilities({"dependencies": [SOUND, VULNERABLE]})
    assert verdict.bad
    assert "jinja2 2.10: CVE-2019-10906 (mended in 2.10.1)" in verdict.lines[1]


def test_nothing_found_is_no_failure() -> None:
    assert not audit.of_vulnerabilities({"dependencies": [SOUND]}).bad


def test_what_was_not_asked_about_is_named() -> None:
    verdict = audit.of_vulnerabilities({"dependencies": [SOUND, UNKNOWN]})
    assert verdict.lines[-1] == "vulnerabilities: not run for 1: greenlet"


@pytest.mark.parametrize("report", [None, {"dependencies": [UNKNOWN]}])
def test_where_nobody_answers_nothing_counts_as_found_or_as_sound(report: object) -> None:
    verdict = audit.of_vulnerabilities(report)  # type: ignore[arg-type]
    assert verdict == audit.Verdict((audit.NOT_RUN,))


def test_an_audit_that_fails_by_itself_is_not_taken_for_a_missing_service() -> None:
    assert audit.read("", "requests.exceptions.ConnectionError: Failed to resolve") is None
    with pytest.raises(audit.NotAuditedError, match="No module named pip_audit"):
        audit.read("", "python: No module named pip_audit")


def test_a_licence_that_does_not_go_with_ours_fails() -> None:
    sound = {"a": "MIT", "b": "BSD-3-Clause", "c": "LGPL-3.0-only", "d": "Apache-2.0 OR GPL-2.0"}
    assert not audit.of_licences(sound).bad
    for wrong in ("GPL-3.0-only", "AGPL-3.0", "Proprietary", ""):
        verdict = audit.of_licences({**sound, "x": wrong})
        assert verdict.bad
        assert verdict.lines[1].startswith("licence: x: ")


def test_what_we_need_at_run_time_is_found_with_its_extras() -> None:
    needed = audit.licences_of("instainstru-tasks", extras=["postgres"])
    assert {"celery", "kombu", "psycopg", "redis", "flower"} <= needed.keys()
    assert "pytest" not in needed


def test_a_project_that_is_not_installed_is_one_line_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["audit"])
    monkeypatch.setattr(audit, "OURSELVES", "no-such-distribution")
    assert audit.main() == audit.CANNOT
    assert capsys.readouterr() == (
        "",
        "audit: no-such-distribution is not installed: pip install -e '.[dev]'\n",
    )
