"""What a card signs, how both ends check it, what goes to the chain: as ethers has it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from coincurve import PrivateKey

from taprail_common.eip3009 import TokenDomain
from taprail_common.secp256k1 import CardKey, CardSignature
from taprail_common.wire import SignedProof
from taprail_gateway.settle.signer import Signature, sign_digest
from taprail_hwsim.cards import KeycardCash, Quirks
from taprail_terminal.card_session import converse
from taprail_terminal.charge import Charge

ROOT = Path(__file__).parents[3]
FILE = ROOT / "tests" / "vectors" / "ethers_transfers.json"
CASES = json.loads(FILE.read_text())["cases"]
PAYEE = "0x" + "cd" * 20


def charge(case: dict[str, Any]) -> Charge:
    domain = TokenDomain(case["name"], case["version"], case["chainId"], case["token"])
    nonce = bytes.fromhex(case["nonce"][2:])
    value, until_s = int(case["value"]), int(case["validBefore"])
    return Charge("req_1", domain.separator, PAYEE, value, until_s, nonce)


@pytest.mark.parametrize("case", CASES, ids=[case["name"][:4] for case in CASES])
@pytest.mark.parametrize("quirks", [Quirks(), Quirks(high_s=True), Quirks(padded=True)])
def test_a_card_and_both_ends_agree_with_ethers(case: dict[str, Any], quirks: Quirks) -> None:
    asked, secret = charge(case), bytes.fromhex(case["key"][2:])
    expected = bytes.fromhex(case["signature"][2:])
    digest = asked.by(case["payer"]).digest(asked.domain_separator)
    assert "0x" + digest.hex() == case["digest"]

    card = KeycardCash(bytes(7), secret, quirks)
    conversation = converse(asked)
    command = next(conversation)
    try:
        while True:
            command = conversation.send((card.apdu(command) or ("", b""))[1])
    except StopIteration as done:
        proof = done.value.proof
    assert isinstance(proof, SignedProof)
    assert (proof.payer, card.digests) == (case["payer"], [digest])
    # Both sign deterministically (RFC 6979), so even the bytes are the same.
    assert bytes.fromhex(proof.signature) == expected[:64]
    CardKey(card.public_key).check(digest, CardSignature.from_compact(expected[:64]))

    # What is kept of it, and what the gateway's own keys would sign.
    kept = Signature.from_bytes(expected)
    assert kept == sign_digest(PrivateKey(secret), digest)
    assert kept.v == expected[64]


def test_the_vectors_are_what_ethers_makes_of_them() -> None:
    """Where `make test` has brought ethers, as it does in CI."""
    node, brought = shutil.which("node"), ROOT / "build" / "app_day"
    if node is None or not (brought / "node_modules" / "ethers").is_dir():
        if os.environ.get("CI"):
            pytest.fail("no ethers here, which `make test` brings")
        pytest.skip("no ethers here: `make build/app_day/.ready` brings it")
    script = FILE.with_suffix(".mjs")
    made = subprocess.run([node, script, brought], capture_output=True, check=True, timeout=60)
    assert made.stdout == FILE.read_bytes()
