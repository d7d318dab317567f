"""How a process of ours begins: read the settings, have the servers running, point the database at them."""

from __future__ import annotations

from db.session import use_database
from pipeline import embedded, telemetry
from pipeline.embedded import EmbeddedError
from pipeline.settings import Settings, SettingsError, settings, settings_to_watch, use


def begin() -> Settings:
    """Make this process ready for work; what is not named by the environment is embedded and started. Idempotent."""
    chosen = embedded.complete(settings())
    use(chosen)
    telemetry.configure(chosen.log_level, chosen.log_format)
    use_database(chosen.database_url or "")
    return chosen


def begin_or_exit() -> Settings:
    """Do what `begin` does, for programs that are not ours (Celery, Granian).

    Raises: SystemExit with a message for people, where those programs would print a traceback.
    """
    try:
        return begin()
    except (SettingsError, EmbeddedError) as error:
        raise SystemExit(str(error)) from None


def begin_watching() -> bool:
    """Make a process ready that speaks to the broker alone, without database and keys; False if no broker is named.

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
