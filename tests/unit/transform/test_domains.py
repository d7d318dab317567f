from __future__ import annotations

import json

import pytest

from pipeline.transform.identifiers import domain_of_name, registrable_domain
from tests.data import ORGANIZATIONS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme.com", "acme.com"),
        ("https://www.Acme.co.uk:8080/about?x=1#y", "acme.co.uk"),
        ("http://user:secret@shop.acme.com/", "acme.com"),
        ("//acme.com", "acme.com"),
        ("acme.com.", "acme.com"),
        ("info@acme.com", "acme.com"),
        ("mailto:info@acme.com", "acme.com"),
        ("acme.com, beta.com", "acme.com"),
        ("  acme.com ", "acme.com"),
        ("shop.github.io", "shop.github.io"),
        ("www.acme.test", "acme.test"),
        ("Müller.de", "xn--mller-kva.de"),
        ("xn--mller-kva.de", "xn--mller-kva.de"),
        ("straße.de", "xn--strae-oqa.de"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("例え。jp", "xn--r8jz45g.jp"),
        ("acme", None),
        ("co.uk", None),
        ("github.io", None),
        ("192.168.1.1", None),
        ("http://[::1]/", None),
        ("http://2130706433/", None),
        ("n/a", None),
        ("N.A.", None),
        ("-", None),
        ("", None),
        ("acme.localdomain", None),
        ("a_b.com", None),
        ("-acme.com", None),
        ("acme.com:port", None),
        ("half\ud83d.com", None),
        ("a\0.com", None),
        ("." * 50, None),
        (f"{'a' * 64}.com", None),
        ("a." * 200 + "com", None),
        ("x" * 1_000_000, None),
    ],
)
def test_a_web_site_is_reduced_to_its_registrable_domain(text: str, expected: str | None) -> None:
    assert registrable_domain(text) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("acme.com", "acme.com"),
        ("WWW.Acme.Com", "acme.com"),
        ("Acme", None),
        ("Acme Inc.", None),
        ("Node.js", None),
        ("St. Mary", None),
        ("acme.com / beta.com", None),
        ("info@acme.com", None),
        ("https://acme.com", None),
        ("", None),
    ],
)
def test_a_name_is_a_domain_only_when_it_is_a_host_name(name: str, expected: str | None) -> None:
    assert domain_of_name(name) == expected


def test_the_web_pages_of_universities_give_the_domains_their_list_names() -> None:
    rows = [json.loads(line) for line in ORGANIZATIONS.read_text(encoding="utf-8").splitlines()]

    found = [(registrable_domain(row["web_pages"][0]), {registrable_domain(d) for d in row["domains"]}) for row in rows]

    agreeing = sum(domain is not None and domain in listed for domain, listed in found)
    assert agreeing / len(rows) > 0.97
