"""Personalising one card: what is done in which order, so that it can be cut off anywhere.

Nothing about a card's progress is stored. Both its old and its new keys follow from the issuer's
keys and the UID, or are those of the factory, and each step first asks the card where it stands. So
whatever was cut off is finished by running it again, and a run over a finished card changes
nothing. Key 0 is changed last, when all the rest is verified: until then the card can be opened as
before, from then on as it will be for ever. A guess at an old key that is wrong is refused by the
card and changes nothing.

The session is a conversation: it yields command APDUs and is sent the answers.
Sources: NXP NT4H2421Gx rev. 3.0 and NXP AN12196 section 5; see `chip` and `layout`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from taprail_common import sun
from taprail_common.errors import InputError
from taprail_gateway.personalize import chip
from taprail_gateway.personalize.chip import CardError, Conversation, Randomness, Session
from taprail_gateway.personalize.layout import FILE_READ_KEY, META_READ_KEY, Layout, Mirror

KEYS: Final = 5  # section 8.2.3.1
_NDEF_FILE: Final = b"\x02"
_OK: Final = b"\x90\x00"
_SELECT_APPLICATION: Final = bytes.fromhex("00A4040007D276000085010100")
_SELECT_NDEF_FILE: Final = bytes.fromhex("00A4000C02E104")
_NO_OFFSET: Final = bytes(3)


@dataclass(frozen=True, slots=True)
class KeySet:
    """All keys of a chip, and the version that it tells of them. Never shown."""

    version: int
    keys: tuple[bytes, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.keys) != KEYS or any(len(key) != chip.KEY_BYTES for key in self.keys):
            raise ValueError(f"a chip has {KEYS} keys of {chip.KEY_BYTES} bytes")
        if not 0 <= self.version <= 0xFF:
            raise ValueError("a key's version is one byte")


FACTORY: Final = KeySet(0, (bytes(chip.KEY_BYTES),) * KEYS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a card is to become: `uid` names it, `old` are keys that it may have until then."""

    uid: bytes = field(repr=False)
    keys: KeySet
    layout: Layout
    mirror: Mirror
    old: Sequence[KeySet] = (FACTORY,)
    was_used: bool = False
    """It has paid before: its tap counter must not begin anew."""


def personalize(wanted: Wanted, randomness: Randomness) -> Conversation[int]:
    """Write a card, or finish writing it; gives its tap counter. Raises CardError."""
    return (yield from _Run(wanted, randomness).all())


