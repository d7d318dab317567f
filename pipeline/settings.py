"""What the environment says, read once: a mapping of names comes in, one frozen Settings comes out.

This is the only module that reads the environment. Every name may also be given as NAME_FILE, whose file then holds
the value (how Docker and Kubernetes hand over secrets). An empty value counts as none. Everything that is missing or
malformed is reported together, in one SettingsError. docs/configuration.md describes each name for people.

A database or Redis URL of None means the embedded servers: `pipeline.embedded.ensure` starts them and knows their URLs.
"""

from __future__ import annotations

import base64
import binascii
import os
import pwd
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

T = TypeVar("T")
D = TypeVar("D")

PROJECT_DIR = Path(__file__).resolve().parent.parent  # a clone, or the folder that the package is installed in
KEY_FILE = "secret.key"  # in DATA_DIR; the key that encrypts credentials when SECRET_KEYS is not given
SANDBOX_FILE = "sandbox.json"  # in DATA_DIR; what `pipeline up` lets whoever may read it know of its sandbox

_POSTGRES_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg2")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_BROKER_SCHEMES = (*_REDIS_SCHEMES, "redis+socket", "rediss+socket", "sentinel", "amqp", "amqps", "pyamqp")
_LOG_LEVELS = ("debug", "info", "warning", "error")
_LOG_FORMATS = ("json", "console")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:\d{1,5})?|\[[0-9A-Fa-f:]+\](:\d{1,5})?")


