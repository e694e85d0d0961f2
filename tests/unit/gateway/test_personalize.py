"""Personalising a card, cut off at every command, and cards that are not what they seem."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest

from taprail_common import sun
from taprail_gateway.personalize.chip import CardError
from taprail_gateway.personalize.keys import key_set, older_sets
from taprail_gateway.personalize.layout import Layout, Mirror
from taprail_gateway.personalize.session import FACTORY, KeySet, Wanted, personalize
from taprail_gateway.proofs import IssuerKeys
from taprail_hwsim.cards import Ntag424, Ntag424Chip, card_crypto

UID = bytes.fromhex("04DE5F1EACC040")
OTHER_UID = bytes.fromhex("04DE5F1EACC041")
URL = "https://tap.example/t"


def some_keys(version: int, name: str) -> KeySet:
    keys = [hashlib.sha256(f"{name}{number}".encode()).digest()[:16] for number in range(5)]
    return KeySet(version, tuple(keys))


KEYS, OLDER = some_keys(2, "new"), some_keys(1, "old")


def wanted(mirror: Mirror = Mirror.ENCRYPTED, **changes: object) -> Wanted:
    fields: dict[str, object] = {
        "uid": UID,
        "keys": KEYS,
        "layout": Layout.of(URL, mirror),
        "mirror": mirror,
        "old": (FACTORY, OLDER),
    }
    return Wanted(**{**fields, **changes})  # type: ignore[arg-type]  # a test's shorthand


def numbers() -> Callable[[int], bytes]:
    """Numbers that no two calls share, the same in every run."""
    drawn: Iterator[int] = iter(range(1 << 30))
    return lambda size: hashlib.sha256(str(next(drawn)).encode()).digest()[:size]


class PulledError(Exception):
    """The card has left."""


class Bench:
    """Carries the commands to a card, and pulls it before or after one of them."""

    def __init__(self, card: Ntag424Chip) -> None:
        self.card = card
        self.names: list[str] = []

    def run(self, what: Wanted, pull_at: int | None = None, *, done: bool = False) -> int:
        """`pull_at` counts commands; `done`: the card has still worked it off."""
        self.card.power_lost()
        self.names = []
        conversation = personalize(what, numbers())
        try:
            command = next(conversation)
            while True:
                is_last = pull_at == len(self.names)
                if is_last and not done:
                    raise PulledError
                name, answer = self.card.apdu(command)
                self.names.append(name)
                if is_last:
                    raise PulledError
                command = conversation.send(answer)
        except StopIteration as end:
            counter: int = end.value
            return counter


def tap(card: Ntag424Chip) -> str:
    """What a phone reads."""
    card.power_lost()
    for command in ("00A4040007D276000085010100", "00A4000C02E104"):
        assert card.apdu(bytes.fromhex(command))[1] == b"\x90\x00"
    content = card.apdu(bytes.fromhex("00B00000FF"))[1]
    return content[7 : 6 + content[4]].decode()


def assert_pays(card: Ntag424Chip, keys: KeySet = KEYS) -> None:
    """The proof holds by the gateway's own reading."""
    shown = dict(each.split("=") for each in tap(card).partition("?")[2].split("&"))
    if "picc" in shown:
        picc = sun.decrypt_picc_data(keys.keys[1], bytes.fromhex(shown["picc"]))
    else:
        picc = sun.plain_picc_data(shown["uid"], shown["ctr"])
    assert picc.uid == UID
    assert sun.mac_matches(keys.keys[2], picc, bytes.fromhex(shown["mac"]))


def test_a_cards_keys_follow_from_the_issuers_and_its_uid() -> None:
    """AN10922 by the simulator's own hand, with another library."""
    issuer = IssuerKeys(bytes(range(16)), bytes(range(16, 32)))
    own = [
        card_crypto.diversified_key(issuer.sun_master_key, UID + b"\xd2\x76\x00TapRail" + role)
        for role in (b"\x00", b"", b"\x03", b"\x04")
    ]
    assert key_set(issuer, 1, UID).keys == (own[0], issuer.meta_read_key, *own[1:])
    assert own[1] == card_crypto.file_read_key(issuer.sun_master_key, UID)
    older = older_sets({1: issuer, 2: issuer, 3: issuer}, 2, UID)
    assert [keys.version for keys in older] == [0, 1, 3]
    for version in (0, 256):
        with pytest.raises(ValueError, match="one byte"):
            key_set(issuer, version, UID)
    assert issuer.meta_read_key.hex() not in repr(key_set(issuer, 1, UID))


@pytest.mark.parametrize("mirror", list(Mirror))
def test_a_card_fresh_from_its_box_is_written(mirror: Mirror) -> None:
    bench = Bench(Ntag424Chip(UID))
    assert bench.run(wanted(mirror)) == 1
    assert_pays(bench.card)
    # What it costs on the air; a change of this number should be meant.
    assert len(bench.names) == 34
    assert bench.names.count("GetCardUID") == 3


def test_a_finished_card_is_left_as_it_is() -> None:
    bench = Bench(Ntag424Chip(UID))
    bench.run(wanted())
    for _ in range(5):
        tap(bench.card)
    assert bench.run(wanted()) == 7
    assert "ChangeKey" not in bench.names
    assert "ChangeFileSettings" not in bench.names


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("mirror", list(Mirror))
def test_wherever_it_is_cut_off_a_second_run_finishes(mirror: Mirror, done: bool) -> None:
    bench = Bench(Ntag424Chip(UID))
    bench.run(wanted(mirror))
    for pull_at in range(len(bench.names)):
        bench = Bench(Ntag424Chip(UID))
        with pytest.raises(PulledError):
            bench.run(wanted(mirror), pull_at, done=done)
        bench.run(wanted(mirror))
        assert_pays(bench.card)


