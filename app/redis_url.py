"""The URL of a Redis: one server, or the sentinels that know which server it is now."""

from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

REDIS_PORT = 6379
SENTINEL_PORT = 26379
SOCKET = "redis+socket"
SENTINELS = frozenset({"sentinel", "sentinels"})
TLS = frozenset({"rediss", "sentinels"})
SCHEMES = frozenset({"redis", SOCKET}) | SENTINELS | TLS


@dataclass(frozen=True)
class RedisUrl:
    """What a URL says; several sentinels are separated by semicolons, as kombu takes them."""

    scheme: str
    addresses: tuple[tuple[str, int], ...]
    """Host and port of the server, or of each sentinel; none for a socket."""
    path: str = ""
    """Of the server's Unix socket."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ``ValueError`` that says what is wrong, and repeats nothing of the text."""
        first, *others = (cls._parse_one(part) for part in text.split(";"))
        if others and not first.by_sentinel:
            raise ValueError("only sentinels may be several: begin each with sentinel://")
        for other in others:
            first = first._with(other)
        return first

    @classmethod
    def _parse_one(cls, text: str) -> Self:
        try:
            parts = urlsplit(text.strip())
            port = parts.port
        except ValueError as error:
            raise ValueError("not a Redis URL: the host or port cannot be read") from error
        if parts.scheme not in SCHEMES:
            known = ", ".join(sorted(SCHEMES))
            raise ValueError(f"not a Redis URL: it must begin with one of {known}")
        query = parse_qs(parts.query)
        if any(name.startswith("ssl") for name in query):
            raise ValueError("TLS is told by REDIS_TLS_CA, REDIS_TLS_CERT and REDIS_TLS_KEY")
        if unknown := sorted(set(query) - ({"virtual_host"} if parts.scheme == SOCKET else set())):
            known = "the database is the number after the host, as in redis://localhost:6379/3"
            raise ValueError(f"it takes no option {unknown[0]!r}: {known}")
        usual = SENTINEL_PORT if parts.scheme in SENTINELS else REDIS_PORT
        socket = parts.scheme == SOCKET
        return cls(
            scheme=parts.scheme,
            addresses=() if socket else ((parts.hostname or "localhost", port or usual),),
            path=f"{parts.netloc.rpartition('@')[2]}{parts.path}" if socket else "",
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            database=_database(query.get("virtual_host", ["0"])[0] if socket else parts.path),
        )

    def _with(self, other: Self) -> Self:
        if other.scheme != self.scheme:
            raise ValueError("all sentinels must begin alike, with sentinel:// or sentinels://")
        for name in ("username", "password", "database"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine and theirs and mine != theirs:
                raise ValueError(f"the sentinels differ in the {name} of the server they lead to")
        return replace(
            self,
            addresses=self.addresses + other.addresses,
            username=self.username or other.username,
            password=self.password or other.password,
            database=self.database or other.database,
        )

    @property
    def by_sentinel(self) -> bool:
        """Whether the addresses are those of sentinels."""
        return self.scheme in SENTINELS

    @property
    def tls(self) -> bool:
        """Whether every connection is encrypted, those to sentinels included."""
        return self.scheme in TLS

    def for_celery(self) -> str:
        """The same as Celery and kombu read it.

        They know no ``sentinels://``: that TLS is wanted, they are told by their options.
        """
        login = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        login = login if self.username or self.password else ""
        if self.scheme == SOCKET:
            database = f"?virtual_host={self.database}" if self.database else ""
            return f"{SOCKET}://{login}{self.path}{database}"
        scheme = "sentinel" if self.by_sentinel else self.scheme
        # kombu, which lost one sentinel, takes login and database from the next one's URL.
        return ";".join(
            f"{scheme}://{login}{_bracketed(host)}:{port}/{self.database}"
            for host, port in self.addresses
        )


def _database(text: str) -> int:
    number = text.strip("/")
    if number and not (number.isascii() and number.isdecimal()):
        raise ValueError("the database after the host is not a number")
    return int(number or 0)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
