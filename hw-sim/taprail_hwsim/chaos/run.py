"""A campaign: rounds of trouble on the whole stack until the time is over, each one judged.

A round that fails leaves its stack's folder for whoever has to look; the next one begins on a fresh
stack, so that one failure does not colour what comes after it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console

from taprail_gateway.ledger.engines import ledger_url, place
from taprail_hwsim.chaos.crowd import Crowd
from taprail_hwsim.chaos.databases import Databases
from taprail_hwsim.chaos.judge import Books, Judgement, judge, still_open
from taprail_hwsim.chaos.report import BlockCell, Report, RoundResult
from taprail_hwsim.chaos.schedule import Round, rounds
from taprail_hwsim.chaos.screen import Screen
from taprail_hwsim.chaos.site import Site, open_site
from taprail_hwsim.chaos.troubles import (
    NOT_REACHED,
    WIRE,
    carry_out,
    catalogue,
    select_names,
)
from taprail_hwsim.dev_chain import MULTICALL3_ADDRESS
from taprail_hwsim.process import ProgramError
from taprail_hwsim.published import Published
from taprail_hwsim.rpc import RpcError
from taprail_hwsim.stack import Stack, StackOptions

BLOCKS_TO_SETTLE: Final = 10
"""After the end of a fault and of the leases of whoever died in it: by then nothing may be lost,
doubled or stuck."""
_ANSWER_TIMEOUT_S: Final = 60.0
"""After the load's end, for the last signed verdict."""
_NODE_TIMEOUT_S: Final = 120.0
_PIPE_COLUMNS: Final = 110
_CONTROL_S: Final = 2.0


@dataclass(frozen=True)
class ChaosOptions:
    """What to run, and for how long."""

    seed: int
    minutes: float
    rounds: int | None = None
    faults: tuple[str, ...] = ()
    payments_per_s: float = 5.0
    lanes: int = 1
    gateways: int = 1
    block_time_s: float = 1.0
    rpc_url: str | None = None
    token: str | None = None
    multicall: str = MULTICALL3_ADDRESS
    published: Published = field(default_factory=Published)
    """Contracts for a chain of our own."""
    database_url: str | None = None
    """A PostgreSQL server, on which each stack's ledger is a new database; None: in files."""
    keep: Path | None = None

    def names(self) -> list[str]:
        """The faults that will be drawn from; raises ValueError for one that there is not."""
        return select_names(self.faults, list(catalogue(node_is_ours=self.rpc_url is None)))

    def command(self) -> str:
        """The command line that repeats it."""
        words = ["taprail-sim", "chaos", "--seed", str(self.seed), "--minutes", f"{self.minutes:g}"]
        words += ["--payments-per-s", f"{self.payments_per_s:g}", "--lanes", str(self.lanes)]
        words += ["--gateways", str(self.gateways)]
        words += ["--block-time", f"{self.block_time_s:g}"]
        words += [] if self.rounds is None else ["--rounds", str(self.rounds)]
        words += [word for fault in self.faults for word in ("--fault", fault)]
        if self.rpc_url is not None:
            words += ["--rpc-url", self.rpc_url, "--token", str(self.token)]
            words += ["--multicall", self.multicall]
        for option, file in (
            ("--token", self.published.token),
            ("--multicall", self.published.multicall),
        ):
            words += [] if file is None else [option, str(file)]
        if self.database_url is not None:
            words += ["--database", place(ledger_url(self.database_url))]
        return shlex.join(words)


async def run_chaos(options: ChaosOptions, *, as_json: bool) -> bool:
    """Run a campaign; whether everything held. In JSON mode what people see goes to stderr."""
    console = Console(file=sys.stderr if as_json else sys.stdout, highlight=False)
    if not console.is_terminal:
        console.width = _PIPE_COLUMNS
    campaign = Campaign(options, Screen(console))
    report = await campaign.run()
    if as_json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2) + "\n")
    return report.holds


