"""Addresses that a gateway must never connect to for a stranger, in every form that is known."""

from __future__ import annotations

from typing import Final

BY_TEXT: Final = (
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
    *("https://[fd00:ec2::254]/", "https://[ff02::1]/", "https://[fec0::1]/"),
    *("https://[2001:db8::1]/", "https://[::ffff:127.0.0.1]/", "https://[::ffff:7f00:1]/"),
    *("https://[::127.0.0.1]/", "https://[64:ff9b::7f00:1]/", "https://[64:ff9b:1::a00:1]/"),
    *("https://[2002:7f00:1::]/", "https://[2001:0:7f00:1::]/", "https://[::ffff:0:127.0.0.1]/"),
    *("https://[::ffff:169.254.169.254]/", "https://[fe80::1%25eth0]/"),
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
)
"""Refused by what they look like."""

BY_NAME: Final = (
    *(["127.0.0.1"], ["::1"], ["10.1.2.3"], ["169.254.169.254"], ["fd00:ec2::254"], ["0.1.2.3"]),
    *(["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"], ["2002:7f00:1::"], ["fe80::1%lo"], ["::"]),
    # One that is hidden among public ones, wherever it stands.
    *(["8.8.8.8", "127.0.0.1"], ["192.168.0.1", "8.8.8.8"], ["2606:4700::1111", "::1", "8.8.8.8"]),
)
"""Addresses that a name of the public internet may be made to stand for."""
