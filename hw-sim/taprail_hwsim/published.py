"""The contracts as their authors publish them, instead of the lean ones of the dev chain.

Given the files that a compiler wrote for them (an artifact as Hardhat or Foundry writes it), the
dev chain runs the published FiatTokenV2 (USDC, EURC) and Multicall3 byte for byte. Their licences
are their authors', so none of it is kept here. A library that a token is linked with is looked for
beside it, as `<Library>.json`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taprail_hwsim import abi

# FiatTokenV2_2 takes 5 M to deploy.
DEPLOY_GAS = 8_000_000
SETUP_GAS = 1_000_000
_ALLOWANCE_UNITS = 2**255
_INITIALIZE = "initialize(string,string,string,uint8,address,address,address,address)"

Transact = Callable[[str, list[dict[str, str]]], list[dict[str, Any]]]
"""Sends from an address and gives the receipts, all successful."""


class PublishedError(Exception):
    """A file is no artifact of such a contract; says which file, and what is missing."""


@dataclass(frozen=True)
class Published:
    """Artifact files to use instead of the dev chain's own contracts; None keeps the own one."""

    token: Path | None = None
    multicall: Path | None = None

    def multicall_code(self) -> str | None:
        """The code that runs, 0x hex."""
        if self.multicall is None:
            return None
        code, links = _code(self.multicall, "deployedBytecode", "deployedLinkReferences")
        if links:
            raise PublishedError(f"{self.multicall}: Multicall3 is linked with nothing")
        return code

    def deploy_token(self, transact: Transact, owner: str, symbol: str) -> str | None:
        """Deploy and initialize the token; its address. `owner` has every role, and is minter."""
        if self.token is None:
            return None
        code, links = _code(self.token, "bytecode", "linkReferences")
        for library, places in links.items():
            path = self.token.with_name(f"{library}.json")
            library_code, nested = _code(path, "bytecode", "linkReferences")
            if nested:
                raise PublishedError(f"{path}: a library that is linked itself")
            address = _deploy(transact, owner, library_code)
            code = _linked(code, places, address)
        token = _deploy(transact, owner, code)
        transact(
            owner,
            [{"to": token, "data": data, "gas": hex(SETUP_GAS)} for data in _setup(owner, symbol)],
        )
        return token


def _setup(owner: str, symbol: str) -> list[str]:
    """The calls that every published version needs, in the order of its history."""
    name = "Dev Dollar"
    return [
        abi.encode_call(_INITIALIZE, name, symbol, "USD", 6, owner, owner, owner, owner),
        abi.encode_call("initializeV2(string)", name),
        # To whom tokens go that were sent to the contract itself; it may not be the contract.
        abi.encode_call("initializeV2_1(address)", owner),
        _initialize_v2_2(symbol),
        abi.encode_call("configureMinter(address,uint256)", owner, _ALLOWANCE_UNITS),
    ]


def _initialize_v2_2(symbol: str) -> str:
    """No account is on its list of the blocked: an empty array, which our codec does not know."""
    selector = abi.keccak256(b"initializeV2_2(address[],string)")[:4]
    text = abi.encode_values(["string"], [symbol])[32:]
    words = [(64).to_bytes(32, "big"), (96).to_bytes(32, "big"), bytes(32)]
    return "0x" + (selector + b"".join(words) + text).hex()


def _deploy(transact: Transact, owner: str, code: str) -> str:
    [receipt] = transact(owner, [{"data": code, "gas": hex(DEPLOY_GAS)}])
    return str(receipt["contractAddress"])


def _code(path: Path, field: str, links_field: str) -> tuple[str, dict[str, list[int]]]:
    """Code in 0x hex, and by library where (in bytes) its address belongs."""
    try:
        document = json.loads(path.read_text())
    except OSError as error:
        raise PublishedError(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise PublishedError(f"{path} is no JSON") from error
    fields: dict[str, Any] = document if isinstance(document, dict) else {}
    found: Any = fields.get(field)
    links: Any = fields.get(links_field)
    if isinstance(found, dict):  # Foundry keeps both in one object
        found, links = found.get("object"), found.get("linkReferences")
    if not isinstance(found, str) or not found.startswith("0x") or len(found) < 4:
        raise PublishedError(f"{path} has no {field}: name the artifact that the compiler wrote")
    places = {
        library: [int(at["start"]) for at in where]
        for by_name in (links or {}).values()
        for library, where in by_name.items()
    }
    return found, places


def _linked(code: str, starts: list[int], address: str) -> str:
    for start in starts:
        at = 2 + 2 * start
        code = code[:at] + address.removeprefix("0x").lower() + code[at + 40 :]
    return code
