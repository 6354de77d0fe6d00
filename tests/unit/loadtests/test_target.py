import pytest

from app.redis_url import RedisUrl
from loadtests._errors import LoadTestError
from loadtests._target import OVERRIDES, settings_for, shown


@pytest.mark.parametrize(
    ("host", "said"),
    [
        (None, "--host is missing: name the Redis of the deployment to load, such as --host "),
        ("", "--host is missing"),
        ("http://localhost", "--host: not a Redis URL: it must begin with one of "),
        ("localhost:6379", "--host: not a Redis URL: it must begin with one of "),
        ("redis://localhost:port/0", "--host: not a Redis URL: the host or port cannot be read"),
        ("redis://localhost/zero", "--host: the database after the host is not a number"),
        ("redis://a;redis://b", "--host: only sentinels may be several"),
    ],
)
def test_a_wrong_host_is_one_line_that_names_the_option(host: str | None, said: str) -> None:
    with pytest.raises(LoadTestError) as refused:
        settings_for(host)
    assert str(refused.value).startswith(said)
    assert "redis://localhost:6379/0" in str(refused.value)


@pytest.mark.parametrize("variable", OVERRIDES)
def test_a_variable_that_would_lead_elsewhere_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "redis://elsewhere/0")
    with pytest.raises(LoadTestError, match=f"^{variable} would be used in place of --host"):
        settings_for("redis://localhost:6379/0")


def test_the_host_is_what_counts_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")
    assert shown(settings_for("redis://here:6380/3").broker) == "redis://here:6380/3"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://user:secret@here/3", "redis://here:6379/3"),
        ("rediss://:secret@here", "rediss://here:6379/0"),
        ("sentinel://:secret@a;sentinel://b:1/2", "sentinel://a:26379;b:1/2"),
        ("redis+socket:///run/redis.sock?virtual_host=1", "redis+socket:///run/redis.sock/1"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, expected: str) -> None:
    assert shown(RedisUrl.parse(url)) == expected
