"""Artifacts of published contracts are read as compilers write them, or refused with what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from taprail_hwsim.contracts.artifact import ARTIFACT_FOLDER
from taprail_hwsim.published import Published, PublishedError

OWNER = "0x" + "11" * 20
LIBRARY = "0x" + "ab" * 20


class Sent:
    """Notes what would be sent, and says that it was mined."""

    def __init__(self) -> None:
        self.data: list[str] = []

    def __call__(self, sender: str, transactions: list[dict[str, str]]) -> list[dict[str, Any]]:
        assert sender == OWNER
        self.data += [item["data"] for item in transactions]
        return [{"contractAddress": LIBRARY} for _ in transactions]


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_a_token_is_linked_with_the_library_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "Checker.json", {"bytecode": "0x60aa", "linkReferences": {}})
    places = {"lib.sol": {"Checker": [{"start": 1, "length": 20}]}}
    code = "0x60" + "__" * 20 + "61"
    token = write(tmp_path / "Token.json", {"bytecode": code, "linkReferences": places})
    sent = Sent()
    assert Published(token=token).deploy_token(sent, OWNER, "USDC") == LIBRARY
    assert sent.data[:2] == ["0x60aa", "0x60" + "ab" * 20 + "61"]
    assert len(sent.data) == 7  # and five calls that set it up


def test_foundry_keeps_code_and_links_in_one_object(tmp_path: Path) -> None:
    path = write(tmp_path / "M.json", {"deployedBytecode": {"object": "0x6001"}})
    assert Published(multicall=path).multicall_code() == "0x6001"


def test_what_is_not_given_is_not_replaced() -> None:
    assert Published().multicall_code() is None
    assert Published().deploy_token(Sent(), OWNER, "USDC") is None


def test_our_own_artifacts_have_the_same_form() -> None:
    path = ARTIFACT_FOLDER / "DevMulticall3.json"
    assert (Published(multicall=path).multicall_code() or "").startswith("0x60")


@pytest.mark.parametrize(
    ("text", "said"), [("{", "no JSON"), ("[]", "bytecode"), ('{"bytecode": 7}', "bytecode")]
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(PublishedError, match=said):
        Published(token=path).deploy_token(Sent(), OWNER, "USDC")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublishedError, match="cannot be read"):
        Published(multicall=tmp_path / "none.json").multicall_code()
