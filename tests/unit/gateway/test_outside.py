"""Addresses that a gateway must never connect to for a stranger, in every form that is known."""

import pytest

from taprail_gateway.callbacks.outside import AddressError, check_url, is_public

REFUSED = [
    # not public, plainly
    *("https://127.0.0.1/", "https://127.1.2.3/", "https://10.0.0.1/", "https://172.16.0.1/"),
    *("https://192.168.1.1/", "https://169.254.169.254/latest/meta-data/", "https://0.0.0.0/"),
    *("https://100.64.0.1/", "https://198.18.0.1/", "https://192.0.0.8/", "https://192.0.2.1/"),
    *("https://198.51.100.7/", "https://203.0.113.9/", "https://224.0.0.1/", "https://240.0.0.1/"),
    *("https://255.255.255.255/", "https://192.88.99.1/"),
    # other ways to write 127.0.0.1 and its like
    *("https://2130706433/", "https://0x7f000001/", "https://0x7f.0.0.1/", "https://0177.0.0.1/"),
    *("https://017700000001/", "https://127.1/", "https://127.0.1/", "https://0/"),
    *("https://127.0.0.1./", "https://3232235777/", "https://0xa9fea9fe/", "https://10.1/"),
    # IPv6, and IPv4 within it
    *("https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fc00::1]/"),
    *(
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[fec0::1]/",
        "https://[2001:db8::1]/",
    ),
    *("https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/", "https://[::127.0.0.1]/"),
    *("https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::a00:1]/", "https://[2002:7f00:1::]/"),
    *(
        "https://[2001:0:7f00:1::]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fe80::1%25eth0]/",
    ),
    # names
    *("https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://a.localhost/"),
    *("https://printer.local/", "https://metadata.google.internal/", "https://router.home.arpa/"),
    *("https://gateway/", "https://db:5432/"),
    # schemes, users, fragments, and what only looks like one host
    *("http://example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com/"),
    *("https://user@example.com/", "https://user:secret@example.com/", "https://example.com/#a"),
    *("https://example.com\\@127.0.0.1/", "https://127.0.0.1\\.example.com/", "//example.com/"),
    *("https:///etc", "https://", "example.com", "", "https://exa mple.com/", "https://ex.com/\n"),
    *("https://example.com:0/", "https://example.com:99999/", "https://①②⑦.⓪.⓪.①/", "javascript:1"),
    "https://example.com/" + "a" * 500,
]


@pytest.mark.parametrize("url", REFUSED)
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
