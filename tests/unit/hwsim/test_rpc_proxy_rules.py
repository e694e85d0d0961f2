"""Which fault meets which call: how rules are written, and how they draw."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from taprail_hwsim.rpc_proxy import FAULTS, Amount, Call, Fault, FaultSpecError, Rule, parse_rule
from taprail_hwsim.rpc_proxy.decide import choose
from taprail_hwsim.rpc_proxy.exchange import put_answers, take_apart
from taprail_hwsim.rpc_proxy.table import about


def call(method: str, number: int = 1) -> Call:
    return Call({"jsonrpc": "2.0", "id": number, "method": method, "params": [number]})


@dataclass
class Each(Fault):
    """Meets each call by itself."""

    is_per_call = True


@dataclass
class Whole(Fault):
    """Meets a request as a whole."""


@pytest.mark.parametrize(
    ("text", "rate", "count", "methods"),
    [
        ("hang", 1.0, None, ()),
        ("hang:0.25", 0.25, None, ()),
        ("hang:3", 1.0, 3, ()),
        ("hang:1.0", 1.0, None, ()),
        ("hang:2:heard=1@eth_call,eth_getLogs", 1.0, 2, ("eth_call", "eth_getLogs")),
    ],
)
def test_a_rule_as_text(text: str, rate: float, count: int | None, methods: tuple[str]) -> None:
    rule = parse_rule(text)
    assert (rule.name, rule.amount, rule.methods) == ("hang", Amount(rate, count), methods)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hangs", "there is no fault 'hangs'; there are: drop_request"),
        ("", "there is no fault ''"),
        ("hang:much", "neither a rate"),
        ("hang:1.5", "neither a rate"),
        ("hang:-1", "neither a rate"),
        ("hang:nan", "neither a rate"),
        ("hang:9999999", "a count up to"),
        ("hang:1:2", "one rate or one count"),
        ("delay:ms=x", "ms must be a whole number"),
        ("delay:ms=99999999", "ms must be from 0 to"),
        ("delay:s=1", "delay has no 's'; it has: ms"),
    ],
)
def test_a_rule_that_cannot_be_read_says_what_would_be_right(text: str, words: str) -> None:
    with pytest.raises(FaultSpecError, match=words):
        parse_rule(text)


def test_every_fault_has_a_name_and_one_sentence() -> None:
    assert len(set(FAULTS.values())) == len(FAULTS)
    for name in FAULTS:
        assert about(name).endswith(".")
        assert about(name).count(". ") == 0


def test_a_fault_of_a_call_is_drawn_for_each_and_one_of_the_wire_once() -> None:
    calls = [call("eth_call", number) for number in range(1000)]
    each, whole = Rule("each", Each(), Amount(0.3)), Rule("whole", Whole(), Amount(0.3))
    rng = random.Random(1)
    met = {
        meeting.rule.name: meeting for meeting in choose([each, whole], calls, rng, answered=False)
    }
    assert 230 < len(met["each"].calls) < 370
    hits = sum(bool(choose([whole], calls, rng, answered=False)) for _ in range(1000))
    assert 230 < hits < 370


def test_a_count_is_used_up_by_what_it_meets_and_by_nothing_else() -> None:
    rule = Rule("each", Each(), Amount(count=2), ("eth_call",))
    rng = random.Random(1)
    for method in ("eth_chainId", "eth_call", "eth_chainId", "eth_call", "eth_call"):
        choose([rule], [call(method)], rng, answered=False)
    assert rule.injected == 2
    assert choose([rule], [call("eth_call")], rng, answered=False) == []


def test_a_seed_makes_the_same_choices() -> None:
    def chosen(seed: int) -> list[int]:
        rng = random.Random(seed)
        rules = [Rule("a", Each(), Amount(0.4)), Rule("b", Whole(), Amount(0.4))]
        calls = [call("eth_call", number) for number in range(5)]
        return [
            sum(len(meeting.calls) for meeting in choose(rules, calls, rng, answered=False))
            for _ in range(50)
        ]

    assert chosen(7) == chosen(7)
    assert chosen(7) != chosen(8)


def test_answers_find_their_calls_by_their_ids() -> None:
    calls, is_batch, _ = take_apart(
        b'[{"id": 1, "method": "a"}, {"id": "1", "method": "b"}, {"id": 2, "method": "c"}]'
    ) or ([], False, None)
    assert is_batch
    put_answers(calls, [{"id": "1", "result": "b"}, {"id": 1, "result": "a"}])
    assert [item.result for item in calls] == ["a", "b", None]
    assert calls[2].answer is None
    with pytest.raises(ValueError, match="no JSON-RPC"):
        put_answers(calls, [1, 2, 3])


def test_an_error_for_a_whole_batch_is_everybodys() -> None:
    calls = [call("a", 1), call("b", 2)]
    put_answers(calls, {"id": None, "error": {"code": -32600, "message": "no batches here"}})
    assert Counter(item.answer is not None and item.answer["id"] for item in calls) == {1: 1, 2: 1}
