"""The types of the environment's values: how each text is checked and converted.

Each type has a converter. It raises ValueError with the rest of a sentence that begins with the name ("must be a path such
as …"). No sentence repeats the value, which may be a misplaced secret.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from pydantic import BeforeValidator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")

_POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_BROKER_SCHEMES = (*_REDIS_SCHEMES, "redis+socket", "rediss+socket", "sentinel", "amqp", "amqps", "pyamqp")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")
_ENCODED = ", with the special characters of a password percent-encoded"


def from_text(convert: Callable[[str], Any]) -> BeforeValidator:
    """Return a validator that converts text; a value that already has its type is unchanged."""
    return BeforeValidator(lambda value: convert(value) if isinstance(value, str) else value)


def whole(low: int, high: int) -> BeforeValidator:
    """Return a validator for a whole number from `low` to `high`."""

    def convert(text: str) -> int:
        if not (re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return from_text(convert)


def one_of(*choices: str) -> BeforeValidator:
    """Return a validator for one of these words, in upper or lower case."""

    def convert(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return text.lower()

    return from_text(convert)


def matching(pattern: re.Pattern[str], wanted: str) -> BeforeValidator:
    """Return a validator for text that matches the whole pattern; `wanted` describes it after "must be"."""

    def convert(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"must be {wanted}")
        return text

    return from_text(convert)


def list_of(read: Callable[[str], str], wanted: str) -> BeforeValidator:
    """Return a validator for a list separated by commas; `read` returns an entry, or raises ValueError."""

    def convert(text: str) -> tuple[str, ...]:
        found = []
        for position, entry in enumerate(filter(None, map(str.strip, text.split(","))), 1):
            try:
                found.append(read(entry))
            except ValueError:
                raise ValueError(f"must be {wanted}; entry {position} is not valid") from None
        return tuple(found)

    return from_text(convert)


def is_fernet_key(key: str) -> bool:
    """Return whether it is 32 bytes in url-safe base64. Source: https://cryptography.io/en/latest/fernet/."""
    try:
        return len(base64.urlsafe_b64decode(key)) == 32
    except (binascii.Error, ValueError):
        return False


def broker_of_redis(redis: str | None) -> str | None:
    """Return a Redis URL as a broker URL; None for None."""
    return _broker_url(redis) if redis else None


def redis_of_broker(broker: str | None) -> str | None:
    """Return the Redis URL of a broker that is a Redis, so that it is enough to name the broker; None for other brokers."""
    parts = _split(broker or "")
    if parts.scheme in ("redis", "rediss"):
        return broker
    if parts.scheme != "redis+socket":
        return None
    query = [("db" if name == "virtual_host" else name, value) for name, value in parse_qsl(parts.query)]
    return f"unix://{parts.path}" + (f"?{urlencode(query)}" if query else "")


def _seconds(text: str) -> float:
    if not (re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) and float(text) > 0):
        raise ValueError("must be a number of seconds above 0")
    return float(text)


def _host(text: str) -> str:
    if not _HOST.fullmatch(text):
        raise ValueError
    return text.lower()


def _fernet_key(text: str) -> str:
    if not is_fernet_key(text):
        raise ValueError
    return text


def _split(url: str) -> SplitResult:
    """Return the parts of a URL; empty parts for an invalid one, because Python's own errors repeat the URL."""
    try:
        for each in url.split(";"):  # kombu takes several brokers
            urlsplit(each).port  # noqa: B018 - reading it raises for a port that is not a number
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _http_url(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://host:port, without user, password, query or fragment")
    return text.rstrip("/")


def _origin(text: str) -> str:
    url = _http_url(text)
    if _split(url).path:
        raise ValueError("must be an origin such as https://host:port, without a path")
    return url


def _alert_url(text: str) -> str:
    parts = _split(text)
    is_private = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS)
    if not is_private or not _HOST.fullmatch(parts.netloc) or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("must be an https URL (http only on this machine), without user, password or fragment")
    return text


def _mailbox(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9.-]{1,190}", text):
        raise ValueError("must be a plain e-mail address, such as ana@acme.example")
    return text


