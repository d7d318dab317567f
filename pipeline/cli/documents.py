"""Settings that a hand-written command reads from a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from pipeline.cli.showing import Failed
from pipeline.domain.settings import SettingsRefused

STDIN = "-"


def read_document(file: str) -> dict[str, Any]:
    """Return the JSON object of a file, or of standard input for `-`.

    Raises UsageError when there is no such file or it holds no JSON object.
    """
    try:
        text = sys.stdin.read() if file == STDIN else Path(file).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as error:
        raise click.UsageError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise click.UsageError(f"{file} holds no JSON: {error}") from None
    if not isinstance(document, dict):
        raise click.UsageError(f"{file} holds no JSON object")
    return document


def refused(error: SettingsRefused) -> Failed:
    """Return the refusal, with every mistake on a line of its own."""
    hint = "correct them and try again"
    if any("Pipedrive has no" in mistake for mistake in error.mistakes):
        hint += "; --force takes over fields that Pipedrive does not have (yet)"
    return Failed(str(error), hint)
