"""The environment as it may be given, and what the pipeline makes of it."""

from __future__ import annotations

import base64
import re
import stat
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import ValidationError

from pipeline.local import programs, system
from pipeline.settings import (
    KEY_FILE,
    PROJECT_DIR,
    Settings,
    SettingsError,
    make_data_dir,
    settings,
    use,
    with_local_key,
)

KEY = base64.urlsafe_b64encode(b"KEY".ljust(32, b"-")).decode()
OWN_SERVERS = {
    "DATABASE_URL": "postgresql://ada:hunter2@db.example:5432/pipeline",
    "REDIS_URL": "redis://:hunter2@redis.example:6379/0",
    "SECRET_KEYS": KEY,
}
NAMES = {name.upper() for name in Settings.model_fields}


@pytest.fixture(autouse=True)
def _forget_settings() -> Iterator[None]:
    yield
    use(None)


def problems_of(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env(environ)
    return str(caught.value)


def test_an_empty_environment_means_the_embedded_servers_and_the_documented_defaults() -> None:
    found = Settings.from_env({})

    assert (found.database_url, found.redis_url, found.broker_url) == (None, None, None)
    assert (found.port, found.flower_port, found.public_url) == (8080, 5555, "http://localhost:8080")
    assert (found.log_level, found.log_format, found.hull_protocol) == ("info", "json", "https")
    assert found.pipedrive_oauth_url == "https://oauth.pipedrive.com"
    assert (found.lease_s, found.sweep_s, found.page_limit) == (30.0, 2.0, 500)
    assert (found.batches_in_flight, found.firehose_batch, found.pipedrive_burst_limit) == (6, 50, 20)


def test_every_default_of_the_record_is_the_default_of_the_environment() -> None:
    found = Settings.from_env({})

    assert found == Settings(data_dir=found.data_dir)


def test_every_name_reaches_its_field() -> None:
    found = Settings.from_env(
        OWN_SERVERS
        | {
            "BROKER_URL": "amqps://ada:hunter2@rabbit.example/vhost",
            "PUBLIC_URL": "https://pipeline.example/",
            "TRUSTED_PROXIES": "1",
            "METRICS_TOKEN": "hunter2-hunter2-hunter2",
            "INTERNAL_NETWORKS": "10.0.0.0/8, 192.0.2.7",
            "PORT": "9000",
            "FLOWER_PORT": "9001",
            "FLOWER_URL": "http://flower.example:5555",
            "FLOWER_BASIC_AUTH": "ada:hunter2,bo:other",
            "ALERT_WEBHOOK_URL": "https://hooks.example/services/hunter2?a=b",
            "ALERT_EMAIL_TO": "ana@acme.example, bo@acme.example",
            "ALERT_EMAIL_FROM": "pipeline@acme.example",
            "SMTP_URL": "smtps://pipeline@mail.example:465/",
            "SMTP_PASSWORD": "hunter2",
            "ALERT_LATE_MINUTES": "30",
            "ALERT_FAILURES_PER_HOUR": "1",
            "ALERT_SILENCE_MINUTES": "0",
            "ALERT_OVERDUE_S": "60",
            "ALERT_VOLUME_FACTOR": "3",
            "DATA_DIR": "/srv/pipeline",
            "PIPEDRIVE_CLIENT_ID": "id",
            "PIPEDRIVE_CLIENT_SECRET": "hunter2",
            "HULL_ORGANIZATIONS": "acme.hullapp.io, 127.0.0.1:9101,",
            "LOG_LEVEL": "DEBUG",
            "LOG_FORMAT": "console",
            "PIPEDRIVE_OAUTH_URL": "http://127.0.0.1:9100",
            "PIPEDRIVE_API_URL": "http://127.0.0.1:9100/",
            "PIPEDRIVE_BURST_LIMIT": "0",
            "HULL_PROTOCOL": "http",
            "HULL_FIREHOSE_URL": "http://127.0.0.1:9101/api/v1/firehose",
            "HULL_KEY_HOSTS": "keys.hullapp.io",
            "HULL_KEY_PATH": "/keys/hull.pem",
            "HULL_EXPORT_HOSTS": "exports.hullapp.io,[::1]:9101",
            "LEASE_S": "2",
            "SWEEP_S": "0.5",
            "PAGE_LIMIT": "100",
            "BATCHES_IN_FLIGHT": "2",
            "FIREHOSE_BATCH": "25",
        }
    )

    assert found == Settings(
        data_dir=Path("/srv/pipeline"),
        database_url="postgresql+psycopg2://ada:hunter2@db.example:5432/pipeline",
        redis_url="redis://:hunter2@redis.example:6379/0",
        broker_url="amqps://ada:hunter2@rabbit.example/vhost",
        secret_keys=(KEY,),
        public_url="https://pipeline.example",
        trusted_proxies=1,
        metrics_token="hunter2-hunter2-hunter2",
        internal_networks=("10.0.0.0/8", "192.0.2.7/32"),
        port=9000,
        flower_port=9001,
        flower_url="http://flower.example:5555",
        flower_basic_auth="ada:hunter2",
        alert_webhook_url="https://hooks.example/services/hunter2?a=b",
        alert_email_to=("ana@acme.example", "bo@acme.example"),
        alert_email_from="pipeline@acme.example",
        smtp_url="smtps://pipeline@mail.example:465",
        smtp_password="hunter2",
        alert_late_minutes=30,
        alert_failures_per_hour=1,
        alert_silence_minutes=0,
        alert_overdue_s=60,
        alert_volume_factor=3,
        log_level="debug",
        log_format="console",
        pipedrive_client_id="id",
        pipedrive_client_secret="hunter2",
        pipedrive_oauth_url="http://127.0.0.1:9100",
        pipedrive_api_url="http://127.0.0.1:9100",
        pipedrive_burst_limit=0,
        hull_organizations=("acme.hullapp.io", "127.0.0.1:9101"),
        hull_protocol="http",
        hull_firehose_url="http://127.0.0.1:9101/api/v1/firehose",
        hull_key_hosts=("keys.hullapp.io",),
        hull_key_path="/keys/hull.pem",
        hull_export_hosts=("exports.hullapp.io", "[::1]:9101"),
        lease_s=2.0,
        sweep_s=0.5,
        page_limit=100,
        batches_in_flight=2,
        firehose_batch=25,
    )


def test_the_record_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings.from_env({}).port = 1  # type: ignore[misc]


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_a_database_url_names_the_driver_we_ship(scheme: str) -> None:
    found = Settings.from_env(OWN_SERVERS | {"DATABASE_URL": f"{scheme}://db.example/pipeline?sslmode=require"})

    assert found.database_url == "postgresql+psycopg2://db.example/pipeline?sslmode=require"


@pytest.mark.parametrize(
    ("given", "redis", "broker"),
    [
        ({"REDIS_URL": "rediss://redis.example/2"}, "rediss://redis.example/2", "rediss://redis.example/2"),
        (
            {"REDIS_URL": "unix:///run/r.sock?db=3"},
            "unix:///run/r.sock?db=3",
            "redis+socket:///run/r.sock?virtual_host=3",
        ),
        ({"REDIS_URL": "unix:///run/r.sock"}, "unix:///run/r.sock", "redis+socket:///run/r.sock"),
        ({"BROKER_URL": "redis://redis.example/1"}, "redis://redis.example/1", "redis://redis.example/1"),
        (
            {"BROKER_URL": "redis+socket:///run/r.sock?virtual_host=1"},
            "unix:///run/r.sock?db=1",
            "redis+socket:///run/r.sock?virtual_host=1",
        ),
        (
            {"BROKER_URL": "unix:///run/r.sock?db=1"},
            "unix:///run/r.sock?db=1",
            "redis+socket:///run/r.sock?virtual_host=1",
        ),
        ({"BROKER_URL": "amqp://rabbit.example"}, None, "amqp://rabbit.example"),
        (
            {"REDIS_URL": "redis://a.example/0", "BROKER_URL": "redis://b.example/1"},
            "redis://a.example/0",
            "redis://b.example/1",
        ),
    ],
)
def test_redis_and_broker_replace_each_other(given: dict[str, str], redis: str | None, broker: str) -> None:
    found = Settings.from_env(given)

    assert (found.redis_url, found.broker_url) == (redis, broker)


def test_every_name_and_no_other_is_described_in_the_docs() -> None:
    page = (PROJECT_DIR / "docs" / "configuration.md").read_text()

    described = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))

    assert described == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_name_may_be_given_as_a_file(name: str, tmp_path: Path) -> None:
    text = problems_of({f"{name}_FILE": str(tmp_path / "nowhere")})

    assert f"\n  - {name} cannot be read from the file that {name}_FILE names" in text


