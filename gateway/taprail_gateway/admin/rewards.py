"""`taprail admin reward`: deploy a rewards contract, let the gateway's wallets mint, try again.

The first two are the contract's owner's to do. With the owner's key in a file they are done here;
without it, the transaction is printed that the owner's own wallet has to send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from taprail_common.errors import OperatorError, TapRailError
from taprail_common.secret_files import read_secret_file
from taprail_gateway.admin import output
from taprail_gateway.admin.session import Json, Session, session_of
from taprail_gateway.ledger import mints, queries
from taprail_gateway.settle import mint_calls
from taprail_gateway.settle.reward_contract import MAX_DECIMALS, NewPoints, creation_code

if TYPE_CHECKING:  # web3 takes a second to load: only what asks a node pays for it
    from coincurve import PrivateKey

    from taprail_gateway.settle.chain import Chain

T = TypeVar("T")

_KEY_DIGITS: Final = 64
_AT_ONCE: Final = 500
"""Mints changed in one commit: taps go on being answered between two of them."""

rewards: Final = typer.Typer(help="The contract that payers are rewarded by.", no_args_is_help=True)

OwnerKey = Annotated[
    Path | None,
    typer.Option(
        help="A file with the owner's private key, 64 hex digits, for you alone (chmod 600). It is"
        " used for this command and not kept.",
    ),
]


@rewards.command("deploy")
def deploy(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="What the points are called.")],
    symbol: Annotated[str, typer.Option(help="Their short name, like PTS.")],
    decimals: Annotated[int, typer.Option(help="Of a point.", min=0, max=MAX_DECIMALS)] = 2,
    owner_key: OwnerKey = None,
    owner: Annotated[
        str | None, typer.Option(help="Without a key: whose the contract is to be.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Put a new RewardPoints on the chain, and let every rewards wallet mint.

    With --owner instead of --owner-key it prints the transaction for the owner's own wallet.
    """
    if (owner_key is None) == (owner is None):
        raise OperatorError("whose contract?", fix="give --owner-key FILE, or --owner 0x…")
    session = session_of(context)
    if owner_key is None:
        code = creation_code(NewPoints(name, symbol, decimals, owner or ""))
        _print_transactions(None, {"deploys it": code}, as_json=as_json)
        return
    key, wallets = _load(owner_key), _wallets(session)

    async def work(chain: Chain) -> tuple[str, Fraction]:
        from taprail_gateway.settle.reward_owner import Owner

        by = Owner(chain, key, session.settings.settlement)
        made = await by.deploy(NewPoints(name, symbol, decimals, by.address))
        try:
            for wallet in wallets:
                await by.grant(made, wallet)
        except TapRailError as exc:
            raise OperatorError(
                f"the contract is at {made}, but not every wallet may mint: {exc.message}",
                fix=f"taprail admin reward grant --contract {made}",
            ) from exc
        return made, Fraction(10**decimals, 10**chain.token.decimals)

    contract, rate = _on_chain(session, work)
    output.done(
        {"contract": contract, "minters": wallets, "oneForOneRate": str(rate)},
        f"{name} ({symbol}) is at {contract}, {_many(wallets)} may mint.\n"
        "Put this into the configuration, and start the gateway again:\n\n"
        f'[rewards]\ncontract = "{contract}"\nrate = "{rate}"  # a point for each 1.00 paid',
        as_json=as_json,
    )
    if not wallets and not as_json:
        output.console().print("There is no rewards wallet yet: taprail admin lane add --help")


@rewards.command("grant")
def grant(
    context: typer.Context,
    owner_key: OwnerKey = None,
    contract: Annotated[
        str | None, typer.Option(help="Its address; rewards.contract when left out.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Let every rewards wallet mint that may not yet; without a key, say what the owner must send.

    Can be repeated. A running gateway notices by itself.
    """
    session = session_of(context)
    where = _contract(session, contract)
    key = None if owner_key is None else _load(owner_key)
    wallets = _wallets(session)
    if not wallets:
        raise OperatorError(
            "there is no rewards wallet", fix="make one: taprail admin lane add --purpose rewards"
        )

    async def work(chain: Chain) -> list[str]:
        from taprail_gateway.settle.reward_check import is_minter
        from taprail_gateway.settle.reward_owner import Owner

        missing = [each for each in wallets if not await is_minter(chain, where, each)]
        if key is not None:
            by = Owner(chain, key, session.settings.settlement)
            for wallet in missing:
                await by.grant(where, wallet)
        return missing

    missing = _on_chain(session, work)
    if key is None and missing:
        wanted = {f"lets {wallet} mint": mint_calls.set_minter(wallet) for wallet in missing}
        _print_transactions(where, wanted, as_json=as_json)
        return
    data = {"contract": where, "minters": wallets, "granted": missing}
    output.done(data, f"{_many(wallets)} may mint, {len(missing)} since now", as_json=as_json)


@rewards.command("retry")
def retry(
    context: typer.Context,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
    as_json: Json = False,
) -> None:
    """Queue all rewards anew that were given up, once what was wrong is cured.

    That can never reward twice: the contract remembers every payment.
    """
    session = session_of(context)
    by = session.by(reason)
    work = partial(mints.retry_failed, by=by, limit=_AT_ONCE)
    count = 0
    while some := session.write(work):
        count += some
    output.done({"retried": count}, f"{count} rewards wait to be minted again", as_json=as_json)


def _print_transactions(to: str | None, wanted: Mapping[str, bytes], *, as_json: bool) -> None:
    """What somebody else has to sign and send."""
    rows = [{"what": why, "to": to, "data": f"0x{data.hex()}"} for why, data in wanted.items()]
    if as_json:
        output.print_json(rows)
        return
    labels = {"what": "a transaction that", "to": "to", "data": "with the data"}
    for row in rows:
        output.record(row, as_json=False, labels=labels)


def _many(wallets: list[str]) -> str:
    return "1 rewards wallet" if len(wallets) == 1 else f"{len(wallets)} rewards wallets"


def _contract(session: Session, given: str | None) -> str:
    contract = given or session.settings.rewards.contract
    if contract is None:
        raise OperatorError("which contract?", fix="give --contract, or set rewards.contract")
    mint_calls.is_minter(contract)  # raises InputError for what is no address
    return contract.lower()


def _wallets(session: Session) -> list[str]:
    lanes = session.read(queries.all_lanes)
    return [lane.address for lane in lanes if lane.purpose == "rewards"]


def _load(path: Path) -> PrivateKey:
    from coincurve import PrivateKey

    text = read_secret_file(path, "owner's key").strip().removeprefix("0x")
    try:
        return PrivateKey(bytes.fromhex(text if len(text) == _KEY_DIGITS else ""))
    except ValueError:  # no hex, or a number that is no key of the curve
        raise OperatorError(
            f"owner's key {path} is no private key", fix="it must be 64 hex digits"
        ) from None


def _on_chain(session: Session, work: Callable[[Chain], Awaitable[T]]) -> T:
    return asyncio.run(_connected(session, work))


async def _connected(session: Session, work: Callable[[Chain], Awaitable[T]]) -> T:
    from taprail_gateway.settle.connect import connect

    chain = await connect(session.settings.chain)
    try:
        return await work(chain)
    finally:
        await chain.close()