def _smtp_url(text: str) -> str:
    parts = _split(text)
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("smtp", "smtps", "smtp+plain") or not _HOST.fullmatch(host) or parts.path not in ("", "/"):
        raise ValueError("must be smtps://user@host:465, smtp://user@host:587 or smtp+plain://host:25")
    if parts.password is not None:
        raise ValueError("must not hold the password: give it as SMTP_PASSWORD_FILE or SMTP_PASSWORD")
    if parts.scheme == "smtp+plain" and parts.username and parts.hostname not in LOOPBACK_HOSTS:
        raise ValueError("must not send a password over smtp+plain, which can be read in transit")
    return text.rstrip("/")


def _login(text: str) -> str:
    login = text.partition(",")[0]
    if not (re.fullmatch(r"[^:\s]+:\S+", login) and login.isascii()):
        raise ValueError("must be user:password")
    return login


def _database_url(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    url = f"postgresql+psycopg2://{rest}"
    with suppress(ValueError, ArgumentError):
        make_url(url)
        if separator and scheme in _POSTGRES_SCHEMES:
            return url
    raise ValueError(f"must be a URL such as postgresql://user:password@host:5432/name{_ENCODED}")


def _redis_url(text: str) -> str:
    if _split(text).scheme not in _REDIS_SCHEMES:
        raise ValueError(f"must be a URL such as redis://host:6379/0, rediss://… or unix:///path?db=0{_ENCODED}")
    return text


def _broker_url(text: str) -> str:
    parts = _split(text)
    if parts.scheme not in _BROKER_SCHEMES:
        raise ValueError(f"must be a URL such as redis://host:6379/1 or amqps://user:password@host/vhost{_ENCODED}")
    if parts.scheme != "unix":
        return text
    query = [("virtual_host" if name == "db" else name, value) for name, value in parse_qsl(parts.query)]
    return f"redis+socket://{parts.path}" + (f"?{urlencode(query)}" if query else "")


Folder = Annotated[Path, from_text(lambda text: Path(text).absolute())]
Port = Annotated[int, whole(1, 65535)]
Seconds = Annotated[float, from_text(_seconds)]
Hosts = Annotated[tuple[str, ...], list_of(_host, "host names separated by commas, as in acme.hullapp.io")]
UrlPath = Annotated[str, matching(re.compile(r"(/[A-Za-z0-9._~-]{1,100}){1,10}"), "a path such as /api/v1/public-key")]
HeaderName = Annotated[
    str, matching(re.compile(r"[A-Za-z0-9-]{1,64}"), "the name of a header, such as X-Forwarded-User")
]
Networks = Annotated[
    tuple[str, ...],
    list_of(
        lambda entry: str(ip_network(entry)),
        "addresses or networks separated by commas, such as 10.0.0.0/8 (no bits set behind the prefix)",
    ),
]
Token = Annotated[
    str, matching(re.compile(r"[A-Za-z0-9._~+/=-]{16,200}"), "16 to 200 letters, digits and . _ ~ + / = -")
]
SecretKeys = Annotated[tuple[str, ...], list_of(_fernet_key, "Fernet keys separated by commas, the newest first")]
HttpUrl = Annotated[str, from_text(_http_url)]
Origin = Annotated[str, from_text(_origin)]
"""A URL without a path."""
AlertUrl = Annotated[str, from_text(_alert_url)]
Mailbox = Annotated[str, from_text(_mailbox)]
Mailboxes = Annotated[tuple[str, ...], list_of(_mailbox, "plain e-mail addresses separated by commas")]
SmtpUrl = Annotated[str, from_text(_smtp_url)]
"""`smtps` begins with TLS, `smtp` requires STARTTLS, `smtp+plain` has no TLS."""
Login = Annotated[str, from_text(_login)]
"""The first of the logins that Flower accepts."""
DatabaseUrl = Annotated[str, from_text(_database_url)]
"""It names the driver: SQLAlchemy 2.1 reads a bare `postgresql://` as another driver than psycopg2."""
RedisUrl = Annotated[str, from_text(_redis_url)]
BrokerUrl = Annotated[str, from_text(_broker_url)]
"""A URL for kombu; redis-py's format of a unix socket is converted to kombu's."""
