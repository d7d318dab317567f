"""What Celery and other libraries log becomes lines of ours, without personal data or secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery.utils.log import get_multiprocessing_logger

from pipeline import telemetry
from pipeline.sync.stage import StageFailed
from tests.logs import captured_log


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with captured_log() as found:
        yield found


def _raised(error: Exception) -> Any:
    try:
        raise error
    except Exception:  # noqa: BLE001 - what a log record is made from
        return sys.exc_info()


def test_a_failed_task_leaves_a_line_without_the_words_of_its_error(lines: list[Any]) -> None:
    words = "Key (email)=(ada@example.com) already exists, token 5up3r"
    context = {
        "id": "0f9c",
        "name": "control.sweep",
        "exc": words,
        "traceback": words,
        "args": words,
        "description": "raised",
    }
    logging.getLogger("celery.app.trace").error(
        "Task %(name)s[%(id)s] %(description)s: %(exc)s", context, exc_info=_raised(ValueError(words))
    )

    (line,) = lines
    assert line["event"] == "task.error"
    assert (line["task"], line["task_id"], line["error"]) == ("control.sweep", "0f9c", "ValueError")
    assert line["message"] == "Task control.sweep[0f9c] raised: …"
    assert line["at"].startswith("test_library_log.py:")
    assert "ada" not in repr(line)
    assert "5up3r" not in repr(line)


def test_a_process_that_was_killed_leaves_a_line(lines: list[Any]) -> None:
    telemetry.install(get_multiprocessing_logger())
    get_multiprocessing_logger().error(
        "Process %r pid:%r exited with %r", "ForkPoolWorker-1", 4711, "signal 9 (SIGKILL)"
    )

    assert [line["message"] for line in lines] == ["Process ForkPoolWorker-1 pid:4711 exited with signal 9 (SIGKILL)"]
    assert lines[0]["log_level"] == "error"


def test_a_failure_that_is_written_down_already_is_not_repeated(lines: list[Any]) -> None:
    logging.getLogger("celery.app.trace").error("Task failed", exc_info=_raised(StageFailed("gone: batch 1")))

    assert not lines


@pytest.mark.parametrize(
    ("logger", "text", "values", "shown"),
    [
        ("kombu", "no %s: %s", ("redis://:s3cret@host/1", OSError("s3cret")), "no redis://host/1: OSError"),
        ("celery.beat", "Message Error: %s\n%s", (KeyError("Ada"), "Traceback\nAda"), "Message Error: KeyError …"),
        ("somelib", "saved %s as %d", ("Ada Lovelace", 7), "saved … as 7"),
        ("somelib", "wrote to ada@example.com", (), "wrote to …"),
        ("somelib", "never retrieved\nfuture: ValueError('Ada')", (), "never retrieved"),
        ("celery", "100%% of %s", ("work",), "100% of work"),
    ],
)  # fmt: skip
def test_texts_keep_names_and_numbers_only(lines: list[Any], logger: str, text: str, values: Any, shown: str) -> None:
    logging.getLogger(logger).warning(text, *values)

    assert [line["message"] for line in lines] == [shown]


def test_a_long_text_is_cut_before_it_is_searched(lines: list[Any]) -> None:
    """Searching all of it for addresses takes the square of its length: 27 seconds for 80 KB."""
    logging.getLogger("somelib").warning("a" * 1_000_000)
    logging.getLogger("kombu").warning("%s" * 5_000, *["a" * 300] * 5_000)

    assert [len(line["message"]) for line in lines] == [300, 300]
