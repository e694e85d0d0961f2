"""What is not like for like in the figures, in words: shown below them, for those that were run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from rich.table import Table

NOTES: Final[Mapping[str, str]] = {
    "tap.": (
        "Everything is real but the copper. rf: each exchange with the card takes 8 ms of air time;"
        " without it, none. pcsc: the card comes when pcscd looks, every 0.4 s, and that is"
        " most of the time until it is sensed. lift: the first tone, which asks to lift the card."
    ),
    "settle.": (
        "Ours signs each payer's authorization, syncs every step to disk before it is sent, checks"
        " each payment's logs and goes through Multicall3, 50 payments a transaction. The payments"
        " were accepted beforehand: no HTTP and no checks of cards in it. 60 s of full blocks raise"
        " the base fee a thousandfold: the lane has the highest fee cap and a million coins."
    ),
    "growth.": (
        "One process at rest turns the loops by hand, on a node that mines only when told: neither"
        " HTTP nor other loops beside it. The past is written by the ledger's own functions, and"
        " its transactions are not on the chain. In flight: blocks so small that each takes three"
        " transactions of 25 payments. idle_tick: a pass on a chain that has not moved. Node and"
        " disk are in all times; nodes with more in their pool are slower themselves."
    ),
    "restart.": (
        "The node keeps running and has its pool: what it knows it refuses at once. 10,000 in"
        " flight are 200 full transactions (sending) or 10,000 with a payment each (sending_alone)."
        " The limit on what is in flight is raised between kill and start, or nothing new could be"
        " sent. The files are in the page cache: it is a killed process, not a cold machine."
    ),
    "peer.": (
        "Peers get authorizations that are signed beforehand and keep nothing: a crash forgets what"
        " was sent. One direct transfer a transaction (65 k gas): a block of 30 M ends them at"
        " 460/s, ours at some 690/s (43 k). A fresh node for each, judged by its Transfer logs."
    ),
    "peer.web3_wait": "One by one, waiting for each receipt: the block time is the limit.",
    "peer.web3_gather": (
        "50 at a time on a local nonce counter; gas limit and fees given, no receipt looked at."
    ),
    "peer.ethers": "NonceManager, 50 at a time; gas limit given, no receipt looked at.",
    "peer.viem": "nonceManager, 50 at a time; gas limit given, no receipt looked at.",
    "peer.x402": (
        "Its own verify and settle, 50 at a time, without the HTTP server around them. It does more"
        " than the other peers: it checks each payment by calls and waits for its receipt, so 50"
        " at a time is also its limit per block. viem's nonceManager is our addition."
    ),
}


def table(keys: Iterable[str]) -> Table | None:
    """The notes for what was measured; None when nothing needs one."""
    known = list(keys)
    shown = Table(title="Not like for like", title_justify="left", show_header=False, box=None)
    for prefix, text in NOTES.items():
        if any(key.startswith(prefix) for key in known):
            shown.add_row(f"{prefix}*", text, style="dim")
    return shown if shown.row_count else None
