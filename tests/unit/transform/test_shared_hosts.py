"""Shared hosts identify no Account; a registrable domain does, also below a host with public subdomains."""

from __future__ import annotations

import re

import pytest

from pipeline.errors import Rejected
from pipeline.transform.identifiers import domain_claim, registrable_domain, shared_hosts

PAGES = [
    "https://sites.google.com/view/acme",
    "https://acme.business.site",
    "https://www.google.com/maps/place/acme",
    "https://goo.gl/maps/abc",
    "https://github.com/acme",
    "https://gitlab.com/acme",
    "https://www.etsy.com/shop/acme",
    "https://www.trustpilot.com/review/acme.com",
    "https://www.yelp.com/biz/acme",
    "https://acme.wordpress.com",
    "https://acme.squarespace.com",
    "https://acme.weebly.com",
    "https://linktr.ee/acme",
    "https://www.linkedin.com/company/acme",
    "https://acme.jimdosite.com",
    "acme@gmail.com",
]


@pytest.mark.parametrize("website", PAGES)
def test_a_page_on_a_shared_host_is_no_identity(website: str) -> None:
    with pytest.raises(Rejected, match="shared_domain"):
        domain_claim(website)


@pytest.mark.parametrize("website", ["acme.github.io", "acme.myshopify.com", "acme.blogspot.com", "acme.wixsite.com"])
def test_below_a_private_suffix_everybody_has_a_domain(website: str) -> None:
    assert domain_claim(f"https://{website}/about") == website


@pytest.mark.parametrize("website", ["https://github.io", "https://blogspot.com/acme", "myshopify.com"])
def test_a_private_suffix_itself_is_shared(website: str) -> None:
    with pytest.raises(Rejected, match="shared_domain"):
        domain_claim(website)


def test_every_host_of_the_list_can_be_met() -> None:
    """A host that is no registrable domain would never be compared with one."""
    hosts = shared_hosts()
    assert len(hosts) > 700
    assert all(re.fullmatch(r"[a-z0-9.-]+", host) for host in hosts)
    assert {host for host in hosts if registrable_domain(host) not in (host, None)} == set()