def test_an_empty_value_counts_as_none_given() -> None:
    assert Settings.from_env({"PORT": "", "DATABASE_URL": "  ", "REDIS_URL_FILE": ""}) == Settings.from_env({})


def test_everything_wrong_is_reported_at_once() -> None:
    text = problems_of({"DATABASE_URL": "mysql://db", "PORT": "http", "LEASE_S": "-1", "PIPEDRIVE_CLIENT_ID": "id"})

    for name in ("DATABASE_URL", "PORT", "LEASE_S", "PIPEDRIVE_CLIENT_SECRET"):
        assert f"\n  - {name} " in text
    assert "docs/configuration.md" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "sqlite:///pipeline.db"),
        ("REDIS_URL", "redis.example:6379"),
        ("BROKER_URL", "memory://"),
        ("PUBLIC_URL", "pipeline.example"),
        ("PUBLIC_URL", "https://ada:hunter2@pipeline.example"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("FLOWER_PORT", "5555.5"),
        ("FLOWER_URL", "http://flower.example/flower"),
        ("FLOWER_BASIC_AUTH", "hunter2"),
        ("METRICS_TOKEN", "hunter2"),
        ("METRICS_TOKEN", "hunter2 hunter2 hunter2"),
        ("INTERNAL_NETWORKS", "everything"),
        ("ALERT_WEBHOOK_URL", "http://hooks.example/services"),
        ("ALERT_WEBHOOK_URL", "https://ada:hunter2@hooks.example/"),
        ("ALERT_WEBHOOK_URL", "file:///etc/passwd"),
        ("ALERT_EMAIL_FROM", "Ana <ana@acme.example>"),
        ("ALERT_EMAIL_TO", "ana@acme.example, bo"),
        ("ALERT_EMAIL_TO", "ana@acme.example\nBcc: eve@evil.example"),
        ("SMTP_URL", "mail.example"),
        ("SMTP_URL", "http://mail.example"),
        ("ALERT_LATE_MINUTES", "-1"),
        ("SECRET_KEYS", "hunter2"),
        ("SECRET_KEYS", f"{KEY},é"),
        ("HULL_ORGANIZATIONS", "https://acme.hullapp.io"),
        ("HULL_KEY_HOSTS", "acme hullapp"),
        ("HULL_EXPORT_HOSTS", "a/b"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("PIPEDRIVE_OAUTH_URL", "ftp://oauth.example"),
        ("PIPEDRIVE_API_URL", "https://api.example/v1"),
        ("PIPEDRIVE_BURST_LIMIT", "-1"),
        ("HULL_PROTOCOL", "gopher"),
        ("HULL_FIREHOSE_URL", "firehose.hullapp.io"),
        ("LEASE_S", "0"),
        ("SWEEP_S", "inf"),
        ("PAGE_LIMIT", "501"),
        ("BATCHES_IN_FLIGHT", "0"),
        ("FIREHOSE_BATCH", "fifty"),
    ],
)
def test_a_malformed_value_is_named(name: str, value: str) -> None:
    text = problems_of({name: value})

    assert text.count("\n  - ") == 1
    assert f"\n  - {name} must be " in text


