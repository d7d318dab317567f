"""The files under deploy/, held to the code: commands parse, names and secrets are those of each process, no process is missing.

What other programs read is also tried with them, where they are installed: `systemd-analyze verify`, `nginx -t`, `buildah bud`.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import flower.options  # noqa: F401 - it defines the options
import pytest
import yaml
from celery.bin.celery import celery
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from granian.cli import cli as granian
from tornado.options import options as flower_options

import celeryconfig
from pipeline.cli.program import program
from pipeline.local import programs
from pipeline.settings import Settings
from pipeline.web import batches, intake, notifications
from pipeline.web.auth import MAX_PENDING_BYTES

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
UNITS = DEPLOY / "systemd"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
QUEUES = {queue.name for queue in celeryconfig.task_queues}
PROCESSES = {"intake", "web", *QUEUES, "beat", "flower"}
NEEDED = {
    **dict.fromkeys(["migrate", "live", "bulk"], programs.WORK),
    "intake": programs.WORK | programs.METRICS,
    "control": programs.ALERTS,
    "web": programs.ALERTS | programs.METRICS | {"FLOWER_BASIC_AUTH"},
    "beat": programs.BROKER,
    "flower": programs.BROKER | {"FLOWER_BASIC_AUTH"},
}
"""Process → the secrets that docs/configuration.md gives it. REDIS_URL is the broker's."""
OPTIONAL = {"REDIS_URL", "PIPEDRIVE_CLIENT_SECRET", "ALERT_WEBHOOK_URL", "SMTP_PASSWORD", "METRICS_TOKEN"}
IMAGE_BASE, IMAGE_OPTIONS = os.environ.get("IMAGE_BASE"), os.environ.get("IMAGE_BUILD_OPTIONS", "")
Unit = list[tuple[str, str]]


def compose() -> dict[str, Any]:
    """compose.yaml with its merges resolved."""
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return loaded


COMPOSE = compose()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name in NEEDED}


