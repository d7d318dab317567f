"""The page of jobs: what each is for, how far it is, where its result is, and its buttons."""

from __future__ import annotations

import pytest

from db.audit import latest_entries
from db.session import transaction
from pipeline.operations.cached_answers import forget_all
from tests.integration.console.conftest import ConsoleClient
from tests.integration.operations.test_jobs import compare, plan, send
from tests.system import SyncSystem

PAGE = "/c/acme/jobs"


@pytest.fixture(autouse=True)
def fresh() -> None:
    forget_all()


def test_an_empty_page_explains_what_is_listed(system: SyncSystem, viewer: ConsoleClient) -> None:
    assert system
    page = viewer.text(PAGE)

    assert "No job is running." in page
    assert "No job has run in the last month." in page
    assert f'href="{PAGE}"' in viewer.text("/c/acme/runs")


def test_a_row_shows_name_state_and_result_and_updates_itself(system: SyncSystem, viewer: ConsoleClient) -> None:
    plan(system)
    send(system, segment="<VIPs>")

    page = viewer.text(PAGE)

    assert "2 jobs are running." in page
    assert "Plan 1 by ana" in page
    assert "Users of segment &lt;VIPs&gt;" in page
    assert 'href="/c/acme/plans/1"' in page
    assert 'hx-trigger="every 2s"' in page
    assert "<button" not in page.partition("<main")[2]


def test_buttons_change_the_job_and_are_audited(system: SyncSystem, operator: ConsoleClient) -> None:
    compare(system, None)
    states = []
    for act in ("pause", "resume", "abort"):
        assert f'action="{PAGE}/1/{act}"' in operator.text(PAGE)
        assert operator.post(f"{PAGE}/1/{act}").status_code == 303
        states += [row.state for row in system.rows("SELECT state FROM jobs")]

    assert states == ["paused", "due", "aborted"]
    with transaction() as session:
        found = [(each.action, each.subject) for each in latest_entries(session)]
    assert [each for each in found if each[0].startswith("job.")] == [
        (f"job.{act}", "job 1: Compare all records") for act in ("abort", "resume", "pause")
    ]


def test_a_late_button_changes_nothing(system: SyncSystem, operator: ConsoleClient) -> None:
    compare(system, None)
    system.change_rows("UPDATE jobs SET state = 'done', ended_at = now()")

    assert operator.post(f"{PAGE}/1/abort").status_code == 303
    assert "Nothing was changed: Job 1 is done" in operator.text(PAGE)
    assert operator.post(f"{PAGE}/9/abort").status_code == 404
    assert operator.post(f"{PAGE}/1/explode").status_code == 404


def test_one_that_failed_links_to_its_failure_with_the_next_step(system: SyncSystem, viewer: ConsoleClient) -> None:
    send(system, ids=("a",))
    system.change_rows("UPDATE jobs SET attempts = 8")
    system.run_jobs()

    page = viewer.text(f"{PAGE}?state=failed")

    assert "worker_lost" in page
    assert 'href="/c/acme/failures/1"' in page
    assert "No job matches the filters." in viewer.text(f"{PAGE}?state=paused")


def test_a_plan_page_shows_immediately_that_its_job_is_paused(system: SyncSystem, operator: ConsoleClient) -> None:
    plan(system)
    pages = [operator.text("/c/acme/plans/1")]
    for act in ("pause", "resume"):
        operator.post(f"{PAGE}/1/{act}")
        pages.append(operator.text("/c/acme/plans/1"))

    sentences = ["In progress: 0 of about", "Paused by an operator: 0 of about", "In progress: 0 of about"]
    assert [sentence in page for page, sentence in zip(pages, sentences, strict=True)] == [True] * 3
    assert ['hx-trigger="every 2s"' in page for page in pages] == [True] * 3
