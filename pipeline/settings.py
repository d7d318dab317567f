"""The environment, read once by pydantic-settings into one frozen Settings. `domain/settings.py` has a connector's settings.

This is the only module that reads the environment. Every name may also be given as NAME_FILE, a file with the
value, as Docker and Kubernetes pass secrets. An empty value counts as missing. All missing and malformed names are
reported together, in one SettingsError. docs/configuration.md describes each name.

A database or Redis URL of None means the embedded servers: `pipeline.local.servers` starts them and knows their URLs.

DATA_DIR has their data and small files of ours; nothing depends on it if the environment names all servers and keys.
"""

from __future__ import annotations

import base64
import os
import pwd
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline.environment_values import (
    LOOPBACK_HOSTS,
    LOOPBACK_NETWORKS,
    AlertUrl,
    BrokerUrl,
    DatabaseUrl,
    Folder,
    HeaderName,
    Hosts,
    HttpUrl,
    Login,
    Mailbox,
    Mailboxes,
    Networks,
    Origin,
    Port,
    RedisUrl,
    Seconds,
    SecretKeys,
    SmtpUrl,
    Token,
    UrlPath,
    broker_of_redis,
    is_fernet_key,
    one_of,
    redis_of_broker,
    whole,
)

ONLY_WITH_KEYS = frozenset({"SECRET_KEYS", "PIPEDRIVE_CLIENT_SECRET"})
"""Names that a process without secrets (beat, Flower) does not get."""
PAIRS = {
    "an app of Pipedrive needs both": ("PIPEDRIVE_CLIENT_ID", "PIPEDRIVE_CLIENT_SECRET"),
    "single sign-on needs both": ("SSO_HEADER", "SSO_PROXIES"),
    "alerts by e-mail need both": ("ALERT_EMAIL_TO", "SMTP_URL"),
}