class SettingsError(Exception):
    """Some names of the environment are missing or malformed; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(
            f"The environment cannot be used as it is. Set these names, then start again:{lines}\n"
            "docs/configuration.md describes every name; each may also be given as NAME_FILE."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the process was told. URLs that may hold a password, and keys, never appear in its repr."""

    data_dir: Path
    #: None: the embedded PostgreSQL. Otherwise always a `postgresql+psycopg2://` URL.
    database_url: str | None = field(default=None, repr=False)
    #: None: the embedded Valkey. Otherwise a URL redis-py understands.
    redis_url: str | None = field(default=None, repr=False)
    #: None: the embedded Valkey. Otherwise a URL kombu understands.
    broker_url: str | None = field(default=None, repr=False)
    #: Fernet keys, the newest first: it encrypts, all of them decrypt.
    secret_keys: tuple[str, ...] = field(default=(), repr=False)

    public_url: str = "http://localhost:8080"
    trusted_proxies: int = 0
    #: Header in which a proxy names the operator it has authenticated; None: no single sign-on.
    sso_header: str | None = None
    #: Networks that such a proxy calls from; the header is ignored from everywhere else.
    sso_proxies: tuple[str, ...] = ()
    #: Lets machines from anywhere read what is internal.
    metrics_token: str | None = field(default=None, repr=False)
    #: None: see `internal`.
    internal_networks: tuple[str, ...] | None = None
    port: int = 8080
    #: None: webhooks and notifications arrive at `public_url`.
    intake_url: str | None = None
    intake_port: int = 8081
    flower_port: int = 5555
    #: None: Flower listens on this machine at `flower_port`.
    flower_url: str | None = None
    #: `user:password`, the same that Flower is given.
    flower_basic_auth: str | None = field(default=None, repr=False)
    log_level: str = "info"
    log_format: str = "json"

    pipedrive_client_id: str | None = None
    pipedrive_client_secret: str | None = field(default=None, repr=False)
    pipedrive_oauth_url: str = "https://oauth.pipedrive.com"
    #: Set: every API call goes to this origin. None: to the `api_domain` the token came with.
    pipedrive_api_url: str | None = None
    #: Requests per 2 s and token until the answers' headers say better; 0 switches the limiter off.
    pipedrive_burst_limit: int = 20

    hull_organizations: tuple[str, ...] = ()
    hull_protocol: str = "https"
    #: None: `firehose.` before the organization's domain.
    hull_firehose_url: str | None = None
    hull_key_hosts: tuple[str, ...] = ()
    hull_key_path: str = "/api/v1/public-key"
    hull_export_hosts: tuple[str, ...] = ()

    #: Its address alone often lets people post there, so it is a secret.
    alert_webhook_url: str | None = field(default=None, repr=False)
    alert_email_to: tuple[str, ...] = ()
    alert_email_from: str | None = None
    smtp_url: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    #: What an alert waits for; 0 switches its rule off.
    alert_late_minutes: int = 15
    alert_failures_per_hour: int = 25
    alert_silence_minutes: int = 4_320
    alert_overdue_s: int = 120
    alert_volume_factor: int = 5

    lease_s: float = 30.0
    sweep_s: float = 2.0
    page_limit: int = 500
    batches_in_flight: int = 6
    live_at_once: int = 3
    writes_at_once: int = 8
    firehose_batch: int = 50

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, needs_keys: bool = True) -> Settings:
        """Read and check every name.

        needs_keys  whether what is given calls for SECRET_KEYS and PIPEDRIVE_CLIENT_SECRET; beat and Flower are not given them
        Raises: SettingsError naming all that is wrong at once.
        """
        env = _Environment(environ)
        own_redis, own_broker = env.read("REDIS_URL", _redis_url, None), env.read("BROKER_URL", _broker_url, None)
        port = env.read("PORT", _number(1, 65535), 8080)
        found = cls(
            data_dir=env.read("DATA_DIR", _folder, None) or _default_data_dir(environ),
            database_url=env.read("DATABASE_URL", _database_url, None),
            redis_url=own_redis or _redis_of(own_broker),
            broker_url=own_broker or (_broker_url(own_redis) if own_redis else None),
            secret_keys=env.read("SECRET_KEYS", _secret_keys, ()),
            public_url=env.read("PUBLIC_URL", _http_url, f"http://localhost:{port}"),
            trusted_proxies=env.read("TRUSTED_PROXIES", _number(0, 5), 0),
            sso_header=env.read("SSO_HEADER", _header_name, None),
            sso_proxies=env.read("SSO_PROXIES", _networks, ()),
            metrics_token=env.read("METRICS_TOKEN", _token, None),
            internal_networks=env.read("INTERNAL_NETWORKS", _networks, None),
            port=port,
            intake_url=env.read("INTAKE_URL", _http_url, None),
            intake_port=env.read("INTAKE_PORT", _number(1, 65535), 8081),
            flower_port=env.read("FLOWER_PORT", _number(1, 65535), 5555),
            flower_url=env.read("FLOWER_URL", _origin, None),
            flower_basic_auth=env.read("FLOWER_BASIC_AUTH", _login, None),
            log_level=env.read("LOG_LEVEL", _one_of(_LOG_LEVELS), "info"),
            log_format=env.read("LOG_FORMAT", _one_of(_LOG_FORMATS), "json"),
            pipedrive_client_id=env.read("PIPEDRIVE_CLIENT_ID", str, None),
            pipedrive_client_secret=env.read("PIPEDRIVE_CLIENT_SECRET", str, None),
            pipedrive_oauth_url=env.read("PIPEDRIVE_OAUTH_URL", _http_url, "https://oauth.pipedrive.com"),
            pipedrive_api_url=env.read("PIPEDRIVE_API_URL", _origin, None),
            pipedrive_burst_limit=env.read("PIPEDRIVE_BURST_LIMIT", _number(0, 100_000), 20),
            hull_organizations=env.read("HULL_ORGANIZATIONS", _hosts, ()),
            hull_protocol=env.read("HULL_PROTOCOL", _one_of(("https", "http")), "https"),
            hull_firehose_url=env.read("HULL_FIREHOSE_URL", _http_url, None),
            hull_key_hosts=env.read("HULL_KEY_HOSTS", _hosts, ()),
            hull_key_path=env.read("HULL_KEY_PATH", _path, "/api/v1/public-key"),
            hull_export_hosts=env.read("HULL_EXPORT_HOSTS", _hosts, ()),
            alert_webhook_url=env.read("ALERT_WEBHOOK_URL", _alert_url, None),
            alert_email_to=env.read("ALERT_EMAIL_TO", _mailboxes, ()),
            alert_email_from=env.read("ALERT_EMAIL_FROM", _mailbox, None),
            smtp_url=env.read("SMTP_URL", _smtp_url, None),
            smtp_password=env.read("SMTP_PASSWORD", str, None),
            alert_late_minutes=env.read("ALERT_LATE_MINUTES", _number(0, 100_000), 15),
            alert_failures_per_hour=env.read("ALERT_FAILURES_PER_HOUR", _number(0, 1_000_000), 25),
            alert_silence_minutes=env.read("ALERT_SILENCE_MINUTES", _number(0, 1_000_000), 4_320),
            alert_overdue_s=env.read("ALERT_OVERDUE_S", _number(0, 1_000_000), 120),
            alert_volume_factor=env.read("ALERT_VOLUME_FACTOR", _number(0, 1_000), 5),
            lease_s=env.read("LEASE_S", _seconds, 30.0),
            sweep_s=env.read("SWEEP_S", _seconds, 2.0),
            page_limit=env.read("PAGE_LIMIT", _number(1, 500), 500),
            writes_at_once=env.read("WRITES_AT_ONCE", _number(1, 64), 8),
            batches_in_flight=env.read("BATCHES_IN_FLIGHT", _number(1, 1000), 6),
            live_at_once=env.read("LIVE_AT_ONCE", _number(1, 1000), 3),
            firehose_batch=env.read("FIREHOSE_BATCH", _number(1, 1000), 50),
        )
        not_needed = set() if needs_keys else {"SECRET_KEYS", "PIPEDRIVE_CLIENT_SECRET"}
        problems = [*env.problems, *_missing(found, env.malformed | not_needed)]
        if problems:
            raise SettingsError(problems)
        return found

    @property
    def arrival_url(self) -> str:
        """Below which address Pipedrive and Hull are to send what they have to tell."""
        return self.intake_url or self.public_url

    @property
    def internal(self) -> tuple[str, ...]:
        """Return the networks whose requests are internal: by default this machine, unless a proxy may be hidden behind it.

        With a public address and no known proxy, whatever a proxy of this machine passes on would come from this machine.
        """
        if self.internal_networks is not None:
            return self.internal_networks
        is_local = urlsplit(self.public_url).hostname in LOOPBACK_HOSTS
        return LOOPBACK_NETWORKS if is_local or self.trusted_proxies else ()

    @property
    def faces_sandbox(self) -> bool:
        """Whether nothing names a real Pipedrive, so that `pipeline up` brings its own sandbox."""
        return self.pipedrive_api_url is None and self.pipedrive_client_id is None


