import pytest

from app.redis_url import RedisUrl

SENTINELS = (("one", 26379), ("other", 26380))


def test_several_sentinels_are_one_url_wherever_login_and_database_stand() -> None:
    written = (
        "sentinel://u:p%40w@one:26379/3;sentinel://other:26380",
        "sentinel://one;sentinel://u:p%40w@other:26380/3",
        "sentinel://u:p%40w@one;sentinel://u:p%40w@other:26380/3",
    )
    for text in written:
        url = RedisUrl.parse(text)
        assert url == RedisUrl("sentinel", SENTINELS, username="u", password="p@w", database=3)


def test_each_sentinel_leads_kombu_to_the_same_database_with_the_same_login() -> None:
    """It goes on to the next one's URL when one is lost, and forgets what the first said."""
    url = RedisUrl("sentinel", SENTINELS, username="u", password="p@w", database=3)
    each = "sentinel://u:p%40w@one:26379/3;sentinel://u:p%40w@other:26380/3"
    assert url.for_celery() == each
    assert RedisUrl.parse(each) == url


@pytest.mark.parametrize(
    "different",
    ["sentinel://one/1;sentinel://other/2", "sentinel://:a@one;sentinel://:b@other"],
)
def test_sentinels_of_different_redises_are_refused(different: str) -> None:
    with pytest.raises(ValueError, match="the sentinels differ in the"):
        RedisUrl.parse(different)


@pytest.mark.parametrize(
    ("given", "celerys"),
    [
        ("redis://localhost", "redis://localhost:6379/0"),
        ("redis://[::1]:7000/2", "redis://[::1]:7000/2"),
        ("rediss://:secret@cache.example/2", "rediss://:secret@cache.example:6379/2"),
        ("sentinels://one", "sentinel://one:26379/0"),
        ("redis+socket:///run/redis.sock", "redis+socket:///run/redis.sock"),
        (
            "redis+socket://:secret@/run/redis.sock?virtual_host=/3",
            "redis+socket://:secret@/run/redis.sock?virtual_host=3",
        ),
    ],
)
def test_celery_is_told_the_same(given: str, celerys: str) -> None:
    assert RedisUrl.parse(given).for_celery() == celerys


def test_what_is_encrypted_can_be_told() -> None:
    encrypted = [RedisUrl.parse(f"{scheme}://host").tls for scheme in ("rediss", "sentinels")]
    assert encrypted == [True, True]
    assert not RedisUrl.parse("sentinel://host").tls


def test_no_repr_shows_a_password() -> None:
    assert "hunter2" not in repr(RedisUrl.parse("redis://:hunter2@localhost"))


@pytest.mark.parametrize("text", ["redis://host?db=3", "sentinel://one?socket_timeout=1"])
def test_options_that_it_would_not_heed_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"it takes no option .* the database is the number"):
        RedisUrl.parse(text)
