"""The simulated Keycard, a bank card, and a card that turns into another."""

from __future__ import annotations

import pytest
from eth_account import Account
from eth_keys.datatypes import PublicKey, Signature

from taprail_hwsim.cards import BankCard, KeycardCash, Quirks, SwappedCard
from taprail_hwsim.cards.keycard import ORDER
from tests.support.hwsim_fixtures import sun_card
from tests.unit.hwsim.test_cards import Host

SECRET = bytes(range(1, 33))
UID = bytes.fromhex("04112233445566")
DIGEST = bytes(range(32))
SELECT_CASH = bytes.fromhex("00A4040009A0000008040001030100")
SELECT_BANK = bytes.fromhex("00A404000E325041592E5359532E444446303100")
SIGN = bytes.fromhex("80C0000020") + DIGEST + b"\0"


def keycard(quirks: Quirks | None = None) -> KeycardCash:
    return KeycardCash(UID, SECRET, quirks or Quirks())


def numbers(answer: bytes) -> tuple[int, int]:
    """r and s of a signature's answer, by their places."""
    der = answer[3 + 2 + 65 : -2]
    assert der[0] == 0x30
    assert der[1] == len(der) - 2
    r_bytes = der[3]
    assert der[2] == der[4 + r_bytes] == 2
    return (
        int.from_bytes(der[4 : 4 + r_bytes], "big"),
        int.from_bytes(der[6 + r_bytes :], "big"),
    )


def test_it_tells_its_key_when_it_is_selected() -> None:
    card = keycard()
    info = Host(card).apdu(SELECT_CASH)
    assert info[:4] == bytes([0xA4, len(info) - 4, 0x80, 65])
    assert info[4:69] == card.public_key
    assert info[-2:] == b"\x90\x00"
    assert card.address == Account.from_key(SECRET).address.lower()


@pytest.mark.parametrize("quirks", [Quirks(), Quirks(high_s=True), Quirks(padded=True)])
def test_it_signs_the_digest_that_it_is_given(quirks: Quirks) -> None:
    card = keycard(quirks)
    host = Host(card)
    host.apdu(SELECT_CASH)
    answer = host.apdu(SIGN)
    assert answer[:5] == bytes([0xA0, 0x81, len(answer) - 5, 0x80, 65])
    assert answer[5:70] == card.public_key
    r, s = numbers(answer)
    assert (s > ORDER // 2) == quirks.high_s
    recovered = {Signature(vrs=(v, r, s)).recover_public_key_from_msg_hash(DIGEST) for v in (0, 1)}
    assert PublicKey(card.public_key[1:]) in recovered
    assert card.digests == [DIGEST]


@pytest.mark.parametrize(
    ("quirks", "status"),
    [
        (Quirks(select_status=0x6A82), "6A82"),
        (Quirks(select_status=0x6985), "6985"),
    ],
)
def test_it_refuses_to_be_selected(quirks: Quirks, status: str) -> None:
    assert Host(keycard(quirks)).apdu(SELECT_CASH) == bytes.fromhex(status)


def test_it_signs_nothing_before_it_is_selected() -> None:
    assert Host(keycard()).apdu(SIGN) == bytes.fromhex("6D00")
    host = Host(keycard())
    host.apdu(SELECT_CASH)
    host.card.power_lost()
    assert Host(host.card).apdu(SIGN) == bytes.fromhex("6D00")


def test_it_signs_32_bytes_and_nothing_else() -> None:
    host = Host(keycard())
    host.apdu(SELECT_CASH)
    assert host.apdu(bytes.fromhex("80C000001F") + DIGEST[:31]) == bytes.fromhex("6F00")
    assert host.apdu(bytes.fromhex("80C0000020") + DIGEST[:31]) == bytes.fromhex("6700")


def test_a_mute_card_leaves_the_reader_waiting() -> None:
    card = keycard(Quirks(mute=frozenset({"SIGN"})))
    host = Host(card)
    host.apdu(SELECT_CASH)
    assert card.receive(bytes([0x02 | host.number]) + SIGN) is None


def test_a_bank_card_knows_the_bank_directory_alone() -> None:
    host = Host(BankCard(UID[:4]))
    assert host.apdu(SELECT_CASH) == bytes.fromhex("6A82")
    assert host.apdu(SELECT_BANK)[-2:] == b"\x90\x00"


def test_a_swapped_card_falls_silent_and_comes_back_as_another() -> None:
    first, second = keycard(), sun_card()
    card = SwappedCard(first, second, after_apdus=1)
    host = Host(card)
    host.apdu(SELECT_CASH)
    assert card.receive(bytes([0x02 | host.number]) + SIGN) is None
    assert card.uid == first.uid
    card.power_lost()
    assert card.uid == second.uid
    assert Host(card).apdu(SELECT_CASH) == bytes.fromhex("6A82")