def health() -> ModuleType:
    spec = importlib.util.spec_from_file_location("deploy_health", DEPLOY / "health.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unit(name: str) -> Unit:
    """(key, value) of a unit, then those of its drop-ins, as systemd applies them. `%i` and the like stay."""
    template = re.sub(r"@\w+\.", "@.", name)
    folders = {UNITS / "hull-pipedrive-.service.d", UNITS / f"{name}.d"} if name.endswith(".service") else set()
    drop_ins = sorted((file for folder in folders for file in folder.glob("*.conf")), key=lambda file: file.name)
    lines = [line for file in [UNITS / template, *drop_ins] for line in file.read_text().splitlines()]
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return [(key, value) for key, _, value in pairs]


def unit_environment(of: Unit) -> dict[str, str]:
    words = [word for key, value in of if key == "Environment" for word in shlex.split(value)]
    return {name: value for name, _, value in (word.partition("=") for word in words)}


def unit_of(process: str) -> str:
    return f"hull-pipedrive-{f'worker@{process}' if process in QUEUES else process}.service"


def unit_command(process: str) -> list[str]:
    """What systemd would run, with specifiers and variables in place."""
    of = unit(unit_of(process))
    text = dict(of)["ExecStart"].replace("%i", process).replace("%%", "%")
    text = re.sub(r"\$\{(\w+)\}", lambda found: unit_environment(of)[found[1]], text)
    return shlex.split(text.removeprefix("/opt/hull-pipedrive/bin/"))


def commands() -> Iterator[tuple[str, str, list[str]]]:
    """(where, process, words) of every command that starts a process."""
    for process in NEEDED:
        yield "compose", process, [str(word) for word in SERVICES[process]["command"]]
        yield "systemd", process, unit_command(process)


COMMANDS = list(commands())
IDS = [f"{where}-{process}" for where, process, _ in COMMANDS]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def check_celery(process: str, words: list[str]) -> None:
    """Raises click.UsageError for an option that Celery does not have."""
    given, rest, _ = celery.make_parser(click.Context(celery)).parse_args(words)
    assert given["app"] == "pipeline"
    name, *arguments = rest
    if name == "flower":
        names = {word[2:].partition("=")[0].replace("-", "_") for word in arguments}
        assert names <= {known.replace("-", "_") for known in flower_options._options}
        assert "--url-prefix=flower" in arguments
        return
    command = celery.commands[name]
    given, rest, _ = command.make_parser(click.Context(command)).parse_args(arguments)
    assert rest == []
    if name == "worker":
        assert given["queues"] == process
        assert given["hostname"] == f"{process}@%h"
        wanted = {
            "live": programs.LIVE_PROCESSES,
            "control": programs.CONTROL_PROCESSES,
            "bulk": programs.BULK_PROCESSES,
        }
        assert int(given["concurrency"]) == wanted[process]
    else:
        assert name == process == "beat"


@pytest.mark.parametrize(("where", "process", "words"), COMMANDS, ids=IDS)
def test_every_command_parses(where: str, process: str, words: list[str]) -> None:
    name, *arguments = words
    if name == "granian":
        context = granian.make_context("granian", arguments)
        module, _, factory = context.params["app"].partition(":")
        assert callable(getattr(importlib.import_module(module), factory))
        assert (context.params["interface"].value, context.params["factory"]) == ("rsgi", True)
        assert module == f"pipeline.web.{'app' if process == 'web' else process}"
    elif name == "celery":
        check_celery(process, arguments)
    else:
        assert (name, process) == ("pipeline", "migrate")
        assert arguments[0] in program.commands


def test_an_option_that_does_not_exist_is_seen() -> None:
    with pytest.raises(click.UsageError):
        check_celery("live", shlex.split("-A pipeline worker -n live@%h -Q live -c 4 --made-up"))


def test_every_process_of_pipeline_up_is_there() -> None:
    chosen = Settings.from_env({"DATA_DIR": "/srv"})
    up = {each.name for each in programs.pipeline_programs(chosen, host="127.0.0.1", flower_login="a:b")}
    wanted = " ".join(value for key, value in unit("hull-pipedrive.target") if key == "Wants").split()

    assert up == PROCESSES
    assert set(SERVICES) == up | {"migrate", "postgres", "valkey"}
    assert set(wanted) == {unit_of(process) for process in up}


def resolved(text: object, given: dict[str, str]) -> str:
    """Interpolate the forms that the file uses, by the compose specification."""
    text = re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: given.get(found[1]) or found[2], str(text))
    text = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: given[found[1]], text)
    assert "${" not in text
    return text.replace("$$", "$")


def names_of_configuration() -> set[str]:
    text = (PROJECT / "docs" / "configuration.md").read_text()
    return set(re.findall(r"^\| `([A-Z_]+)` \|", text, re.MULTILINE))


@pytest.mark.parametrize("process", NEEDED)
def test_each_container_has_the_names_and_secrets_of_its_process(process: str, tmp_path: Path) -> None:
    service = SERVICES[process]
    given = dict(line.split("=", 1) for line in example_lines())
    environment = {name: resolved(value, given) for name, value in service["environment"].items()}
    plain = {name.removesuffix("_FILE") for name in environment}

    assert plain <= names_of_configuration()
    secrets = plain & set(programs.SECRETS)
    assert secrets == NEEDED[process] - {"REDIS_URL"}
    assert all(f"{name}_FILE" in environment for name in secrets), "a secret stands in the environment itself"
    assert {path for path in environment.values() if path.startswith("/run/")} <= {
        f"/run/secrets/{s}" for s in service["secrets"]
    }
    assert {name.lower() for name in secrets} == set(service["secrets"])

    run_make_secrets(tmp_path / "s")
    files = {name: value.replace("/run/secrets", str(tmp_path / "s")) for name, value in environment.items()}
    Settings.from_env(files, needs_keys=process not in ("beat", "flower"))


def example_lines() -> list[str]:
    text = (DEPLOY / "example.env").read_text()
    return [line for line in text.splitlines() if "=" in line and not line.startswith("#")]


