"""Keys in custody: what is wrapped opens only under its own name and its own master key."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from eth_account import Account
from sqlalchemy import create_engine, select

from taprail_common.errors import OperatorError
from taprail_gateway.custody import Custody, create_master_key
from taprail_gateway.ledger.schema import meta


@pytest.fixture
def master_key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "master.key"
    create_master_key(path)
    return path


@pytest.fixture
def custody(master_key_file: Path) -> Custody:
    return Custody.load(master_key_file)


def test_a_key_comes_back_and_is_the_addresses_own(custody: Custody) -> None:
    address, wrapped = custody.new_key()
    key = custody.unwrap(address, wrapped)
    # eth_account derives the address by another implementation of secp256k1 and keccak.
    assert Account.from_key(key.secret).address.lower() == address
    assert key.secret not in wrapped


def test_every_key_and_every_wrap_differs(custody: Custody) -> None:
    assert custody.new_key()[0] != custody.new_key()[0]
    assert custody.wrap_secret("a", b"s") != custody.wrap_secret("a", b"s")


def test_a_wrapped_key_opens_for_no_other_address(custody: Custody) -> None:
    (mine, _), (_, other_wrapped) = custody.new_key(), custody.new_key()
    with pytest.raises(OperatorError, match="does not open"):
        custody.unwrap(mine, other_wrapped)


def test_a_secret_opens_only_under_its_name(custody: Custody) -> None:
    wrapped = custody.wrap_secret("sun/1", b"secret")
    assert custody.unwrap_secret("sun/1", wrapped) == b"secret"
    with pytest.raises(OperatorError, match="does not open"):
        custody.unwrap_secret("sun/2", wrapped)


def test_a_key_cannot_be_read_as_a_secret(custody: Custody) -> None:
    address, wrapped = custody.new_key()
    for name in (address, f"key/{address}"):
        with pytest.raises(OperatorError):
            custody.unwrap_secret(name, wrapped)


@pytest.mark.parametrize("position", [0, 1, 12, 13, -1])
def test_a_changed_byte_is_refused(custody: Custody, position: int) -> None:
    wrapped = bytearray(custody.wrap_secret("name", b"secret"))
    wrapped[position] ^= 1
    with pytest.raises(OperatorError):
        custody.unwrap_secret("name", bytes(wrapped))


@pytest.mark.parametrize("wrapped", [b"", b"\x01", b"\x01" + bytes(12), b"\x02" + bytes(40)])
def test_what_is_no_wrapped_secret_is_refused(custody: Custody, wrapped: bytes) -> None:
    with pytest.raises(OperatorError):
        custody.unwrap_secret("name", wrapped)


def test_another_master_key_opens_nothing(custody: Custody, tmp_path: Path) -> None:
    create_master_key(tmp_path / "other.key")
    other = Custody.load(tmp_path / "other.key")
    address, wrapped = custody.new_key()
    with pytest.raises(OperatorError, match="use the master key file that belongs"):
        other.unwrap(address, wrapped)


def test_the_master_key_file_is_private_and_never_overwritten(master_key_file: Path) -> None:
    before = master_key_file.read_text()
    assert stat.S_IMODE(master_key_file.stat().st_mode) == 0o600
    with pytest.raises(OperatorError, match="exists"):
        create_master_key(master_key_file)
    assert master_key_file.read_text() == before


@pytest.mark.parametrize("text", ["", "zz" * 32, "ab" * 31])
def test_a_damaged_master_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "master.key"
    path.touch(mode=0o600)
    path.write_text(text)
    with pytest.raises(OperatorError, match="damaged") as caught:
        Custody.load(path)
    assert not text or text not in str(caught.value)


def test_a_missing_or_open_master_key_is_refused(master_key_file: Path, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="missing"):
        Custody.load(tmp_path / "none")
    master_key_file.chmod(0o644)
    with pytest.raises(OperatorError, match="chmod 600"):
        Custody.load(master_key_file)


def test_uid_digests_stay_the_same_and_show_no_uid(custody: Custody, master_key_file: Path) -> None:
    uid = bytes.fromhex("04AABBCCDDEEFF")
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        meta.create(connection)
        custody.attach(connection)
        again = Custody.load(master_key_file)
        again.attach(connection)
        stored = connection.execute(select(meta.c.value)).scalars().all()
    engine.dispose()
    assert custody.uid_digest(uid) == again.uid_digest(uid)
    assert custody.uid_digest(uid) != custody.uid_digest(uid[::-1])
    assert len(custody.uid_digest(uid)) == 64
    assert len(stored) == 1


def test_uid_digests_need_the_ledgers_pepper(custody: Custody) -> None:
    with pytest.raises(OperatorError, match="not attached"):
        custody.uid_digest(b"1234")


def test_nothing_of_the_key_is_shown(custody: Custody, master_key_file: Path) -> None:
    assert master_key_file.read_text().strip() not in repr(custody) + str(vars(custody))
