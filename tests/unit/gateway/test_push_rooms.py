"""Whoever enters a room hears every step once: by what was read for them, or as it happens."""

from __future__ import annotations

from taprail_gateway.push_rooms import MAX_HELD, Message, Rooms


def step(seq: int) -> list[Message]:
    return [Message(seq, "transaction:update", {"seq": seq})]


def test_what_happens_during_the_read_is_held_and_not_doubled() -> None:
    rooms = Rooms()
    rooms.enter("a", "r")
    assert rooms.tell("r", step(1)) == []
    assert rooms.tell("r", step(2)) == []
    # The read has seen 1 and 3; the pump has brought 1 and 2, and 3 is to come.
    assert rooms.begin("a", "r", known=[1, 3], to_come=[3]) == step(2)
    assert rooms.tell("r", step(3)) == []
    assert rooms.tell("r", step(4)) == ["a"]


def test_each_member_is_told_what_they_do_not_know() -> None:
    rooms = Rooms()
    for sid, known in (("a", [1]), ("b", [])):
        rooms.enter(sid, "r")
        assert rooms.begin(sid, "r", known, known) == []
    assert rooms.tell("r", step(1)) == ["b"]
    assert rooms.tell("r", step(2)) == ["a", "b"]


def test_whoever_is_too_far_behind_is_said_to_be() -> None:
    rooms = Rooms()
    rooms.enter("a", "r")
    for seq in range(MAX_HELD + 1):
        rooms.tell("r", step(seq))
    assert rooms.begin("a", "r", [], []) is None


def test_nothing_is_left_of_who_has_left() -> None:
    rooms = Rooms()
    for room in ("r", "s"):
        rooms.enter("a", room)
        rooms.enter("b", room)
    rooms.leave("a", "r")
    assert rooms.begin("a", "r", [], []) is None
    assert rooms.count("a") == 1
    rooms.forget("a")
    rooms.forget("b")
    rooms.forget("nobody")
    rooms.leave("nobody", "r")
    assert not rooms.is_heard("r")
    assert not rooms.is_heard("s")
    assert rooms.count("a") == 0