class _Run:
    """One run, with the session that is open."""

    def __init__(self, wanted: Wanted, randomness: Randomness) -> None:
        self._wanted = wanted
        self._randomness = randomness
        self._master = FACTORY
        """Of whose keys the card has key 0 now."""
        self._session: Session

    def all(self) -> Conversation[int]:
        yield from _select(_SELECT_APPLICATION, "selecting the card's application")
        yield from self._find_master()
        for number in range(1, KEYS):
            yield from self._bring_key(number)
        for number in range(1, KEYS):
            yield from self._verify_key(number)
        yield from self._open(self._master)
        yield from self._bring_file()
        yield from self._bring_master()
        return (yield from self._read_as_anyone())

    def _find_master(self) -> Conversation[None]:
        for keys in (*self._wanted.old, self._wanted.keys):
            session = yield from chip.authenticate(0, keys.keys[0], self._randomness)
            if session is not None:
                self._session, self._master = session, keys
                yield from self._check_uid()
                return
        raise CardError(
            "the card has keys that this issuer never gave it", fix="use a card fresh from its box"
        )

    def _open(self, keys: KeySet) -> Conversation[None]:
        session = yield from chip.authenticate(0, keys.keys[0], self._randomness)
        if session is None:
            raise CardError("the card does not open by the key that it had a moment ago")
        self._session, self._master = session, keys
        yield from self._check_uid()

    def _check_uid(self) -> Conversation[None]:
        """Keys are made for one UID, what the reader said was not under a MAC, and two cards from
        the same box open by the same keys: so each session asks before it writes."""
        answer = yield self._session.maced(chip.GET_CARD_UID)
        if self._session.decrypted("asking for the UID", answer) != self._wanted.uid:
            raise CardError("another card has taken the place of the first one")

    def _bring_key(self, number: int) -> Conversation[None]:
        what = f"asking for the version of key {number}"
        answer = yield self._session.maced(chip.GET_KEY_VERSION, bytes([number]))
        version = self._session.opened(what, answer)
        new = self._wanted.keys
        if version == bytes([new.version]) and (yield from self._has_key(number)):
            return
        # The set that the version speaks of comes first; it is a hint and no more.
        guesses = sorted(
            (*self._wanted.old, new), key=lambda keys: version != bytes([keys.version])
        )
        for old in guesses:
            if (yield from self._change_key(number, old)):
                return
        raise CardError(
            f"key {number} of the card is none that this issuer gave it", fix="use another card"
        )

    def _has_key(self, number: int) -> Conversation[bool]:
        key = self._wanted.keys.keys[number]
        session = yield from chip.authenticate(number, key, self._randomness)
        yield from self._open(self._master)
        return session is not None

    def _change_key(self, number: int, old: KeySet) -> Conversation[bool]:
        new = self._wanted.keys
        data = chip.new_key_data(number, new.keys[number], new.version, old.keys[number])
        answer = yield self._session.full(chip.CHANGE_KEY, bytes([number]), data)
        if answer == chip.INTEGRITY:  # not its old key; nothing was changed, the session is over
            yield from self._open(self._master)
            return False
        self._session.opened(f"changing key {number}", answer)
        return True

    def _verify_key(self, number: int) -> Conversation[None]:
        key = self._wanted.keys.keys[number]
        session = yield from chip.authenticate(number, key, self._randomness)
        if session is None:
            raise CardError(f"key {number} was written, and the card does not open by it")

    def _bring_file(self) -> Conversation[None]:
        """Settings first: from then on the file is written in plain by key 0, whatever it was."""
        layout = self._wanted.layout
        if (yield from self._settings()) != layout.told_settings():
            # Not without need: setting them takes the tap counter back to zero (section 9.3.1),
            # and then all of the card's taps would count as used.
            if self._wanted.was_used:
                raise CardError(
                    "the card has paid already and is laid out in another way",
                    fix="leave its address and mirror as they are, or replace the card",
                )
            answer = yield self._session.full(
                chip.CHANGE_FILE_SETTINGS, _NDEF_FILE, layout.settings
            )
            self._session.opened("setting up the card's file", answer)
        place = _NO_OFFSET + len(layout.file).to_bytes(3, "little")
        answer = yield self._session.plain(chip.WRITE_DATA, _NDEF_FILE + place + layout.file)
        self._session.accepted_plain("writing the card's file", answer)

    def _settings(self) -> Conversation[bytes]:
        answer = yield self._session.maced(chip.GET_FILE_SETTINGS, _NDEF_FILE)
        return self._session.opened("asking how the card's file is set up", answer)

    def _bring_master(self) -> Conversation[None]:
        new = self._wanted.keys
        if self._master.keys[0] != new.keys[0]:
            data = chip.new_key_data(0, new.keys[0], new.version, self._master.keys[0])
            answer = yield self._session.full(chip.CHANGE_KEY, b"\x00", data)
            if answer != chip.DONE:  # it ends the session, so there is no MAC (section 10.6.1)
                raise chip.refusal("changing key 0", answer)
            yield from self._open(new)
        if (yield from self._settings()) != self._wanted.layout.told_settings():
            raise CardError("the card's file is not set up as it was told")

    def _read_as_anyone(self) -> Conversation[int]:
        """Tap the card as a terminal would: selecting ends the session (section 9)."""
        yield from _select(_SELECT_APPLICATION, "selecting the card's application")
        yield from _select(_SELECT_NDEF_FILE, "selecting the card's file")
        length = len(self._wanted.layout.file)
        answer = yield b"\x00\xb0\x00\x00" + bytes([length])
        if not answer.endswith(_OK) or len(answer) != length + len(_OK):
            raise chip.refusal("reading the card", answer)
        return self._proved(answer[:-2])

    def _proved(self, content: bytes) -> int:
        wanted = self._wanted
        if not wanted.layout.matches(content):
            raise CardError("the card shows another address than was written")
        *shown, mac = (content[place.start : place.stop] for place in wanted.layout.mirrored)
        try:
            texts = [text.decode("ascii") for text in (*shown, mac)]
            picc = _picc_data(texts[:-1], wanted)
            proof = bytes.fromhex(texts[-1])
        except (ValueError, InputError) as exc:
            raise CardError("the card mirrors nothing that could be its proof") from exc
        key = wanted.keys.keys[FILE_READ_KEY]
        if picc.uid != wanted.uid or not sun.mac_matches(key, picc, proof):
            raise CardError("the card's proof does not hold")
        return picc.counter


def _picc_data(shown: list[str], wanted: Wanted) -> sun.PiccData:
    if wanted.mirror is Mirror.PLAIN:
        return sun.plain_picc_data(shown[0], shown[1])
    key = wanted.keys.keys[META_READ_KEY]
    return sun.decrypt_picc_data(key, bytes.fromhex(shown[0]))


def _select(command: bytes, what: str) -> Conversation[None]:
    answer = yield command
    if not answer.endswith(_OK):
        raise chip.refusal(what, answer)