CANARY = "hunter2 /?#:@"
TEXTS = {"DATA_DIR", "PIPEDRIVE_CLIENT_ID", "PIPEDRIVE_CLIENT_SECRET", "SMTP_PASSWORD"}
"""Names that take any text."""


@pytest.mark.parametrize("name", sorted(NAMES - TEXTS))
def test_no_error_repeats_the_value(name: str) -> None:
    """A secret may be given under the wrong name."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: CANARY})

    assert f"  - {name} must " in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgresql://h:hunter2"),
        ("REDIS_URL", "redis://:pa[hunter2]@h"),
        ("REDIS_URL", "redis://:hunter2/x@h"),
        ("BROKER_URL", "amqp://ada:pa[hunter2]@h"),
        ("BROKER_URL", "amqp://h:hunter2"),
        ("SMTP_URL", "smtps://ada@[hunter2"),
        ("PUBLIC_URL", "https://[hunter2"),
        ("FLOWER_URL", "https://[hunter2"),
        ("ALERT_WEBHOOK_URL", "https://ada:pa[hunter2]@h"),
    ],
)
def test_no_error_repeats_a_part_of_an_address_that_cannot_be_read(name: str, url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({name: url, "SECRET_KEYS": KEY})

    assert f"  - {name} must " in str(caught.value)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_several_brokers_may_be_named() -> None:
    url = "sentinel://a.example:26379;sentinel://b.example:26379"

    assert Settings.from_env({"BROKER_URL": url}).broker_url == url


@pytest.mark.parametrize(
    ("environ", "arrival_url"),
    [
        ({}, "http://localhost:8081"),
        ({"PORT": "9000", "INTAKE_PORT": "9001"}, "http://localhost:9001"),
        ({"PUBLIC_URL": "https://pipeline.example"}, "https://pipeline.example"),
        ({"PUBLIC_URL": "https://a.example", "INTAKE_URL": "https://b.example"}, "https://b.example"),
        ({"INTAKE_URL": "https://b.example"}, "https://b.example"),
    ],
)
def test_every_command_registers_webhooks_at_the_address_that_up_serves(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], arrival_url: str
) -> None:
    """`connectors add` before the first `up` must not register another address than `up` expects."""
    monkeypatch.setattr(programs, "_is_free", lambda _port: True)
    found = Settings.from_env(environ)
    served = programs.environment(system._with_ports(found)[0])

    assert found.arrival_url == arrival_url
    assert Settings.from_env({name: value for name, value in served.items() if value}).arrival_url == arrival_url


def test_a_value_given_in_code_is_checked_as_well() -> None:
    chosen = Settings(data_dir=Path("/srv"))

    assert chosen.replace(port=9000).public_url == "http://localhost:8080"
    for wrong in ({"database_url": "sqlite:///x"}, {"ports": 1}, {"port": "http"}):
        with pytest.raises(ValidationError):
            chosen.replace(**wrong)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"SMTP_URL": "smtps://ada:hunter2@mail.example"}, "must not hold the password"),
        ({"SMTP_URL": "smtp+plain://ada@mail.example"}, "must not send a password over smtp+plain"),
        ({"SMTP_URL": "smtps://mail.example"}, "ALERT_EMAIL_TO is missing"),
        ({"ALERT_EMAIL_TO": "ana@acme.example"}, "SMTP_URL is missing"),
    ],
)
def test_mail_settings_that_cannot_work_safely_are_reported_at_the_start(given: dict[str, str], words: str) -> None:
    text = problems_of(given)

    assert words in text
    assert "hunter2" not in text


def test_secrets_are_in_no_repr() -> None:
    chosen = Settings.from_env({"ALERT_WEBHOOK_URL": "https://hooks.example/hunter2", "FLOWER_BASIC_AUTH": "a:hunter2"})

    assert "hunter2" not in repr(chosen)


def test_a_database_of_ones_own_needs_keys_of_ones_own() -> None:
    assert "SECRET_KEYS is missing" in problems_of({"DATABASE_URL": "postgresql://db.example/pipeline"})


def test_malformed_keys_are_not_also_called_missing() -> None:
    assert "missing" not in problems_of(OWN_SERVERS | {"SECRET_KEYS": "hunter2"})


@pytest.mark.parametrize("given", ["PIPEDRIVE_CLIENT_ID", "PIPEDRIVE_CLIENT_SECRET"])
def test_half_a_pair_of_app_credentials_is_refused(given: str) -> None:
    other = {"PIPEDRIVE_CLIENT_ID": "PIPEDRIVE_CLIENT_SECRET", "PIPEDRIVE_CLIENT_SECRET": "PIPEDRIVE_CLIENT_ID"}[given]

    assert f"{other} is missing: an app of Pipedrive needs both" in problems_of({given: "x"})


def test_a_value_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{KEY}\n")
    (tmp_path / "port").write_text("9000\n")

    found = Settings.from_env({"SECRET_KEYS_FILE": str(tmp_path / "keys"), "PORT_FILE": str(tmp_path / "port")})

    assert (found.secret_keys, found.port) == ((KEY,), 9000)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    text = problems_of({"DATABASE_URL_FILE": str(tmp_path / "hunter2")})

    assert "DATABASE_URL cannot be read from the file that DATABASE_URL_FILE names: No such file or directory" in text
    assert "hunter2" not in text, "a person may have given the secret itself"


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    assert "SECRET_KEYS is empty in the file" in problems_of({"SECRET_KEYS_FILE": str(tmp_path / "empty")})


def test_a_file_of_bytes_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")

    assert "not UTF-8 text" in problems_of({"SECRET_KEYS_FILE": str(tmp_path / "bytes")})


def test_a_value_and_a_file_together_are_refused(tmp_path: Path) -> None:
    assert "keep either PORT or PORT_FILE" in problems_of({"PORT": "1", "PORT_FILE": str(tmp_path)})


def test_secrets_stay_out_of_the_repr() -> None:
    found = Settings.from_env(
        OWN_SERVERS
        | {"BROKER_URL": "redis://:hunter2@r", "PIPEDRIVE_CLIENT_ID": "id", "PIPEDRIVE_CLIENT_SECRET": "hunter2"}
    )

    assert "hunter2" not in repr(found)
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"PIPEDRIVE_API_URL": "https://api.example"}, False),
        ({"PIPEDRIVE_CLIENT_ID": "id", "PIPEDRIVE_CLIENT_SECRET": "secret"}, False),
    ],
)
def test_the_sandbox_is_faced_until_a_real_pipedrive_is_named(given: dict[str, str], expected: bool) -> None:
    assert Settings.from_env(given).faces_sandbox is expected


def test_a_clone_keeps_its_data_beside_the_code() -> None:
    assert Settings.from_env({"HOME": "/home/ada"}).data_dir == PROJECT_DIR / ".data"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"HOME": "/home/ada"}, "/home/ada/.local/share/hull-pipedrive"),
        ({"HOME": "/home/ada", "XDG_DATA_HOME": "/data"}, "/data/hull-pipedrive"),
        ({"HOME": "/home/ada", "XDG_DATA_HOME": "relative"}, "/home/ada/.local/share/hull-pipedrive"),
    ],
)
def test_an_installed_package_keeps_its_data_with_the_user(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.modules["pipeline.settings"], "PROJECT_DIR", tmp_path)

    assert Settings.from_env(environ).data_dir == Path(expected)


def test_the_local_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    bare = Settings(data_dir=tmp_path / "new" / "data")

    first, second = with_local_key(bare), with_local_key(bare)

    assert first == second
    assert Fernet(first.secret_keys[0]).encrypt(b"token")
    key_file = bare.data_dir / KEY_FILE
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [path.name for path in bare.data_dir.iterdir()] == [key_file.name]


def test_a_key_that_cannot_be_kept_is_one_line() -> None:
    with pytest.raises(SettingsError) as refused:
        with_local_key(Settings(data_dir=Path("/proc/no/folder")))

    (problem,) = refused.value.problems
    assert "SECRET_KEYS is missing" in problem
    assert "set DATA_DIR to a folder" in problem


def test_a_damaged_key_file_is_one_line_and_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_text("half a k")

    with pytest.raises(SettingsError, match="has no valid key: restore the key from a backup"):
        with_local_key(Settings(data_dir=tmp_path))

    assert (tmp_path / KEY_FILE).read_text() == "half a k"


def test_an_account_that_the_machine_does_not_know_may_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys.modules["pipeline.settings"], "PROJECT_DIR", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 3_999_999_999)

    assert Settings.from_env({}).data_dir == Path("/nonexistent/.local/share/hull-pipedrive")


def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    bare = Settings(data_dir=tmp_path)

    with ThreadPoolExecutor(8) as threads:
        keys = {found.secret_keys for found in threads.map(with_local_key, [bare] * 8)}

    assert len(keys) == 1


def test_given_keys_make_no_file(tmp_path: Path) -> None:
    given = Settings(data_dir=tmp_path, secret_keys=(KEY,))

    assert with_local_key(given) is given
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)

    make_data_dir(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_new_folder_is_closed_to_other_accounts(tmp_path: Path) -> None:
    make_data_dir(tmp_path / "data")

    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) & 0o066 == 0


def test_settings_reads_the_process_environment_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.environ", {"DATA_DIR": str(tmp_path), "PORT": "9000"})
    first = settings()
    monkeypatch.setattr("os.environ", {"PORT": "9001"})

    assert first.port == 9000
    assert first.secret_keys
    assert settings() is first


def test_settings_of_ones_own_can_be_put_in_force(tmp_path: Path) -> None:
    own = Settings(data_dir=tmp_path, port=1)

    use(own)

    assert settings() is own
