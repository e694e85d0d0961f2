"""Signatures: RFC 8032's vector, domains that do not mix, key files that are kept well."""

import base64
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import OperatorError, SignatureError
from taprail_common.signing import (
    Domain,
    create_key_file,
    fingerprint,
    gateway_id,
    load_key_file,
    parse_public_key,
    public_key_text,
    sign,
    verify,
)

# RFC 8032 section 7.1, test 2.
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
KEY = SigningKey(SEED)


def test_rfc_8032_vector() -> None:
    assert public_key_text(KEY.verify_key) == PUBLIC
    assert bytes(KEY.sign(b"\x72").signature).hex().startswith("92a009a9f0d4cab8720e820b5f642540")


def test_what_was_signed_verifies_and_nothing_else() -> None:
    signature = sign(KEY, Domain.VERDICT, b"body", about=b"request")
    verify(KEY.verify_key, Domain.VERDICT, b"body", signature, about=b"request")
    other_key = SigningKey.generate().verify_key
    for key, domain, body, about in (
        (other_key, Domain.VERDICT, b"body", b"request"),
        (KEY.verify_key, Domain.NOTICE, b"body", b"request"),
        (KEY.verify_key, Domain.VERDICT, b"bodY", b"request"),
        (KEY.verify_key, Domain.VERDICT, b"body", b"another request"),
    ):
        with pytest.raises(SignatureError, match="not by the expected key"):
            verify(key, domain, body, signature, about=about)


@pytest.mark.parametrize(
    "garbage", ["", "!!!", "AAAA", base64.b64encode(bytes(65)).decode(), "é" * 88]
)
def test_garbage_is_no_signature(garbage: str) -> None:
    with pytest.raises(SignatureError, match="64 bytes of base64"):
        verify(KEY.verify_key, Domain.VERDICT, b"", garbage)


def test_domains_cannot_run_into_each_other() -> None:
    values = [domain.value for domain in Domain]
    assert len(set(values)) == len(values)
    assert all(value.endswith(b"\n") and value.count(b"\n") == 1 for value in values)


def test_key_file_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "device.key"
    created = create_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key_file(path, "device key") == created
    with pytest.raises(FileExistsError):
        create_key_file(path)


def test_key_files_that_cannot_be_used_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    with pytest.raises(OperatorError, match=r"device key .* is missing: create or restore it"):
        load_key_file(path, "device key")
    create_key_file(path)
    path.chmod(0o640)
    with pytest.raises(OperatorError, match="chmod 600"):
        load_key_file(path, "device key")
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(OperatorError, match="damaged"):
        load_key_file(path, "device key")


def test_names_for_people() -> None:
    assert fingerprint(KEY.verify_key).count("-") == 3
    assert gateway_id(KEY.verify_key) == "gw_" + fingerprint(KEY.verify_key).replace("-", "")
    assert parse_public_key(PUBLIC) == KEY.verify_key
    for wrong in ("", "zz", PUBLIC[:-2]):
        with pytest.raises(OperatorError):
            parse_public_key(wrong)
