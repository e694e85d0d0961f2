"""What a token proves: by which key, for whom, as what; and what proves nothing."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from taprail_common.errors import OperatorError, SignatureError
from taprail_gateway.tokens import MAX_KEYS, Scope, TokenKey, Tokens

OLD, NEW = "o" * 32, "n" * 40
ISSUER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
RAW = ISSUER.public_key().public_bytes_raw()


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / "jwt.secret"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o600)
    return path


def claims(**changes: Any) -> dict[str, Any]:
    return {"id": "alice", "exp": int(time.time()) + 3_600, **changes}


def issued(tokens: Tokens, **options: Any) -> str:
    return tokens.issue("alice", now_ms=int(time.time() * 1000), days=1, **options)


def refused(tokens: Tokens, token: str) -> str:
    with pytest.raises(SignatureError) as caught:
        tokens.check(token)
    return caught.value.code


# --- keys -----------------------------------------------------------------------------------------


def test_the_first_secret_signs_and_all_verify(tmp_path: Path) -> None:
    before = Tokens.load(file_of(tmp_path, OLD))
    rotated = Tokens.load(file_of(tmp_path, f"2026-08:{NEW}", OLD))
    old, new = issued(before), issued(rotated)
    assert "kid" not in jwt.get_unverified_header(old)
    assert jwt.get_unverified_header(new)["kid"] == "2026-08"
    assert jwt.decode(new, NEW, algorithms=["HS256"])["id"] == "alice"
    assert {rotated.check(token).user_id for token in (old, new)} == {"alice"}
    assert refused(before, new) == "token_invalid"
    assert refused(Tokens.load(file_of(tmp_path, f"2026-08:{NEW}")), old) == "token_invalid"


def test_secrets_that_change_are_taken_up_and_what_a_retired_one_proved_holds_no_more(
    tmp_path: Path,
) -> None:
    path = file_of(tmp_path, OLD)
    tokens = Tokens.load(path)
    old = issued(tokens)
    proved, now_s = tokens.check(old), time.time()
    file_of(tmp_path, f"b:{NEW}", f"a:{OLD}")
    assert "kid" not in jwt.get_unverified_header(issued(tokens)), "nobody has looked yet"
    tokens.look()
    new = issued(tokens)
    assert jwt.get_unverified_header(new)["kid"] == "b"
    assert {tokens.check(token).user_id for token in (old, new)} == {"alice"}
    assert tokens.holds(tokens.check(new), now_s)
    assert not tokens.holds(tokens.check(new), now_s + 86_401)
    path.write_text("short\n")
    tokens.look()
    assert tokens.check(new).user_id == "alice", "what cannot be used changes nothing"
    path.unlink()
    tokens.look()
    assert tokens.check(old).user_id == "alice"
    file_of(tmp_path, f"b:{NEW}")
    tokens.look()
    assert refused(tokens, old) == "token_invalid"
    assert not tokens.holds(proved, now_s)


@pytest.mark.parametrize(
    ("given", "token_id"),
    [("tok_1", "tok_1"), ("8d2b2f1e-7c1a-4b41-a3b5-0c0f6f6e7a11",) * 2, ("a b", None), ("", None)],
)
def test_a_token_is_known_by_its_id_if_it_has_one_of_our_form(
    given: str, token_id: str | None
) -> None:
    tokens = Tokens([TokenKey.shared(OLD.encode())])
    assert tokens.check(jwt.encode(claims(jti=given), OLD)).token_id == token_id
    assert tokens.check(issued(tokens)).token_id is None
    assert tokens.check(issued(tokens, token_id="tok_2")).token_id == "tok_2"


def test_a_key_id_leads_to_its_key_alone(tmp_path: Path) -> None:
    tokens = Tokens.load(file_of(tmp_path, f"a:{NEW}", f"b:{OLD}"))
    for key_id, secret, is_good in (("a", NEW, True), ("b", NEW, False), ("c", NEW, False)):
        token = jwt.encode(claims(), secret, headers={"kid": key_id})
        if is_good:
            assert tokens.check(token).user_id == "alice"
        else:
            assert refused(tokens, token) == "token_invalid"
    assert tokens.check(jwt.encode(claims(), OLD)).user_id == "alice"


def test_another_issuer_is_known_by_a_public_key(tmp_path: Path) -> None:
    tokens = Tokens.load(file_of(tmp_path, OLD), {"idp": RAW.hex()})
    named = jwt.encode(claims(scopes=["operator"]), ISSUER, "EdDSA", headers={"kid": "idp"})
    assert tokens.check(named).scopes == {Scope.OPERATOR}
    assert tokens.check(jwt.encode(claims(), ISSUER, "EdDSA")).user_id == "alice"
    other = jwt.encode(claims(), Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": "idp"})
    assert refused(tokens, other) == "token_invalid"


def forged(header: dict[str, Any], key: bytes) -> str:
    """A token made by hand, by HMAC: no library would sign with a public key."""
    parts = [json.dumps(part).encode() for part in (header, claims())]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(text, key)
    return (text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


def test_the_algorithm_is_the_keys_and_not_the_tokens(tmp_path: Path) -> None:
    tokens = Tokens.load(file_of(tmp_path, f"shared:{OLD}"), {"idp": RAW.hex()})
    pem = ISSUER.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    good = forged({"alg": "HS256", "kid": "shared"}, OLD.encode())
    assert tokens.check(good).user_id == "alice"
    for key in (RAW, RAW.hex().encode(), pem, b""):
        for header in ({"alg": "HS256", "kid": "idp"}, {"alg": "HS256"}):
            assert refused(tokens, forged(header, key)) == "token_invalid"
    for algorithm in ("none", "None", "HS384", "HS512", "RS256", "EdDSA", "", 7, None):
        names: list[Any] = ["shared", "idp", None, 7, {}]
        for key_id in names:
            token = forged({"alg": algorithm, "kid": key_id}, OLD.encode())
            assert refused(tokens, token) == "token_invalid"
            unsigned = token.rpartition(".")[0] + "."
            assert refused(tokens, unsigned) == "token_invalid"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["short"], "shorter"),
        ([f"a:{NEW}", "b:short"], "shorter"),
        (["", "  "], "is empty"),
        ([f"a b:{NEW}"], "key id"),
        ([f"a:{NEW}", f"a:{OLD}"], "another id"),
        ([NEW, OLD], "another id"),
        ([f"idp:{NEW}"], "another id"),
        ([f"k{n}:{NEW}" for n in range(MAX_KEYS)], f"{MAX_KEYS} keys"),
    ],
)
def test_secrets_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, lines: list[str], message: str
) -> None:
    path = file_of(tmp_path, *lines)
    with pytest.raises(OperatorError, match=message) as caught:
        Tokens.load(path, {"idp": RAW.hex()})
    assert not any(secret in str(caught.value) for secret in (NEW, OLD, "short"[::-1]))


# --- scopes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "scopes"),
    [
        ({}, {"customer"}),
        ({"scopes": ["merchant"]}, {"merchant"}),
        ({"scopes": ["merchant", "operator", "openid"]}, {"merchant", "operator"}),
        ({"scope": "customer operator email"}, {"customer", "operator"}),
        ({"scopes": []}, set()),
        ({"scope": ""}, set()),
        ({"scopes": ["openid"]}, set()),
        ({"scopes": ["Operator", "operator ", "oper", "ator"]}, set()),
        ({"scopes": [], "scope": "operator"}, set()),
    ],
)
def test_a_token_is_good_for_its_scopes_and_a_customers_without(
    given: dict[str, Any], scopes: set[str]
) -> None:
    tokens = Tokens([TokenKey.shared(OLD.encode())])
    assert tokens.check(jwt.encode(claims(**given), OLD)).scopes == scopes


@pytest.mark.parametrize("given", [7, True, {"operator": 1}, [["operator"]], ["operator", 1]])
def test_scopes_that_are_no_texts_make_a_token_worthless(given: object) -> None:
    tokens = Tokens([TokenKey.shared(OLD.encode())])
    assert refused(tokens, jwt.encode(claims(scopes=given), OLD)) == "token_invalid"


def test_what_is_issued_says_what_it_is_good_for() -> None:
    tokens = Tokens([TokenKey.shared(OLD.encode())])
    assert tokens.check(issued(tokens)).scopes == {Scope.CUSTOMER}
    for scope in Scope:
        assert tokens.check(issued(tokens, scopes=[scope])).scopes == {scope}


def test_a_token_without_an_end_or_past_it_is_refused() -> None:
    tokens = Tokens([TokenKey.shared(OLD.encode(), "k")])
    assert refused(tokens, jwt.encode({"id": "alice"}, OLD)) == "token_invalid"
    assert refused(tokens, jwt.encode(claims(exp=int(time.time()) - 1), OLD)) == "token_expired"
    forged_and_old = jwt.encode(claims(exp=1), NEW)
    assert refused(tokens, forged_and_old) == "token_invalid"
    assert refused(tokens, issued(tokens) + "x" * 5_000) == "token_invalid"
