"""The bench's own arithmetic: a wrong one would praise or blame without reason."""

from __future__ import annotations

import pytest

from tests.bench import goals, notes
from tests.bench.peers.measure import steady_rate
from tests.bench.scenario import BenchError

ARRIVED_S = {1: 10.0, 2: 11.0, 3: 12.0, 4: 13.5, 5: 14.5}


def test_a_rate_leaves_out_the_partly_empty_first_and_last_block() -> None:
    mined = {2: 7, 3: 300, 4: 450, 5: 1}
    assert steady_rate(mined, ARRIVED_S) == pytest.approx(750 / 2.5)


def test_an_empty_block_in_between_counts_as_time() -> None:
    assert steady_rate({1: 5, 3: 100, 5: 5}, ARRIVED_S) == pytest.approx(100 / 3.5)


@pytest.mark.parametrize("mined", [{}, {3: 10}, {3: 10, 4: 10}])
def test_too_few_blocks_tell_no_rate(mined: dict[int, int]) -> None:
    with pytest.raises(BenchError, match="too few blocks"):
        steady_rate(mined, ARRIVED_S)


def test_peers_are_compared_within_one_run_only() -> None:
    assert goals.beaten({"peer.x402_per_s": 40.0}) == {}
    both = {"settle.completed_per_s": 600.0, "peer.x402_per_s": 40.0}
    assert goals.beaten(both) == {"peer.x402_beaten": 15.0}


def test_a_peer_that_settled_nothing_is_not_said_to_be_beaten() -> None:
    assert goals.beaten({"settle.completed_per_s": 600.0, "peer.viem_per_s": 0.0}) == {}


def test_notes_are_given_for_what_was_measured() -> None:
    assert notes.table(["gateway.ready_s"]) is None
    shown = notes.table(["peer.viem_per_s"])
    assert shown is not None
    assert list(shown.columns[0].cells) == ["peer.*", "peer.viem*"]
