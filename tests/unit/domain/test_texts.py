"""What looks the same is the same: one spelling for e-mails, ids and hosts."""

from __future__ import annotations

import pytest

from pipeline.domain.texts import ascii_host, email_spelling, plain, shown_host

ONE_PERSON = [
    "ada@example.com",
    "  Ada@Example.COM ",
    "ada\u200b@example.com",
    "\ufeffada@example.com",
    "a\u00adda@example.com",
    "\u202aada@example.com\u202c",
    "ada\u2060@exam\u200dple.com",
    "\uff41\uff44\uff41\uff20\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45\uff0e\uff43\uff4f\uff4d",
    "ada@example\u3002com",
    "\u00a0ada@example.com\u00a0",
]


@pytest.mark.parametrize("written", ONE_PERSON)
def test_an_address_has_one_spelling(written: str) -> None:
    assert email_spelling(written) == "ada@example.com"


@pytest.mark.parametrize(
    "written", ["ada@m\u00fcnchen.de", "ADA@MU\u0308NCHEN.DE", "ada@xn--mnchen-3ya.de", "ada@m\u00fcn\u200bchen.de"]
)
def test_an_international_host_has_one_spelling(written: str) -> None:
    assert email_spelling(written) == "ada@xn--mnchen-3ya.de"


def test_composed_and_decomposed_letters_are_one() -> None:
    assert (
        email_spelling("jos\u00e9@example.com") == email_spelling("jose\u0301@example.com") == "jos\u00e9@example.com"
    )


def test_an_external_id_keeps_its_case_and_loses_invisible_characters() -> None:
    assert plain("\u200bC\u00ad-9\uff19 ") == "C-99"
    assert plain("c-99") != plain("C-99")


def test_a_lost_character_makes_two_values_differ() -> None:
    """A replacement character is visible, and replaces an unknown letter."""
    assert plain("M\ufffdller-1") != plain("Mller-1")
    assert email_spelling("j\ufffdrg@example.com") != email_spelling("jrg@example.com")


def test_what_is_spelled_once_stays_so() -> None:
    for written in (
        *ONE_PERSON,
        "ada@m\u00fcnchen.de",
        "ada@stra\u00dfe.de",
        "\u0130@example.com",
        "\u1e9e@example.com",
    ):
        once = email_spelling(written)
        assert email_spelling(once) == once


def test_a_host_is_shown_as_people_write_it() -> None:
    assert shown_host("xn--mnchen-3ya.de") == "m\u00fcnchen.de"
    assert shown_host("example.com") == "example.com"
    assert ascii_host(shown_host("xn--strae-oqa.de")) == "xn--strae-oqa.de"