def test_it_may_be_cut_off_again_and_again() -> None:
    card = Ntag424Chip(UID)
    for pull_at in range(60):
        bench = Bench(card)
        try:
            bench.run(wanted(), pull_at, done=pull_at % 2 == 0)
        except PulledError:
            continue
        break
    else:
        raise AssertionError("it is never finished")
    assert_pays(card)


@pytest.mark.parametrize("done", [False, True])
def test_a_card_of_older_keys_is_renewed_wherever_it_is_cut_off(done: bool) -> None:
    older = wanted(keys=OLDER)
    bench = Bench(Ntag424Chip(UID))
    bench.run(older)
    bench.run(wanted(Mirror.PLAIN))
    for pull_at in range(len(bench.names)):
        bench = Bench(Ntag424Chip(UID))
        bench.run(older)
        with pytest.raises(PulledError):
            bench.run(wanted(Mirror.PLAIN), pull_at, done=done)
        bench.run(wanted(Mirror.PLAIN))
        assert_pays(bench.card)


def test_a_card_that_was_cut_off_may_also_be_given_other_keys() -> None:
    bench = Bench(Ntag424Chip(UID))
    bench.run(wanted(keys=OLDER))
    for pull_at in range(len(bench.names)):
        bench = Bench(Ntag424Chip(UID))
        with pytest.raises(PulledError):
            bench.run(wanted(keys=OLDER, old=(FACTORY,)), pull_at, done=True)
        bench.run(wanted())
        assert_pays(bench.card)


def test_nobody_writes_a_card_any_more_that_is_finished() -> None:
    card = Ntag424Chip(UID)
    Bench(card).run(wanted())
    card.power_lost()
    card.apdu(bytes.fromhex("00A4040007D276000085010100"))
    for command in ("908D000008020000000100000000", "905F0000040200E0EE00"):
        assert card.apdu(bytes.fromhex(command))[1] == b"\x91\xae"
    # And the keys of the factory open none of its five.
    with pytest.raises(CardError, match="never gave it"):
        Bench(card).run(wanted(keys=some_keys(3, "stranger"), old=(FACTORY,)))


def test_a_strangers_card_is_left_alone() -> None:
    card = Ntag424Chip(UID)
    Bench(card).run(wanted(keys=some_keys(7, "stranger"), old=(FACTORY,)))
    before = tap(card).partition("?")[0]
    with pytest.raises(CardError, match="never gave it: use a card fresh"):
        Bench(card).run(wanted())
    assert tap(card).partition("?")[0] == before


def test_a_card_with_one_key_of_a_stranger_says_which() -> None:
    card = Ntag424(UID, bytes(16), bytes(range(16)))
    with pytest.raises(CardError, match="key 2 of the card is none"):
        Bench(card).run(wanted())


def test_tries_by_wrong_keys_never_block_a_card() -> None:
    """Each finished run over a renewed card fails twice at most, and a success forgives ten."""
    bench = Bench(Ntag424Chip(UID))
    for _ in range(60):
        bench.run(wanted())
    assert_pays(bench.card)


def test_another_uid_than_the_reader_saw_is_refused() -> None:
    card = Ntag424Chip(OTHER_UID)
    with pytest.raises(CardError, match="another card has taken the place"):
        Bench(card).run(wanted())
    assert card.file_at(1) == bytes(256)


class _Swapped(Ntag424Chip):
    """Turns into another card after so many commands, without a moment of darkness."""

    def __init__(self, after: int) -> None:
        super().__init__(UID)
        self.other = Ntag424Chip(OTHER_UID)
        self.other.apdu(bytes.fromhex("00A4040007D276000085010100"))
        self._left = after

    def apdu(self, command: bytes) -> tuple[str, bytes]:
        self._left -= 1
        return super().apdu(command) if self._left >= 0 else self.other.apdu(command)


def test_a_card_that_is_swapped_in_the_middle_is_never_taken_for_the_first() -> None:
    for after in range(4, 34):
        card = _Swapped(after)
        with pytest.raises(CardError):
            Bench(card).run(wanted())
        # The other one has all its keys yet: whoever is next may write it.
        Bench(card.other).run(wanted(uid=OTHER_UID, old=(FACTORY,)))


@pytest.mark.parametrize(
    "answer", [b"", b"\x90", b"\x90\x00", b"\x91\x00", b"\x6a\x82", b"\x00" * 300, b"\x91\x9e"]
)
def test_every_bad_answer_is_an_error_and_the_card_lives(answer: bytes) -> None:
    bench = Bench(Ntag424Chip(UID))
    bench.run(wanted())
    for at in range(len(bench.names)):
        card = Ntag424Chip(UID)
        conversation = personalize(wanted(), numbers())
        command = next(conversation)
        for _ in range(at):
            command = conversation.send(card.apdu(command)[1])
        genuine = card.apdu(command)[1]
        if genuine == answer:
            continue
        with pytest.raises(CardError):
            conversation.send(answer)
        Bench(card).run(wanted())
        assert_pays(card)
