"""Secure messaging with an NTAG 424 DNA, by the vectors of NXP AN12196 rev. 2.0."""

from __future__ import annotations

import pytest

from taprail_common.errors import InputError
from taprail_gateway.personalize import chip
from taprail_gateway.personalize.chip import CardError, Session
from taprail_gateway.personalize.layout import Layout, Mirror

ZERO = bytes(16)
# Section 5.6 table 14: AuthenticateEV2First with key 0.
RND_A = bytes.fromhex("13C5DB8A5930439FC3DEF9A4C675360F")
RND_B = bytes.fromhex("B9E2FC789B64BF237CCCAA20EC7E6E48")
CHALLENGE = bytes.fromhex("A04C124213C186F22399D33AC2A3021591AF")
PART_2 = "90AF00002035C3E05A752E0144BAC0DE51C1F22C56B34408A23D8AEA266CAB947EA8E0118D00"
PROOF = bytes.fromhex("3FA64DB5446D1F34CD6EA311167F5E4985B89690C04A05F17FA7AB2F081206639100")
FIRST_KEYS = ("1309C877509E5A215007FF0ED19CA564", "4C6626F5E72EA694202139295C7A7FC7")
# Section 5.14 table 23: the session of the ChangeKey examples.
LATER_KEYS = ("4CF3CB41A22583A61E89B158D252FC53", "5529860B2FC5FB6154B7F28361D30BF9")


def session(keys: tuple[str, str], transaction: str, counter: int) -> Session:
    enc, mac = map(bytes.fromhex, keys)
    return Session(enc, mac, bytes.fromhex(transaction), counter)


def authentication(*answers: bytes) -> tuple[list[bytes], Session | None]:
    """Replay answers; what was sent, and what came of it."""
    conversation = chip.authenticate(0, ZERO, lambda _size: RND_A)
    sent = [next(conversation)]
    try:
        for answer in answers:
            sent += [conversation.send(answer)]
    except StopIteration as done:
        return sent, done.value
    raise AssertionError("it asks for more")


def test_an_authentication_is_that_of_table_14() -> None:
    sent, opened = authentication(CHALLENGE, PROOF)
    assert [each.hex().upper() for each in sent] == ["9071000002000000", PART_2]
    assert opened is not None
    expected = session(FIRST_KEYS, "9D00C4DF", 0)
    assert vars(opened) == vars(expected)
    assert FIRST_KEYS[0].lower() not in repr(opened).lower()


def test_file_settings_are_set_as_in_table_18() -> None:
    settings = bytes.fromhex("4000E0C1F121200000430000430000")
    command = session(FIRST_KEYS, "9D00C4DF", 1).full(chip.CHANGE_FILE_SETTINGS, b"\x02", settings)
    assert command.hex().upper() == "905F0000190261B6D97903566E84C3AE5274467E89EAD799B7C1A0EF7A0400"


def test_the_answers_mac_is_that_of_table_18() -> None:
    opened = session(FIRST_KEYS, "9D00C4DF", 1)
    assert opened.opened("", bytes.fromhex("57BFF87B1241E93D9100")) == b""
    with pytest.raises(CardError, match="not by the card"):
        session(FIRST_KEYS, "9D00C4DF", 1).opened("", bytes.fromhex("57BFF87B1241E93C9100"))


def test_another_key_is_changed_as_in_table_25() -> None:
    new = bytes.fromhex("F3847D627727ED3BC9C4CC050489B966")
    data = chip.new_key_data(2, new, 1, ZERO)
    assert data.hex().upper() == "F3847D627727ED3BC9C4CC050489B96601789DFADC"
    opened = session(LATER_KEYS, "7614281A", 2)
    assert opened.full(chip.CHANGE_KEY, b"\x02", data).hex().upper() == (
        "90C4000029022CF362B7BF4311FF3BE1DAA295E8C68DE09050560D19B9E16C2393AE9CD1FA"
        "C75D0CE20BCD1D06E600"
    )
    assert opened.opened("", bytes.fromhex("203BB55D1089D5879100")) == b""


