"""`pipeline rotate-keys`: encrypt what is stored again, with the newest key."""

from __future__ import annotations

import click

from pipeline.cli.audited import audited
from pipeline.cli.opening import open_database
from pipeline.cli.showing import json_option, say, show
from pipeline.settings import settings
from pipeline.sync.connectors.setup import renew_secrets


@click.command(name="rotate-keys")
@json_option
@audited("secrets.renew")
def rotate_keys() -> None:
    """Encrypt every stored secret again with the first of SECRET_KEYS.

    First put the new key before the old one and restart everything; then run this; then remove the old key.

    \b
    Example:
      SECRET_KEYS=NEW,OLD pipeline rotate-keys
    """
    open_database()
    count = renew_secrets()
    others = len(settings().secret_keys) - 1
    show(
        {"renewed": count, "keys_no_longer_needed": others},
        lambda: say(
            f"{count} secrets are encrypted with the newest key."
            + (f" The other {others} of SECRET_KEYS can be removed once every process has restarted." if others else "")
        ),
    )


COMMANDS: tuple[click.Command, ...] = (rotate_keys,)