def test_the_example_names_what_compose_asks_for() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{(\w+)", text)) - {"POSTGRES_IMAGE", "VALKEY_IMAGE"}
    named = set(re.findall(r"^#?([A-Z_]+)=", (DEPLOY / "example.env").read_text(), re.MULTILINE))

    assert named == asked


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_watched_limited_and_contained(name: str) -> None:
    service = SERVICES[name]
    once = name == "migrate"

    assert service["restart"] == ("no" if once else "unless-stopped")
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert ("ports" in service) == (name in ("intake", "web"))
    assert service["healthcheck"] == {"disable": True} or service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    assert set(service["networks"]) <= set(COMPOSE["networks"])
    if name in OURS:
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
        assert once or service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
        assert not service.get("volumes")
    else:
        assert {volume.partition(":")[0] for volume in service["volumes"]} & set(COMPOSE["volumes"]) == {name}
        assert all((DEPLOY / v.partition(":")[0]).exists() for v in service["volumes"] if v.startswith("./"))


def test_beat_and_flower_reach_the_broker_alone() -> None:
    reach = {name: set(service["networks"]) for name, service in SERVICES.items()}

    assert reach["beat"] == reach["flower"] == reach["valkey"] == {"broker"}
    assert reach["postgres"] == {"database"}
    assert all(COMPOSE["networks"][name]["internal"] for name in ("database", "broker"))
    assert {name for name in reach if "outside" in reach[name]} == {"intake", "web", *QUEUES}


def run_make_secrets(folder: Path, *hosts: str) -> None:
    subprocess.run([str(DEPLOY / "make-secrets"), str(folder), *hosts], check=True, capture_output=True)


def test_secrets_are_made_once_and_closed(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    run_make_secrets(folder, "db.example", "broker.example")
    first = {file.name: file.read_text() for file in folder.iterdir()}
    run_make_secrets(folder)

    assert {file.name: file.read_text() for file in folder.iterdir()} == first
    assert set(first) == {Path(each["file"]).name for each in COMPOSE["secrets"].values()}
    assert all(each["file"] == f"./secrets/{name}" for name, each in COMPOSE["secrets"].items())
    assert (folder.stat().st_mode & 0o777, {file.stat().st_mode & 0o777 for file in folder.iterdir()}) == (
        0o700,
        {0o444},
    )
    chosen = Settings.from_env({f"{name}_FILE": str(folder / name.lower()) for name in NEEDED["migrate"] - OPTIONAL})
    assert "@db.example:5432/pipeline" in (chosen.database_url or "")
    assert "@broker.example:6379/0" in (chosen.redis_url or "")
    assert first["database_password"].strip() in (chosen.database_url or "")
    assert first["valkey_auth"].split()[1] in (chosen.broker_url or "")


def test_what_is_made_here_is_not_committed() -> None:
    ignored = (PROJECT / ".gitignore").read_text().splitlines()

    assert {"deploy/.env", "deploy/secrets/"} <= set(ignored)


@pytest.mark.parametrize(("where", "process", "words"), COMMANDS, ids=IDS)
def test_the_health_check_knows_every_process(where: str, process: str, words: list[str]) -> None:
    """An init may precede the command: it is then the container's process 1."""
    probes = [health().probe_of([*before, *words, ""], "box", "5555") for before in ([], ["/sbin/docker-init", "--"])]

    expected = {
        "migrate": None,
        "intake": "http://127.0.0.1:8081/healthz",
        "web": "http://127.0.0.1:8080/healthz",
        "flower": "http://127.0.0.1:5555/flower/healthcheck",
    }
    node = "celerybeat@box" if process == "beat" else f"{process}@box"
    ping = shlex.split(f"celery -q -A pipeline inspect ping -d {node} --timeout 5")
    assert probes == [expected.get(process, ping)] * 2


def test_the_image_runs_without_rights_and_is_made_from_the_lock() -> None:
    test = ["CMD", "python", "/opt/pipeline/health.py"]

    assert CONTAINERFILE.startswith("#")
    assert "ARG BASE=docker.io/library/python:3.13-slim\n" in CONTAINERFILE
    assert set(re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE)) == {"${BASE}"}
    assert re.findall(r"^USER (.+)$", CONTAINERFILE, re.MULTILINE) == ["10001:10001"]
    assert "install --require-hashes --only-binary :all: -r /src/requirements.lock" in CONTAINERFILE
    assert not re.search(r"apt-get|apk |gcc|build-essential", CONTAINERFILE)
    assert 'CMD ["python", "/opt/pipeline/health.py"]' in CONTAINERFILE
    assert {tuple(OURS[name]["healthcheck"]["test"]) for name in PROCESSES} == {tuple(test)}


def test_the_builder_gets_what_it_copies_and_no_more() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", CONTAINERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    ignore = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()

    assert {line[1:] for line in ignore if line.startswith("!")} == sources
    assert ignore.index("*") < min(n for n, line in enumerate(ignore) if line.startswith("!"))
    assert all((PROJECT / source).exists() for source in sources)


@pytest.mark.parametrize("process", NEEDED)
def test_each_unit_has_the_secrets_of_its_process(process: str) -> None:
    of = unit(unit_of(process))
    environment = unit_environment(of)
    loaded = dict(value.split(":", 1) for key, value in of if key == "LoadCredential")
    files = {name.removesuffix("_FILE"): value for name, value in environment.items() if name.endswith("_FILE")}

    assert files == {name: f"%d/{name.lower()}" for name in NEEDED[process] - OPTIONAL}
    assert loaded == {name.lower(): f"/etc/hull-pipedrive/secrets/{name.lower()}" for name in files}
    own = {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH", "PROCESSES"}
    assert {name.removesuffix("_FILE") for name in environment} - own <= names_of_configuration()
    assert (dict(of)["Restart"]) == ("on-failure" if process == "migrate" else "always")
    assert dict(of)["DynamicUser"] == "yes"
    migrated = ("Requires", "hull-pipedrive-migrate.service")
    assert (migrated in of) == (process not in ("migrate", "beat", "flower"))


def test_the_environment_of_the_units_is_known() -> None:
    text = (UNITS / "environment.example").read_text()

    assert set(re.findall(r"^#?([A-Z_]+)=", text, re.MULTILINE)) <= names_of_configuration() - set(programs.SECRETS)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Verify the units, with missing programs replaced by an installed one. Any message of systemd fails."""
    for file in UNITS.rglob("*.*"):
        if file.is_file():
            copy = tmp_path / file.relative_to(UNITS)
            copy.parent.mkdir(exist_ok=True)
            copy.write_text(re.sub(r"/opt/hull-pipedrive/bin/\w+", "/bin/true", file.read_text()))
    names = ["hull-pipedrive.target", *(unit_of(process) for process in NEEDED)]
    environment = {"PATH": os.environ["PATH"], "SYSTEMD_UNIT_PATH": f"{tmp_path}:"}
    done = run(
        ["systemd-analyze", "verify", "--man=no", *(f"./{name}" for name in names)], cwd=tmp_path, env=environment
    )

    assert (done.returncode, done.stderr) == (0, "")


def location(path: str) -> str:
    found = re.search(rf"location (?:= )?{re.escape(path)} \{{(.*?)\}}", NGINX, re.DOTALL)
    assert found, path
    return found[1]


def body_limit(path: str) -> int:
    found = re.search(r"client_max_body_size (\d+)(m?);", location(path))
    assert found
    return int(found[1]) * (1024 * 1024 if found[2] else 1)


def test_the_proxy_hands_its_paths_to_intake() -> None:
    to_intake = set(re.findall(r"location (?:= )?(\S+) \{[^}]*proxy_pass http://hull_pipedrive_intake;", NGINX))

    assert to_intake == set(intake.PATHS)
    assert "http://hull_pipedrive_web" in location("/")
    for name in ("intake", "web"):
        port = option([str(word) for word in SERVICES[name]["command"]], "--port")
        assert f"upstream hull_pipedrive_{name} {{ server 127.0.0.1:{port};" in NGINX


def test_the_proxy_refuses_no_body_that_the_pipeline_takes() -> None:
    assert body_limit("/webhooks/") == 0
    assert body_limit("/smart-notifier") > notifications.MAX_BYTES
    assert body_limit("/batch") == body_limit("/batch-accounts") > batches.MAX_BYTES
    assert body_limit("/") > MAX_PENDING_BYTES


def test_the_proxy_leads_pages_to_https_and_refuses_programs() -> None:
    (pattern,) = re.findall(
        r'listen 80;.*?if \(\$uri ~ "(.+)"\) \{ return 403; \}\n    return 301 https:', NGINX, re.DOTALL
    )

    assert all(re.search(pattern, path) for path in (*intake.PATHS, "/api/v1/me"))
    assert not any(re.search(pattern, path) for path in ("/", "/login", "/c/acme/batches/7", "/auth/callback"))


def test_the_proxy_keeps_addresses_honest_and_secrets_out_of_its_log() -> None:
    (form,) = re.findall(r"^log_format hull_pipedrive '(.+)';$", NGINX, re.MULTILINE)

    assert 'proxy_set_header X-Forwarded-User "";' in NGINX
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in NGINX
    assert (
        SERVICES["intake"]["environment"]["TRUSTED_PROXIES"] == SERVICES["web"]["environment"]["TRUSTED_PROXIES"] == "1"
    )
    assert not re.search(r"\$(request|request_uri|uri|args|query_string|http_\w+)\b", form)
    assert "access_log off;" in location("/webhooks/")
    assert {location(path).strip() for path in ("/metrics", "/readyz")} == {"return 404;"}
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in NGINX


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("nginx"), reason="needs nginx")
def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    write_certificate(tmp_path)
    site = NGINX.replace("/etc/ssl/hull-pipedrive", str(tmp_path)).replace("/var/log/nginx", str(tmp_path))
    site = re.sub(r"listen (\[::\]:)?(80|443)\b", lambda found: f"listen {found[1] or ''}{programs.free_port()}", site)
    folders = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "site.conf").write_text(site)
    main = (
        f"pid {tmp_path}/pid; error_log {tmp_path}/log; events {{}} http {{ {folders} include {tmp_path}/site.conf; }}"
    )
    (tmp_path / "nginx.conf").write_text(main)

    done = run(["nginx", "-t", "-c", str(tmp_path / "nginx.conf")], cwd=tmp_path)

    assert done.returncode == 0, done.stderr


def write_certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pipeline.example.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    )
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "fullchain.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "privkey.pem").write_bytes(private)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("buildah") and IMAGE_BASE), reason="needs a base image: buildah, and IMAGE_BASE names one"
)
def test_the_image_is_built_and_runs_without_rights() -> None:
    """IMAGE_BUILD_OPTIONS  more options of `buildah bud`, such as mounts of certificates and of pip's configuration"""
    tag = "localhost/hull-pipedrive-test:latest"
    built = [
        "-f",
        "deploy/Containerfile",
        "--ignorefile",
        "deploy/Containerfile.dockerignore",
        "--format",
        "docker",
        "-t",
        tag,
    ]
    run(
        ["buildah", "bud", *built, "--build-arg", f"BASE={IMAGE_BASE}", *shlex.split(IMAGE_OPTIONS), "."],
        cwd=PROJECT,
        check=True,
    )
    container = run(["buildah", "from", tag], cwd=PROJECT, check=True).stdout.strip()
    try:
        outputs = [
            run(["buildah", "run", container, "--", *shlex.split(words)], cwd=PROJECT).stdout.strip()
            for words in (
                "pipeline --version",
                "id -u",
                "find /opt/pipeline -writable -not -type l",
                "python -m pip --version",
            )
        ]
    finally:
        run(["buildah", "rm", container], cwd=PROJECT)
        run(["buildah", "rmi", tag], cwd=PROJECT)

    assert outputs == [version("hull-pipedrive"), "10001", "", ""]


def run(
    words: list[str], *, cwd: Path, env: dict[str, str] | None = None, check: bool = False
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, cwd=cwd, env=env, check=check, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def test_the_health_check_imports_nothing_of_ours() -> None:
    """It runs beside every process, once a minute."""
    loaded = run([sys.executable, "-S", "-I", str(DEPLOY / "health.py"), str(os.getpid())], cwd=PROJECT)

    assert (loaded.returncode, loaded.stderr) == (0, "")