def test_the_key_of_the_session_is_changed_as_in_table_26() -> None:
    data = chip.new_key_data(0, bytes.fromhex("5004BF991F408672B1EF00F08F9E8647"), 1, ZERO)
    command = session(LATER_KEYS, "7614281A", 3).full(chip.CHANGE_KEY, b"\x00", data)
    assert command.hex().upper() == (
        "90C400002900C0EB4DEEFEDDF0B513A03A95A75491818580503190D4D05053FF75668A01D6FD"
        "A6610234BDED643200"
    )


def test_a_wrong_key_gives_no_session() -> None:
    assert authentication(CHALLENGE, bytes.fromhex("91AE"))[1] is None


@pytest.mark.parametrize(
    "answers",
    [
        (b"",),
        (bytes.fromhex("6700"),),
        (bytes.fromhex("91AE"),),
        (CHALLENGE[1:],),
        (b"\x00" + CHALLENGE,),
        (CHALLENGE[:-2] + b"\x91\x00",),
        (CHALLENGE, b""),
        (CHALLENGE, PROOF[1:]),
        (CHALLENGE, b"\x00" + PROOF),
        (CHALLENGE, PROOF[:-2] + b"\x91\xaf"),
        (CHALLENGE, b"\x00" + PROOF[1:]),
        (CHALLENGE, PROOF[:20] + b"\xff" + PROOF[21:]),
        (b"\x91\xad",) * 100,
    ],
)
def test_what_is_no_authentication_is_refused(answers: tuple[bytes, ...]) -> None:
    with pytest.raises(CardError):
        authentication(*answers)


def test_a_card_that_wants_a_pause_is_asked_again() -> None:
    sent, opened = authentication(b"\x91\xad", b"\x91\xad", CHALLENGE, PROOF)
    assert opened is not None
    assert len(sent) == 4


@pytest.mark.parametrize("answer", ["", "9100", "00" * 7 + "9100", "919E", "6982", "00" * 40])
def test_an_answer_without_its_mac_is_refused(answer: str) -> None:
    for check in (Session.opened, Session.decrypted):
        with pytest.raises(CardError):
            check(session(FIRST_KEYS, "9D00C4DF", 1), "asking", bytes.fromhex(answer))


def test_the_layout_of_an_encrypted_mirror() -> None:
    layout = Layout.of("https://tap.example/t", Mirror.ENCRYPTED)
    assert layout.file[7:].decode() == f"tap.example/t?picc={'0' * 32}&mac={'0' * 16}"
    assert layout.file[:7].hex() == "004dd1014955" + "04"
    picc, mac = layout.mirrored
    assert (picc, mac) == (range(26, 58), range(63, 79))
    assert layout.settings.hex() == "4000e0c1ff12" + "1a0000" + "3f0000" * 2


def test_the_layout_of_a_plain_mirror() -> None:
    layout = Layout.of("https://tap.example/t", Mirror.PLAIN)
    assert layout.file[7:].decode() == f"tap.example/t?uid={'0' * 14}&ctr=000000&mac={'0' * 16}"
    assert layout.settings.hex() == "4000e0c1ffe2" + "190000" + "2c0000" + "370000" * 2


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://tap.example/t",
        "https://",
        "https://tap.example/t?x=1",
        "https://tap.example/t#x",
        "https://tap.example/ü",
        "https://tap.example/t\n",
        "https://tap.example/" + "t" * 101,
    ],
)
def test_a_url_that_will_not_do_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="url"):
        Layout.of(url, Mirror.ENCRYPTED)


def test_the_longest_url_fits_into_one_frame() -> None:
    for mirror in Mirror:
        layout = Layout.of("https://tap.example/" + "t" * 100, mirror)
        assert len(layout.file) <= 248 - 7