_in_force: Settings | None = None


def settings() -> Settings:
    """Return the settings in force; the first call reads the process environment (and makes the local key)."""
    if _in_force is None:
        use(with_local_key(Settings.from_env(os.environ)))
    assert _in_force is not None  # noqa: S101  # for the type checker: `use` has just set it
    return _in_force


def settings_to_watch() -> Settings:
    """Return what the environment says to a process that opens neither the database nor a secret. Raises: SettingsError."""
    return replace(Settings.from_env(os.environ, needs_keys=False), database_url=None, secret_keys=())


def use(chosen: Settings | None) -> None:
    """Put these settings in force for this process; None makes the next `settings()` read the environment again."""
    global _in_force  # noqa: PLW0603  # the one per-process value, set here only
    _in_force = chosen


def with_local_key(found: Settings) -> Settings:
    """Add the key kept in DATA_DIR, making it the first time, unless SECRET_KEYS was given.

    Only for the embedded database: `from_env` refuses a database of one's own without SECRET_KEYS.
    Raises: SettingsError when DATA_DIR cannot be written, or holds a file that is no key.
    """
    if found.secret_keys:
        return found
    path = found.data_dir / KEY_FILE
    try:
        make_data_dir(found.data_dir)
        if not path.exists():
            _write_once(path, base64.urlsafe_b64encode(os.urandom(32)))
        key = path.read_text().strip()
    except OSError as error:
        raise SettingsError(
            [f"SECRET_KEYS is missing, and no key can be kept: {unwritable(found.data_dir, error)}"]
        ) from None
    if not _is_fernet_key(key):
        problem = (
            f"SECRET_KEYS is missing, and {path} holds no key: put the key back from a backup, or give SECRET_KEYS"
        )
        raise SettingsError([problem])
    return replace(found, secret_keys=(key,))


def unwritable(data_dir: Path, error: OSError) -> str:
    """Say in one line why nothing can be kept in DATA_DIR, and what to do."""
    reason = error.strerror or type(error).__name__
    return (
        f"DATA_DIR={data_dir} cannot be used ({reason}); set DATA_DIR to a folder that this account may make and write"
    )