class SettingsError(Exception):
    """Some names of the environment are missing or malformed; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        lines = "".join(f"\n  - {problem}" for problem in problems)
        super().__init__(
            f"The environment cannot be used as it is. Set these names, then start again:{lines}\n"
            "docs/configuration.md describes every name; each may also be given as NAME_FILE."
        )


class Settings(BaseSettings):
    """All settings of a process. Fields with `repr=False` are secret or may hold a password.

    `from_env` reads the environment; a Settings that code creates reads only its arguments.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", enable_decoding=False, env_ignore_empty=True, hide_input_in_errors=True
    )

    data_dir: Folder
    #: None: the embedded PostgreSQL. Otherwise always a `postgresql+psycopg2://` URL.
    database_url: DatabaseUrl | None = Field(default=None, repr=False)
    #: None: the embedded Valkey. Otherwise a URL redis-py understands.
    redis_url: RedisUrl | None = Field(default=None, repr=False)
    #: None: the embedded Valkey. Otherwise a URL kombu understands.
    broker_url: BrokerUrl | None = Field(default=None, repr=False)
    #: Fernet keys, the newest first: it encrypts, all of them decrypt.
    secret_keys: SecretKeys = Field(default=(), repr=False)

    port: Port = 8080
    public_url: HttpUrl = Field(default_factory=lambda given: f"http://localhost:{given['port']}")
    trusted_proxies: Annotated[int, whole(0, 5)] = 0
    #: Header in which a proxy names the operator it has authenticated; None: no single sign-on.
    sso_header: HeaderName | None = None
    #: Networks that such a proxy calls from; the header is ignored from everywhere else.
    sso_proxies: Networks = ()
    #: Gives machines from any address access to internal routes.
    metrics_token: Token | None = Field(default=None, repr=False)
    #: None: see `internal`.
    internal_networks: Networks | None = None
    #: None: see `arrival_url`.
    intake_url: HttpUrl | None = None
    intake_port: Port = 8081
    flower_port: Port = 5555
    #: None: Flower listens on this machine at `flower_port`.
    flower_url: Origin | None = None
    #: `user:password`, the same that Flower is given.
    flower_basic_auth: Login | None = Field(default=None, repr=False)
    log_level: Annotated[str, one_of("debug", "info", "warning", "error")] = "info"
    log_format: Annotated[str, one_of("json", "console")] = "json"

    pipedrive_client_id: str | None = None
    pipedrive_client_secret: str | None = Field(default=None, repr=False)
    pipedrive_oauth_url: HttpUrl = "https://oauth.pipedrive.com"
    #: Set: every API call goes to this origin. None: to the `api_domain` the token came with.
    pipedrive_api_url: Origin | None = None
    #: Requests per 2 s and token until the answers' headers have the real limit; 0 switches the limiter off.
    pipedrive_burst_limit: Annotated[int, whole(0, 100_000)] = 20

    hull_organizations: Hosts = ()
    hull_protocol: Annotated[str, one_of("https", "http")] = "https"
    #: None: `firehose.` before the organization's domain.
    hull_firehose_url: HttpUrl | None = None
    hull_key_hosts: Hosts = ()
    hull_key_path: UrlPath = "/api/v1/public-key"
    hull_export_hosts: Hosts = ()

    #: The address alone often allows posting there, so it is a secret.
    alert_webhook_url: AlertUrl | None = Field(default=None, repr=False)
    alert_email_to: Mailboxes = ()
    alert_email_from: Mailbox | None = None
    smtp_url: SmtpUrl | None = None
    smtp_password: str | None = Field(default=None, repr=False)
    #: When an alert is raised; 0 switches its rule off.
    alert_late_minutes: Annotated[int, whole(0, 100_000)] = 15
    alert_failures_per_hour: Annotated[int, whole(0, 1_000_000)] = 25
    alert_silence_minutes: Annotated[int, whole(0, 1_000_000)] = 4_320
    alert_overdue_s: Annotated[int, whole(0, 1_000_000)] = 120
    alert_volume_factor: Annotated[int, whole(0, 1_000)] = 5

    lease_s: Seconds = 30.0
    sweep_s: Seconds = 2.0
    page_limit: Annotated[int, whole(1, 500)] = 500
    batches_in_flight: Annotated[int, whole(1, 1000)] = 6
    live_at_once: Annotated[int, whole(1, 1000)] = 3
    writes_at_once: Annotated[int, whole(1, 64)] = 8
    firehose_batch: Annotated[int, whole(1, 1000)] = 50

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read only the arguments: `from_env` reads the environment and reports all mistakes together."""
        return (sources["init_settings"],)

    @classmethod
    def from_env(cls, environ: Mapping[str, str], *, needs_keys: bool = True) -> Settings:
        """Read and validate every name.

        needs_keys  whether SECRET_KEYS and PIPEDRIVE_CLIENT_SECRET may be required; beat and Flower do not get them
        Raises: SettingsError with all mistakes.
        """
        source = NameOrFileSource(cls, environ)
        given = {"data_dir": default_data_dir(environ), **source()}
        found, malformed = _validated(given)
        problems = {**source.problems, **malformed}
        if malformed:  # other missing names are reported too
            found, _ = _validated({name: value for name, value in given.items() if name not in malformed})
        excused = {name.upper() for name in problems} | (frozenset() if needs_keys else ONLY_WITH_KEYS)
        sentences = [f"{name.upper()} {problems[name]}" for name in cls.model_fields if name in problems]
        if sentences := [*sentences, *_missing(found, excused)]:
            raise SettingsError(sentences)
        return found.replace(
            redis_url=found.redis_url or redis_of_broker(found.broker_url),
            broker_url=found.broker_url or broker_of_redis(found.redis_url),
        )

    def replace(self, **changes: Any) -> Settings:
        """Return a checked copy with these fields changed."""
        return Settings(**{**{name: getattr(self, name) for name in Settings.model_fields}, **changes})

    @property
    def arrival_url(self) -> str:
        """The address below which Pipedrive sends webhooks and Hull sends notifications.

        By default PUBLIC_URL; if that has its default too, the intake process on this machine.
        """
        is_default = self.public_url == f"http://localhost:{self.port}"
        return self.intake_url or (f"http://localhost:{self.intake_port}" if is_default else self.public_url)

    @property
    def internal(self) -> tuple[str, ...]:
        """Return the networks with internal requests: by default this machine, unless a proxy may be hidden behind it.

        With a public address and no known proxy, all requests of a proxy on this machine would come from this machine.
        """
        if self.internal_networks is not None:
            return self.internal_networks
        is_local = urlsplit(self.public_url).hostname in LOOPBACK_HOSTS
        return LOOPBACK_NETWORKS if is_local or self.trusted_proxies else ()

    @property
    def faces_sandbox(self) -> bool:
        """Whether nothing names a real Pipedrive, so that `pipeline up` brings its own sandbox."""
        return self.pipedrive_api_url is None and self.pipedrive_client_id is None


class NameOrFileSource(EnvSettingsSource):
    """Reads each field from NAME or from the file that NAME_FILE names; `problems` holds what cannot be read, by field."""

    def __init__(self, settings_cls: type[BaseSettings], environ: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self.problems: dict[str, str] = {}
        texts: dict[str, str] = {}
        for field in settings_cls.model_fields:
            try:
                texts[field] = _text(field.upper(), environ)
            except ValueError as problem:
                self.problems[field] = str(problem)
        self.env_vars = {field: text for field, text in texts.items() if text}


def settings() -> Settings:
    """Return the settings of this process; the first call reads its environment, and creates the local key."""
    if _in_force is None:
        use(with_local_key(Settings.from_env(os.environ)))
    assert _in_force is not None  # noqa: S101  # for the type checker: `use` has just set it
    return _in_force


def settings_to_watch() -> Settings:
    """Return the settings of a process that uses neither the database nor a secret. Raises: SettingsError."""
    return Settings.from_env(os.environ, needs_keys=False).replace(database_url=None, secret_keys=())


def use(chosen: Settings | None) -> None:
    """Use these settings in this process; None makes the next `settings()` read the environment again."""
    global _in_force  # noqa: PLW0603  # the one per-process value, set here only
    _in_force = chosen


def with_local_key(found: Settings) -> Settings:
    """Add the key in DATA_DIR, creating it the first time, unless SECRET_KEYS was given.

    Only for the embedded database: `from_env` refuses an external database without SECRET_KEYS.
    Raises: SettingsError if DATA_DIR cannot be written, or the file has no valid key.
    """
    if found.secret_keys:
        return found
    path = found.data_dir / KEY_FILE
    try:
        make_data_dir(found.data_dir)
        if not path.exists():
            write_once(path, base64.urlsafe_b64encode(os.urandom(32)))
        key = path.read_text().strip()
    except OSError as error:
        raise SettingsError(
            [f"SECRET_KEYS is missing, and no key can be kept: {unwritable(found.data_dir, error)}"]
        ) from None
    if not is_fernet_key(key):
        problem = (
            f"SECRET_KEYS is missing, and {path} has no valid key: restore the key from a backup, or set SECRET_KEYS"
        )
        raise SettingsError([problem])
    return found.replace(secret_keys=(key,))


def _text(name: str, environ: Mapping[str, str]) -> str:
    """Return what NAME or the file of NAME_FILE holds, "" for neither. Raises: ValueError with the end of a sentence."""
    plain, file = environ.get(name, "").strip(), environ.get(f"{name}_FILE", "").strip()
    if plain and file:
        raise ValueError(f"is given twice: keep either {name} or {name}_FILE")
    if not file:
        return plain
    try:
        content = Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ValueError(f"cannot be read from the file that {name}_FILE names: {reason}") from None
    if not content:
        raise ValueError(f"is empty in the file that {name}_FILE names")
    return content


def _validated(given: Mapping[str, Any]) -> tuple[Settings, dict[str, str]]:
    """Return (settings, {}), or (settings of the defaults, field → what is wrong with it)."""
    try:
        return Settings(**given), {}
    except ValidationError as error:
        return Settings(data_dir=Path()), {
            str(each["loc"][0]): str(each["ctx"]["error"])
            for each in error.errors(include_url=False, include_input=False)
            if each["type"] == "value_error"  # else a default that depends on a malformed field
        }


def _missing(found: Settings, excused: set[str]) -> list[str]:
    """Return a sentence for each name that another name requires, unless it is excused."""
    problems = []
    if found.database_url and not found.secret_keys and "SECRET_KEYS" not in excused:
        problems.append(
            "SECRET_KEYS is missing: a database of your own (DATABASE_URL) needs keys of your own, or credentials "
            "could be read on one machine only. Make one with: python -c 'from cryptography.fernet import Fernet; "
            "print(Fernet.generate_key().decode())'"
        )
    for purpose, pair in PAIRS.items():
        values = {name: getattr(found, name.lower()) for name in pair}
        if any(values.values()) and not excused & values.keys():
            problems += [f"{name} is missing: {purpose} {' and '.join(pair)}" for name in pair if not values[name]]
    return problems


PROJECT_DIR = Path(__file__).resolve().parent.parent  # a clone, or the folder that the package is installed in
KEY_FILE = "secret.key"  # the key that encrypts credentials when SECRET_KEYS is not given
SANDBOX_FILE = "sandbox.json"  # where the sandbox of a running `pipeline up` listens, with its credentials


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Return `.data` next to the code in a clone; for an installed package the user's data folder (XDG)."""
    if (PROJECT_DIR / "setup.cfg").exists():
        return PROJECT_DIR / ".data"
    xdg = environ.get("XDG_DATA_HOME", "")
    home = Path(environ.get("HOME") or home_of_account())
    return (Path(xdg) if xdg.startswith("/") else home / ".local" / "share") / "hull-pipedrive"


def make_data_dir(path: Path) -> None:
    """Create DATA_DIR if it is missing, closed to other accounts; an existing folder keeps its mode.

    If root creates it, other accounts may pass through it, but not read it: the account of the embedded servers must
    reach its own folder inside.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        path.chmod(0o711 if os.geteuid() == 0 else 0o700)


def unwritable(data_dir: Path, error: OSError) -> str:
    """Return one line: why DATA_DIR cannot be written, and what to do."""
    reason = error.strerror or type(error).__name__
    return (
        f"DATA_DIR={data_dir} cannot be used ({reason}); set DATA_DIR to a folder that this account may make and write"
    )


def write_once(path: Path, content: bytes) -> None:
    """Write a file that only this account may read. Of several processes the first wins, and none reads half a file."""
    descriptor, draft = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)  # made with mode 0600
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # without the key, everything encrypted with it is lost
    with suppress(FileExistsError):
        os.link(draft, path)
    os.unlink(draft)


def home_of_account() -> Path:
    """Return the home of this account; containers often run as an account that the machine does not know."""
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:
        return Path("/nonexistent")  # as Debian calls the home of an account without one


_in_force: Settings | None = None