class Campaign:
    """One seed's rounds, over one stack or, after failures, several."""

    def __init__(self, options: ChaosOptions, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._names = options.names()
        self._report = Report(options.seed, options.command())
        self._deadline_s = 0.0
        self._left = options.rounds
        self._databases: Databases | None = None
        if options.database_url is not None:
            self._databases = Databases(options.database_url)

    async def run(self) -> Report:
        """Until the time, or the number of rounds, is over."""
        began_s = time.monotonic()
        self._deadline_s = began_s + self._options.minutes * 60
        self._screen.title(
            "TapRail chaos",
            f"seed {self._options.seed} · {self._options.minutes:g} min ·"
            f" {self._options.payments_per_s:g} payments/s · {len(self._names)} faults",
        )
        draws = catalogue(node_is_ours=self._options.rpc_url is None)
        plan = rounds(self._options.seed, self._names, draws)
        # Not in the project's folder: the path of a socket must be short.
        base = self._options.keep or Path(tempfile.mkdtemp(prefix="taprail-chaos-"))
        for number in itertools.count(1):
            try:
                await self._on_a_stack(base / str(number), plan)
            except ProgramError as exc:
                if not self._report.results:
                    raise  # it has never worked: that is for whoever started this
                self._report.problems.append(str(exc))
                break
            if self._is_over() or not self._report.results[-1].round.names:
                break  # a stack on which nothing works without a fault says nothing about faults
        self._report.seconds = time.monotonic() - began_s
        self._screen.end(self._report)
        if self._report.holds and self._options.keep is None:
            shutil.rmtree(base, ignore_errors=True)
            if self._databases is not None:
                self._databases.drop_all()
        return self._report

    def _is_over(self) -> bool:
        return time.monotonic() >= self._deadline_s or self._left == 0

    async def _on_a_stack(self, folder: Path, plan: Iterator[Round]) -> None:
        """Rounds on one stack, until one fails or all is over."""
        options = StackOptions(
            folder,
            rpc_url=self._options.rpc_url,
            token=self._options.token,
            multicall=self._options.multicall,
            published=self._options.published,
            database_url=self._databases.fresh() if self._databases is not None else None,
            block_time_s=self._options.block_time_s,
            with_terminal=False,
            lanes=self._options.lanes,
            gateways=self._options.gateways,
            proxy_seed=self._options.seed,
        )
        async with Stack(options) as stack, open_site(stack) as site:
            rng = random.Random(self._options.seed)
            crowd = Crowd(stack, rng, self._options.payments_per_s)
            try:
                held = await self._round(site, crowd, Round(0, (), (), _CONTROL_S))
                while held and not self._is_over():
                    if self._left is not None:
                        self._left -= 1
                    held = await self._round(site, crowd, next(plan))
            finally:
                await crowd.go_home()

    async def _round(self, site: Site, crowd: Crowd, round_: Round) -> bool:
        with self._screen.at_work(round_):
            try:
                result = await play(site, crowd, round_)
            except (ProgramError, RpcError, TimeoutError) as exc:
                what = str(exc) or f"no new block in {_NODE_TIMEOUT_S:.0f} s"
                result = unfinished(site, round_, what)
        self._report.results.append(result)
        self._screen.result(result)
        return result.judgement.holds


async def play(site: Site, crowd: Crowd, round_: Round) -> RoundResult:
    """One round: business, trouble amid it, then ten blocks to be well again."""
    first_sale, first_block = len(crowd.sales), site.heads.number
    injections_before = len(site.proxy.injected)
    async with crowd.paying():
        await asyncio.sleep(round_.lead_s)
        trouble_from = site.heads.number
        remarks = await asyncio.gather(*(carry_out(it, site) for it in round_.troubles))
        amid = range(trouble_from + 1, site.heads.number + 1)
        async with asyncio.timeout(_NODE_TIMEOUT_S):
            await site.heads.next()
    await site.all_up()
    await site.leases_end()
    end = site.heads.number
    await crowd.all_answered(_ANSWER_TIMEOUT_S)
    settled_at = await _settle(site, crowd, end)
    books = await site.audited_books()
    sales = crowd.sales[first_sale:]
    injected = Counter(item.fault for item in list(site.proxy.injected)[injections_before:])
    for name, trouble, remark in zip(round_.names, round_.troubles, remarks, strict=True):
        injected[name] += trouble.kind != WIRE and remark != NOT_REACHED
    ids = {sale.payment_id for sale in sales if sale.is_approved}
    return RoundResult(
        round=round_,
        judgement=judge(crowd.sales, books, trouble=site.trouble()),
        remarks=tuple(remarks),
        injected=injected,
        approved=len(ids),
        declined=sum(1 for sale in sales if sale.outcome is not None and not sale.is_approved),
        settled=len(ids & {transfer.nonce for transfer in books.transfers}),
        blocks_to_settle=max(0, settled_at - end),
        blocks=_cells(books, range(first_block + 1, site.heads.number + 1), amid),
        state_dir=site.stack.state_dir,
    )


def unfinished(site: Site, round_: Round, what: str) -> RoundResult:
    """A round that could not be brought to its end, which is a finding as well."""
    return RoundResult(
        round=round_,
        judgement=Judgement(problems=[what, *site.trouble()]),
        remarks=("not finished",) * len(round_.names),
        state_dir=site.stack.state_dir,
    )


async def _settle(site: Site, crowd: Crowd, end: int) -> int:
    """Wait until all approved payments are completed and all lanes go on, at most ten blocks; gives
    the last block."""
    async with asyncio.timeout(_NODE_TIMEOUT_S):
        while site.heads.number < end + BLOCKS_TO_SETTLE:
            books = await site.books()
            if not still_open(crowd.sales, books) and not books.paused_lanes:
                break
            await site.heads.next()
    return site.heads.number


def _cells(books: Books, blocks: range, amid: range) -> tuple[BlockCell, ...]:
    """The timeline: how many payments each block settled, and whether trouble was on."""
    settled = Counter(transfer.block_number for transfer in books.transfers)
    return tuple(BlockCell(settled[number], number in amid) for number in blocks)
