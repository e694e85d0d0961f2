"""How tests hold the simulated reader: nfcpy's real driver on its port, and ready cards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import nfc
import nfc.clf
import nfc.clf.pn532
import nfc.clf.transport

from taprail_hwsim.cards import Ntag424
from taprail_hwsim.cards.card_crypto import file_read_key

UID = bytes.fromhex("04C0FFEE123456")
MASTER_KEY = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
META_READ_KEY = bytes.fromhex("0F1E2D3C4B5A69788796A5B4C3D2E1F0")
NDEF_APPLICATION = bytes.fromhex("D2760000850101")
NDEF_FILE = b"\xe1\x04"
SUN_READ_BYTES = 128  # more than a SUN URL needs, and one frame of a 128-byte card


def sun_card(counter: int = 0, **options: Any) -> Ntag424:
    """A genuine card with keys that differ from zero; `options` go to the constructor."""
    key = file_read_key(MASTER_KEY, UID)
    return Ntag424(UID, META_READ_KEY, key, counter=counter, **options)


def open_reader(path: str) -> nfc.ContactlessFrontend:
    """nfcpy's frontend on any port path; its own `open` takes only names listed in /dev."""
    frontend = nfc.ContactlessFrontend()
    frontend.device = nfc.clf.pn532.init(nfc.clf.transport.TTY(path))
    frontend.device._path = path
    return frontend


@contextmanager
def reader(path: str) -> Iterator[nfc.ContactlessFrontend]:
    """An open frontend, closed at the end."""
    frontend = open_reader(path)
    try:
        yield frontend
    finally:
        frontend.close()


def read_sun(tag: Any) -> bytes:
    """The three commands of a SUN read; the NDEF message."""
    tag.send_apdu(0x00, 0xA4, 0x04, 0x00, NDEF_APPLICATION)
    tag.send_apdu(0x00, 0xA4, 0x00, 0x0C, NDEF_FILE)
    content = bytes(tag.send_apdu(0x00, 0xB0, 0x00, 0x00, mrl=SUN_READ_BYTES))
    return content[2 : 2 + int.from_bytes(content[:2], "big")]