def make_data_dir(path: Path) -> None:
    """Make DATA_DIR if it is not there, closed to other accounts; a folder that exists keeps its mode.

    Made by root it may be passed through, not read: the account that the embedded servers run under must reach its
    own folder inside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def _write_once(path: Path, content: bytes) -> None:
    """Write a file nobody else may read; of several processes the first wins, and none sees a half-written file."""
    descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # made with mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # what is encrypted with a lost key is lost
    with suppress(FileExistsError):
        os.link(draft, path)
    os.unlink(draft)


class _Environment:
    """The names as given, and what is wrong with them so far."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[str] = []
        self.malformed: set[str] = set()

    def read(self, name: str, convert: Callable[[str], T], default: D) -> T | D:
        """Return the converted value or the default; a malformed value is noted and the default returned."""
        try:
            text = self._text(name)
            return convert(text) if text else default
        except ValueError as problem:
            self.problems.append(f"{name} {problem}")
            self.malformed.add(name)
            return default

    def _text(self, name: str) -> str:
        plain, file = self._environ.get(name, "").strip(), self._environ.get(f"{name}_FILE", "").strip()
        if plain and file:
            raise ValueError(f"is given twice: keep either {name} or {name}_FILE")
        if not file:
            return plain
        try:
            content = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ValueError(f"cannot be read from the file that {name}_FILE names, {file}: {reason}") from None
        if not content:
            raise ValueError(f"is empty in the file that {name}_FILE names, {file}")
        return content


def _missing(found: Settings, malformed: set[str]) -> list[str]:
    """Say which names the given ones call for."""
    problems = []
    if found.database_url and not found.secret_keys and "SECRET_KEYS" not in malformed:
        problems.append(
            "SECRET_KEYS is missing: a database of your own (DATABASE_URL) needs keys of your own, or credentials "
            "could be read on one machine only. Make one with: python -c 'from cryptography.fernet import Fernet; "
            "print(Fernet.generate_key().decode())'"
        )
    pair = {
        "PIPEDRIVE_CLIENT_ID": found.pipedrive_client_id,
        "PIPEDRIVE_CLIENT_SECRET": found.pipedrive_client_secret,
    }
    if any(pair.values()):
        other = "PIPEDRIVE_CLIENT_SECRET" if found.pipedrive_client_id else "PIPEDRIVE_CLIENT_ID"
        problems += [
            f"{name} is missing: {other} was given, and the app needs both"
            for name, value in pair.items()
            if value is None and name not in malformed
        ]
    sso = {"SSO_HEADER": found.sso_header, "SSO_PROXIES": found.sso_proxies}
    if any(sso.values()) and not malformed & set(sso):
        problems += [f"{name} is missing: single sign-on needs {' and '.join(sso)}" for name in sso if not sso[name]]
    return [*problems, *_missing_of_mail(found, malformed)]


def _missing_of_mail(found: Settings, malformed: set[str]) -> list[str]:
    """Alerts by e-mail need a server to send them and somebody to send them to."""
    pair = {"ALERT_EMAIL_TO": found.alert_email_to, "SMTP_URL": found.smtp_url}
    if not any(pair.values()) or malformed & set(pair):
        return []
    return [f"{name} is missing: alerts by e-mail need both {' and '.join(pair)}" for name in pair if not pair[name]]


def _default_data_dir(environ: Mapping[str, str]) -> Path:
    """`.data` beside the code in a clone; for an installed package the user's own data folder (XDG)."""
    if (PROJECT_DIR / "setup.cfg").exists():
        return PROJECT_DIR / ".data"
    xdg = environ.get("XDG_DATA_HOME", "")
    home = Path(environ.get("HOME") or _home_of_account())
    return (Path(xdg) if xdg.startswith("/") else home / ".local" / "share") / "hull-pipedrive"


def _home_of_account() -> Path:
    """Return the home that the machine knows; containers often run as an account that it does not know."""
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")  # as Debian calls the home of an account that has none


def _folder(text: str) -> Path:
    return Path(text).absolute()


def _number(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not (re.fullmatch(r"\d{1,9}", text, re.ASCII) and low <= int(text) <= high):
            raise ValueError(f"must be a whole number from {low} to {high}, not {text!r}")
        return int(text)

    return convert


def _seconds(text: str) -> float:
    if not (re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text, re.ASCII) and float(text) > 0):
        raise ValueError(f"must be a number of seconds above 0, not {text!r}")
    return float(text)


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}, not {text!r}")
        return text.lower()

    return convert


def _hosts(text: str) -> tuple[str, ...]:
    hosts = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise ValueError(f"must be host names separated by commas, as in acme.hullapp.io; {host!r} is none")
    return hosts


def _path(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]{1,100}){1,10}", text):
        raise ValueError("must be a path such as /api/v1/public-key")
    return text


def _header_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", text):
        raise ValueError("must be the name of a header, such as X-Forwarded-User")
    return text


def _networks(text: str) -> tuple[str, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return tuple(str(ip_network(part)) for part in parts)
    except ValueError as error:
        raise ValueError(f"must be addresses or networks separated by commas, such as 10.0.0.0/8: {error}") from None


def _token(text: str) -> str:
    """The words of a problem do not repeat the value."""
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,200}", text):
        raise ValueError("must be 16 to 200 letters, digits and . _ ~ + / = -")
    return text


