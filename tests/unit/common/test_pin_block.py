"""A sealed PIN opens for its own gateway, request and tap, and shows nothing."""

from __future__ import annotations

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import InputError
from taprail_common.pin_block import open_pin, seal_pin
from taprail_common.wire import SunProof

KEY = SigningKey(bytes(range(32)))
TAP, NEXT_TAP = (SunProof(picc_data=digit * 32, mac="0" * 16) for digit in "01")


def sealed(pin: str = "4711") -> str:
    return seal_pin(KEY.verify_key, "req_1", TAP, pin)


def test_a_pin_comes_back_to_whom_it_is_for() -> None:
    assert open_pin(KEY, "req_1", TAP, sealed()) == "4711"


def test_a_block_opens_for_no_other_request_and_no_other_tap() -> None:
    with pytest.raises(InputError, match="another"):
        open_pin(KEY, "req_2", TAP, sealed())
    with pytest.raises(InputError, match="another"):
        open_pin(KEY, "req_1", NEXT_TAP, sealed())


@pytest.mark.parametrize("spoilt", ["", "AAAA", "ä", "A" * 406 + "=="])
def test_what_is_no_block_is_refused(spoilt: str) -> None:
    with pytest.raises(InputError, match="not sealed"):
        open_pin(KEY, "req_1", TAP, spoilt)


def test_another_gateway_cannot_open_it() -> None:
    with pytest.raises(InputError, match="not sealed"):
        open_pin(SigningKey(bytes(32)), "req_1", TAP, sealed())


def test_a_block_does_not_tell_the_length_of_a_pin_nor_that_two_are_the_same() -> None:
    assert len(sealed("1234")) == len(sealed("123456789012")) == 408
    assert sealed() != sealed()


@pytest.mark.parametrize("pin", ["123", "1" * 13, "12a4", "١٢٣٤", ""])
def test_what_is_no_pin_is_refused_without_being_shown(pin: str) -> None:
    with pytest.raises(InputError) as refusal:
        sealed(pin)
    assert pin not in str(refusal.value) or not pin
