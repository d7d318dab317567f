"""Each process of `pipeline up` is given the secrets that it needs, and no other one that its parent has."""

from __future__ import annotations

import pytest

from pipeline.local.programs import SECRETS, SandboxPlace, pipeline_programs, sandbox_program
from pipeline.settings import Settings

KEY = "cGlwZWxpbmUtdGVzdHMtb25seS0wMTIzNDU2Nzg5QUI="
GIVEN = {
    "DATA_DIR": "/srv/pipeline",
    "DATABASE_URL": "postgresql://ada:canary@db.example/pipeline",
    "REDIS_URL": "redis://:canary@redis.example/0",
    "BROKER_URL": "redis://:canary@redis.example/1",
    "SECRET_KEYS": KEY,
    "PIPEDRIVE_CLIENT_ID": "id",
    "PIPEDRIVE_CLIENT_SECRET": "canary",
    "ALERT_WEBHOOK_URL": "https://hooks.example/canary",
    "ALERT_EMAIL_TO": "ana@acme.example",
    "SMTP_URL": "smtps://pipeline@mail.example",
    "SMTP_PASSWORD": "canary",
    "FLOWER_BASIC_AUTH": "ada:canary",
    "METRICS_TOKEN": "canary-canary-canary",
}
WORK = {"DATABASE_URL", "REDIS_URL", "BROKER_URL", "SECRET_KEYS", "PIPEDRIVE_CLIENT_SECRET"}
NEEDED = {
    "sandbox": set[str](),
    "beat": {"BROKER_URL"},
    "flower": {"BROKER_URL", "FLOWER_BASIC_AUTH"},
    "intake": WORK | {"METRICS_TOKEN"},
    "live": WORK,
    "bulk": WORK,
    "control": WORK | {"ALERT_WEBHOOK_URL", "SMTP_PASSWORD"},
    "web": WORK | {"ALERT_WEBHOOK_URL", "SMTP_PASSWORD", "FLOWER_BASIC_AUTH", "METRICS_TOKEN"},
}


@pytest.mark.parametrize("inherited", [GIVEN, {f"{name}_FILE": f"/run/secrets/{name}" for name in GIVEN}])
def test_each_process_has_what_it_needs(inherited: dict[str, str]) -> None:
    """The same for a value in a file: a process that does not need it does not get the file's name."""
    chosen = Settings.from_env(GIVEN)
    place = SandboxPlace(pipedrive_port=1, hull_port=2, sizes={})
    started = [sandbox_program(chosen, place), *pipeline_programs(chosen, host="127.0.0.1", flower_login="ada:canary")]
    found = {}
    for program in started:
        environment = {name: value for name, value in {**inherited, **program.environment}.items() if value is not None}
        found[program.name] = {name for name in SECRETS if name in environment or f"{name}_FILE" in environment}

    assert found == NEEDED


def test_each_process_can_start_with_what_it_has() -> None:
    """The app's id without its secret once ended beat and Flower at every start."""
    for program in pipeline_programs(Settings.from_env(GIVEN), host="127.0.0.1", flower_login="ada:canary"):
        environment = {name: value for name, value in program.environment.items() if value is not None}
        found = Settings.from_env(environment, needs_keys=program.name not in {"beat", "flower"})

        assert found.pipedrive_client_id == "id", program.name


def test_every_secret_of_the_environment_is_known() -> None:
    """Each value that Settings hides in its repr is a secret, and is in the list."""
    hidden = {name.upper() for name, field in Settings.model_fields.items() if not field.repr}

    assert hidden == set(SECRETS)