def _secret_keys(text: str) -> tuple[str, ...]:
    keys = tuple(part.strip() for part in text.split(",") if part.strip())
    for position, key in enumerate(keys, 1):
        if not _is_fernet_key(key):
            raise ValueError(f"must be Fernet keys separated by commas, the newest first; number {position} is none")
    return keys


def _is_fernet_key(key: str) -> bool:
    """Source: https://cryptography.io/en/latest/fernet/ (32 bytes, url-safe base64)."""
    try:
        return len(base64.urlsafe_b64decode(key)) == 32
    except (binascii.Error, ValueError):
        return False


def _http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://host:port, without user, password, query or fragment")
    return text.rstrip("/")


def _origin(text: str) -> str:
    url = _http_url(text)
    if urlsplit(url).path:
        raise ValueError("must be an origin such as https://host:port, without a path")
    return url


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64}@[A-Za-z0-9.-]{1,190}")


def _alert_url(text: str) -> str:
    """The words of a problem do not repeat the value: whoever knows such an address may post there."""
    parts = urlsplit(text)
    is_private = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK_HOSTS)
    if not is_private or not _HOST.fullmatch(parts.netloc) or parts.fragment or not text.isprintable() or " " in text:
        raise ValueError("must be an https URL (http only on this machine), without user, password or fragment")
    return text


def _mailbox(text: str) -> str:
    if not _MAILBOX.fullmatch(text):
        raise ValueError(f"must be a plain e-mail address, not {text!r}")
    return text


def _mailboxes(text: str) -> tuple[str, ...]:
    return tuple(_mailbox(part.strip()) for part in text.split(",") if part.strip())


def _smtp_url(text: str) -> str:
    """`smtps` speaks TLS from the first byte, `smtp` must be offered STARTTLS, `smtp+plain` does without."""
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme not in ("smtp", "smtps", "smtp+plain") or not _HOST.fullmatch(host) or parts.path not in ("", "/"):
        raise ValueError("must be smtps://user@host:465, smtp://user@host:587 or smtp+plain://host:25")
    if parts.password is not None:
        raise ValueError("must not hold the password: give it as SMTP_PASSWORD_FILE or SMTP_PASSWORD")
    if parts.scheme == "smtp+plain" and parts.username and parts.hostname not in LOOPBACK_HOSTS:
        raise ValueError("must not send a password over smtp+plain, which anybody on the way can read")
    return text.rstrip("/")


def _login(text: str) -> str:
    """The first of those that Flower accepts."""
    login = text.partition(",")[0]
    if not (re.fullmatch(r"[^:\s]+:\S+", login) and login.isascii()):
        raise ValueError("must be user:password")
    return login


def _database_url(text: str) -> str:
    """Name the driver: SQLAlchemy 2.1 reads a bare `postgresql://` as another one than psycopg2."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _POSTGRES_SCHEMES:
        raise ValueError("must be a URL such as postgresql://user:password@host:5432/name")
    return f"postgresql+psycopg2://{rest}"


def _redis_url(text: str) -> str:
    if urlsplit(text).scheme not in _REDIS_SCHEMES:
        raise ValueError("must be a URL such as redis://host:6379/0, rediss://… or unix:///path?db=0")
    return text


def _broker_url(text: str) -> str:
    """Accept what kombu accepts; redis-py's spelling of a unix socket becomes kombu's."""
    parts = urlsplit(text)
    if parts.scheme not in _BROKER_SCHEMES:
        raise ValueError("must be a URL such as redis://host:6379/1 or amqps://user:password@host/vhost")
    if parts.scheme != "unix":
        return text
    query = [("virtual_host" if name == "db" else name, value) for name, value in parse_qsl(parts.query)]
    return f"redis+socket://{parts.path}" + (f"?{urlencode(query)}" if query else "")


def _redis_of(broker: str | None) -> str | None:
    """Return a broker that is a Redis as the Redis, so that naming it alone starts no embedded one; None for another broker."""
    parts = urlsplit(broker or "")
    if parts.scheme in ("redis", "rediss"):
        return broker
    if parts.scheme != "redis+socket":
        return None
    query = [("db" if name == "virtual_host" else name, value) for name, value in parse_qsl(parts.query)]
    return f"unix://{parts.path}" + (f"?{urlencode(query)}" if query else "")
