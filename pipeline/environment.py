"""Start a process: read the settings, have the servers running, and configure the database and the log."""

from __future__ import annotations

from db.session import use_database
from pipeline import telemetry
from pipeline.local import servers
from pipeline.local.errors import EmbeddedError
from pipeline.settings import Settings, SettingsError, settings, settings_to_watch, use


def begin(*, shares: bool = False) -> Settings:
    """Make this process ready for work; servers that the environment does not name are embedded ones. Idempotent.

    shares  whether other processes may use the embedded servers if this one must run them
    Raises: SettingsError, EmbeddedError.
    """
    return begin_with(servers.complete(settings(), shares=shares))


def begin_with(chosen: Settings) -> Settings:
    """Prepare this process with these settings; their servers must answer."""
    use(chosen)
    telemetry.configure(chosen.log_level, chosen.log_format)
    use_database(chosen.database_url or "")
    return chosen


def begin_or_exit() -> Settings:
    """Do what `begin` does, for programs that are not ours (Celery, Granian).

    Raises: SystemExit with a message for people, where those programs would print a traceback.
    """
    try:
        return begin(shares=True)  # manually started workers, beat and web are long-lived and share servers
    except (SettingsError, EmbeddedError) as error:
        raise SystemExit(str(error)) from None


def begin_watching() -> bool:
    """Prepare a process that uses only the broker, without database and keys; return False if no broker is named.

    Raises: SystemExit with a message for people.
    """
    try:
        chosen = settings_to_watch()
    except SettingsError as error:
        raise SystemExit(str(error)) from None
    if chosen.broker_url is None:
        return False
    use(chosen)
    telemetry.configure(chosen.log_level, chosen.log_format)
    return True
