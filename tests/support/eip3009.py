"""EIP-3009 authorizations signed by eth_account: the reference that is not our own code."""

from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from eth_account import Account
from eth_account.messages import encode_typed_data
from eth_account.signers.local import LocalAccount

from taprail_hwsim import abi
from taprail_hwsim.dev_chain import DevChain

Action = Literal["TransferWithAuthorization", "ReceiveWithAuthorization"]

# secp256k1's group order, SEC 2 clause 2.4.1
CURVE_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_ARGUMENTS = "address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32"
MOVE_FIELDS = [
    {"name": "from", "type": "address"},
    {"name": "to", "type": "address"},
    {"name": "value", "type": "uint256"},
    {"name": "validAfter", "type": "uint256"},
    {"name": "validBefore", "type": "uint256"},
    {"name": "nonce", "type": "bytes32"},
]
_CANCEL_FIELDS = [{"name": "authorizer", "type": "address"}, {"name": "nonce", "type": "bytes32"}]


def account(number: int) -> LocalAccount:
    """A fixed account per number, so that a failing test fails the same way again."""
    signer: LocalAccount = Account.from_key(abi.keccak256(f"test account {number}".encode()))
    return signer


def nonce(number: int) -> str:
    """A fixed nonce per number."""
    return "0x" + abi.keccak256(f"nonce {number}".encode()).hex()


def domain(chain: DevChain) -> dict[str, Any]:
    """The token's EIP-712 domain as the token tells it."""
    return {
        "name": read_string(chain, "name()"),
        "version": read_string(chain, "version()"),
        "chainId": chain.chain_id,
        "verifyingContract": chain.token_address,
    }


def read_string(chain: DevChain, signature: str) -> str:
    """A string that the token returns."""
    call = {"to": chain.token_address, "data": abi.encode_call(signature)}
    return abi.decode_string(chain.node.call("eth_call", call, "latest"))


@dataclass(frozen=True)
class Authorization:
    """What a payer signs, and the signature once there is one."""

    sender: str
    recipient: str
    amount_units: int
    nonce: str
    valid_after_s: int
    valid_before_s: int
    action: Action = "TransferWithAuthorization"
    v: int = 0
    r: int = 0
    s: int = 0

    def signed_by(self, signer: LocalAccount, chain: DevChain) -> Self:
        """This authorization with a signature of eth_account's."""
        return self.signed_in(domain(chain), signer)

    def signed_in(self, token: dict[str, Any], signer: LocalAccount) -> Self:
        """`signed_by` for many: the token's domain is read once."""
        fields = {
            "from": self.sender,
            "to": self.recipient,
            "value": self.amount_units,
            "validAfter": self.valid_after_s,
            "validBefore": self.valid_before_s,
            "nonce": self.nonce,
        }
        signature = signer.sign_typed_data(token, {self.action: MOVE_FIELDS}, fields)
        return replace(self, v=signature.v, r=signature.r, s=signature.s)

    def call_data(self) -> str:
        """The call that executes it, in 0x hex."""
        method = self.action[0].lower() + self.action[1:]
        return abi.encode_call(
            f"{method}({_ARGUMENTS})",
            self.sender,
            self.recipient,
            self.amount_units,
            self.valid_after_s,
            self.valid_before_s,
            self.nonce,
            self.v,
            self.r.to_bytes(32),
            self.s.to_bytes(32),
        )


def authorize(
    chain: DevChain,
    signer: LocalAccount,
    recipient: str,
    amount_units: int,
    number: int,
    *,
    valid_for_s: int = 3600,
    action: Action = "TransferWithAuthorization",
) -> Authorization:
    """A valid authorization, signed; its nonce is `nonce(number)`."""
    unsigned = Authorization(
        sender=signer.address,
        recipient=recipient,
        amount_units=amount_units,
        nonce=nonce(number),
        valid_after_s=0,
        valid_before_s=chain.block_time_s() + valid_for_s,
        action=action,
    )
    return unsigned.signed_by(signer, chain)


def cancel_call_data(chain: DevChain, signer: LocalAccount, nonce_hex: str) -> str:
    """The call that cancels a nonce for its authorizer, signed."""
    fields = {"authorizer": signer.address, "nonce": nonce_hex}
    signed = signer.sign_typed_data(domain(chain), {"CancelAuthorization": _CANCEL_FIELDS}, fields)
    return abi.encode_call(
        "cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)",
        signer.address,
        nonce_hex,
        signed.v,
        signed.r.to_bytes(32),
        signed.s.to_bytes(32),
    )


def domain_separator(chain: DevChain) -> str:
    """The domain's hash as eth_account works it out."""
    message = encode_typed_data(
        domain(chain),
        {"CancelAuthorization": _CANCEL_FIELDS},
        {"authorizer": chain.token_address, "nonce": nonce(0)},
    )
    return "0x" + message.header.hex()
