"""Addresses that a gateway must never connect to for a stranger, in every form that is known."""

import pytest

from taprail_gateway.callbacks.outside import AddressError, check_url, is_public
from tests.support.ssrf_forms import BY_TEXT


@pytest.mark.parametrize("url", BY_TEXT)
def test_what_is_not_public_is_refused_by_its_text(url: str) -> None:
    with pytest.raises(AddressError, match=r"^url: "):
        check_url("url", url)


@pytest.mark.parametrize(
    "url",
    [
        *("https://example.com/hooks?a=1", "https://example.com:8443/", "https://1.1.1.1/"),
        *("https://[2606:4700:4700::1111]/", "https://xn--bcher-kva.example/", "https://a-b.co/x"),
    ],
)
def test_public_addresses_are_taken(url: str) -> None:
    assert str(check_url("url", url)) == url


def test_a_host_that_is_allowed_by_name_may_be_anywhere() -> None:
    allowed = {"till.local", "127.0.0.1"}
    assert check_url("url", "http://till.local:8080/x", allowed).port == 8080
    assert check_url("url", "http://127.0.0.1/", allowed).host == "127.0.0.1"
    for url in ("ftp://till.local/", "http://user@till.local/", "http://127.0.0.2/"):
        with pytest.raises(AddressError):
            check_url("url", url, allowed)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"])
def test_public_ip_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", ["fe80::1%eth0", "::ffff:10.0.0.1", "nonsense", ""])
def test_other_ip_addresses(address: str) -> None:
    assert not is_public(address)
