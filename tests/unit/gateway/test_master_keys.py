"""The master key's file, and custody that follows it while it changes."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from taprail_common.errors import OperatorError
from taprail_gateway.custody import Custody, wrapped_by
from taprail_gateway.master_keys import (
    MAX_OLD,
    KeyRing,
    alone,
    create_master_key,
    key_id,
    read_ring,
    write_ring,
)

A, B, C = (bytes([number]) * 32 for number in (1, 2, 3))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "master.key"
    create_master_key(path)
    return path


def test_a_ring_reads_as_it_was_written() -> None:
    for ring in (KeyRing(A), KeyRing(A, B), KeyRing(A, old=(B, C)), KeyRing(A, B, (C,))):
        assert KeyRing.parse(ring.text) == ring
    assert KeyRing.parse(f"{A.hex()}\r\nOLD {B.hex().upper()}") == KeyRing(A, old=(B,))
    assert A.hex() not in repr(KeyRing(A, B, (C,)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        A.hex()[1:],
        f"next {A.hex()}",
        f"{A.hex()}\n{B.hex()}",
        f"{A.hex()}\nnext {B.hex()}\nnext {C.hex()}",
        f"{A.hex()}\nold {A.hex()}",
        f"{A.hex()}\nsome {B.hex()}",
        f"old {A.hex()}\n{B.hex()}",
        A.hex() + "".join(f"\nold {bytes([9 + n]).hex() * 32}" for n in range(MAX_OLD + 1)),
    ],
)
def test_what_is_no_ring_is_refused(text: str, path: Path) -> None:
    assert KeyRing.parse(text) is None
    path.write_text(text)
    with pytest.raises(OperatorError, match="damaged"):
        read_ring(path)


def test_a_key_is_prepared_promoted_and_forgotten() -> None:
    prepared = KeyRing(A).prepared()
    assert prepared.prepared() == prepared
    promoted = prepared.promoted()
    assert (promoted.current, promoted.upcoming, promoted.old) == (prepared.upcoming, None, (A,))
    assert promoted.without_old() == KeyRing(promoted.current)
    ring = KeyRing(A)
    for _ in range(MAX_OLD):
        ring = ring.prepared().promoted()
    assert KeyRing.parse(ring.text) == ring
    with pytest.raises(OperatorError, match="key retire"):
        ring.prepared().promoted()


def test_the_file_is_replaced_whole_and_stays_private(path: Path) -> None:
    (path.parent / "master.key.new").write_text("of a run that was killed")
    write_ring(path, KeyRing(A, B))
    assert read_ring(path) == KeyRing(A, B)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_two_commands_do_not_change_the_file_at_once(path: Path) -> None:
    with alone(path), pytest.raises(OperatorError, match="another command"), alone(path):
        raise AssertionError("both are let in")
    with alone(path):
        pass


# --- custody --------------------------------------------------------------------------------------


def test_what_is_wrapped_says_by_which_key(path: Path) -> None:
    custody = Custody.load(path)
    wrapped = custody.wrap_secret("name", b"secret")
    assert wrapped_by(wrapped) == custody.current_id == key_id(read_ring(path).current)


def test_a_running_custody_learns_a_new_key_and_forgets_none(path: Path) -> None:
    running = Custody.load(path)
    address, before = running.new_key()
    ring = read_ring(path).prepared().promoted()
    write_ring(path, ring)
    other = Custody.load(path)
    after = other.rewrap_key(address, before)
    assert after is not None
    # It was never told: the value itself says that there is a key to look for.
    assert running.unwrap(address, after).secret == other.unwrap(address, before).secret
    write_ring(path, ring.without_old())
    assert running.unwrap(address, before).secret == running.unwrap(address, after).secret
    with pytest.raises(OperatorError, match="by another master key"):
        Custody.load(path).unwrap(address, before)


def test_a_running_custody_wraps_by_the_new_key_at_once(path: Path) -> None:
    running = Custody.load(path)
    ring = read_ring(path).prepared().promoted()
    write_ring(path, ring)
    assert wrapped_by(running.wrap_secret("name", b"secret")) == key_id(ring.current)


def test_a_key_that_comes_next_opens_and_does_not_wrap(path: Path) -> None:
    ring = read_ring(path).prepared()
    write_ring(path, ring)
    custody = Custody.load(path)
    assert wrapped_by(custody.wrap_secret("name", b"secret")) == key_id(ring.current)
    promoted = Custody(ring.promoted())
    assert custody.unwrap_secret("name", promoted.wrap_secret("name", b"x")) == b"x"


def test_rewrapping_keeps_the_name_and_is_done_once(path: Path) -> None:
    custody = Custody.load(path)
    wrapped = custody.wrap_secret("name", b"secret")
    assert custody.rewrap_secret("name", wrapped) is None
    write_ring(path, read_ring(path).prepared().promoted())
    custody = Custody.load(path)
    again = custody.rewrap_secret("name", wrapped)
    assert again is not None
    assert custody.unwrap_secret("name", again) == b"secret"
    assert custody.rewrap_secret("name", again) is None
    with pytest.raises(OperatorError, match="does not open"):
        custody.rewrap_secret("other", wrapped)


def test_a_value_cannot_be_passed_off_as_another_keys(path: Path) -> None:
    write_ring(path, read_ring(path).prepared().promoted())
    custody, ring = Custody.load(path), read_ring(path)
    wrapped = custody.wrap_secret("name", b"secret")
    forged = wrapped[:1] + key_id(ring.old[0]) + wrapped[9:]
    with pytest.raises(OperatorError, match="does not open"):
        custody.unwrap_secret("name", forged)


def test_what_was_wrapped_before_keys_had_ids_opens_and_is_rewrapped(path: Path) -> None:
    """Version 1: nonce and ciphertext only, with version and name as associated data."""
    derive = HKDF(SHA256(), 32, salt=None, info=b"taprail/custody/wrap/v1")
    nonce = secrets.token_bytes(12)
    sealed = AESGCM(derive.derive(read_ring(path).current)).encrypt(
        nonce, b"secret", b"\x01secret/name"
    )
    older = b"\x01" + nonce + sealed
    assert wrapped_by(older) is None
    write_ring(path, read_ring(path).prepared().promoted())
    custody = Custody.load(path)
    assert custody.unwrap_secret("name", older) == b"secret"
    again = custody.rewrap_secret("name", older)
    assert again is not None
    assert wrapped_by(again) == custody.current_id
    with pytest.raises(OperatorError, match="does not open"):
        custody.unwrap_secret("other", older)
