"""At start: reaches the nodes, and checks that chain, token and Multicall3 are the ones meant.

What is wrong here would be wrong for every payment, so it ends the start with what to do. Once
connected, a node of another chain is merely not heeded (see `chain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from taprail_common.clock import Clock
from taprail_common.eip3009 import domain_separator
from taprail_common.errors import OperatorError
from taprail_common.money import MAX_DECIMALS
from taprail_gateway.settle import calls, replies
from taprail_gateway.settle.chain import Chain, TokenInfo
from taprail_gateway.settle.errors import ChainError, SendClass, WrongChainError, classify
from taprail_gateway.settle.node import Node
from taprail_gateway.settle.settings import ChainSettings

_log = structlog.get_logger("settle.connect")


async def connect(settings: ChainSettings, clock: Clock | None = None) -> Chain:
    """Reach the nodes and check that this is the chain, and the token, that is meant.

    Raises OperatorError when it is not, ChainError when no node answers.
    """
    nodes = [Node(url, settings.rpc_timeout_ms) for url in settings.rpc_urls]
    token = TokenInfo(settings.token.lower(), "", "", "", 0, b"", settings.chain_id)
    chain = Chain(nodes, token, settings.multicall.lower(), clock)
    try:
        for node in nodes:
            await node.open()
        await _check_nodes(chain)
        await _check_contracts(chain)
        chain.token = await _read_token(chain)
    except BaseException:
        await chain.close()
        raise
    return chain


async def _check_nodes(chain: Chain) -> None:
    """Every node that answers must be on this chain, and one must answer."""
    failures: list[tuple[Node, ChainError]] = []
    for node in chain.nodes:
        try:
            await chain.check_node(node)
        except WrongChainError as exc:
            raise OperatorError(str(exc), fix="check rpc_urls and chain_id") from exc
        except ChainError as exc:
            failures.append((node, exc))
    if len(failures) == len(chain.nodes):
        reasons = "; ".join(failure.message for _, failure in failures)
        raise ChainError(f"no answer ({reasons})", fix="start a node, or check chain.rpc_urls")
    for node, failure in failures:
        _log.warning("settle.node_away", node=node.name, reason=str(failure))


async def _check_contracts(chain: Chain) -> None:
    for what, address in (("token", chain.token.address), ("multicall", chain.multicall)):
        (code,) = await chain.read([("eth_getCode", [address, "latest"])], replies.data_bytes)
        if not code:
            raise OperatorError(
                f"there is no contract at the {what} address {address}",
                fix=f"check {what} and chain_id",
            )


async def _read_token(chain: Chain) -> TokenInfo:
    parts = (calls.NAME, calls.VERSION, calls.SYMBOL, calls.DECIMALS, calls.DOMAIN_SEPARATOR)
    address = chain.token.address
    try:
        answers = [await chain.view(address, part) for part in parts]
    except ChainError as exc:
        if classify(exc.reply) is SendClass.PERMANENT:  # the call reverts: no such function
            raise _no_token(address, exc) from exc
        raise
    try:
        token = _token_info(chain.token, answers)
    except ChainError as exc:
        raise _no_token(address, exc) from exc
    _check_token(token)
    return token


def _token_info(asked: TokenInfo, answers: Sequence[bytes]) -> TokenInfo:
    name, version, symbol, decimals, separator = answers
    return replace(
        asked,
        name=calls.decode_text(name),
        version=calls.decode_text(version),
        symbol=calls.decode_text(symbol),
        decimals=calls.decode_uint(decimals),
        domain_separator=separator,
    )


def _no_token(address: str, exc: ChainError) -> OperatorError:
    return OperatorError(
        f"the contract at {address} is no EIP-3009 token ({exc.message})",
        fix="check token and chain_id",
    )


def _check_token(token: TokenInfo) -> None:
    expected = domain_separator(token.name, token.version, token.chain_id, token.address)
    if token.domain_separator != expected:
        raise OperatorError(
            f"the token at {token.address} has a DOMAIN_SEPARATOR() that does not match its name, "
            "version, chain and address",
            fix="this token cannot be used: signatures for it would not hold",
        )
    if token.decimals > MAX_DECIMALS:
        raise OperatorError(
            f"the token {token.symbol} has {token.decimals} decimals, more than {MAX_DECIMALS}",
            fix="use a token with at most 6, like USDC",
        )
