import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.coordinator import participants as module
from msgflo.coordinator.participants import EARLIER_KEPT, LOST_KEPT, Participants
from msgflo.flow.discovery import Announcement, Definition, Goodbye, Port


def announcing(
    id_: str, instance: int | None = None, role: str = "b", period: float = 40.0, **ports: str
) -> Announcement:
    definition = Definition(
        id_,
        role,
        "some/Thing",
        inports=tuple(Port(name, queue=queue) for name, queue in (ports or {"in": "b.IN"}).items()),
    )
    return Announcement(definition, instance=instance, period=period)


def heard(*announcements: Announcement, wanted: str = "b") -> Participants:
    there = Participants({})
    there.wanted = set(wanted)
    for announcement in announcements:
        there.heard(announcement, 0.0)
    there.events.clear()
    return there


def ids(there: Participants, role: str = "b", *, lost: bool = False) -> list[str]:
    return [one.announcement.definition.id for one in there.of(role) if one.lost is lost]


def told(there: Participants) -> list[str]:
    texts = [f"{event.kind} {event.role} {event.instance}: {event.text}" for event in there.events]
    there.events.clear()
    return texts


def queues(there: Participants, role: str = "b") -> dict[str, str]:
    return {port.id: port.queue for port in there.definitions[role].inports}


# Lives.


def test_a_participant_lives_for_two_and_a_half_of_its_periods():
    there = heard(announcing("b-1", 1))
    assert there.next_deadline() == 100.0
    there.heard(announcing("b-1", 1), 60.0)
    assert not there.tick(100.0)
    assert there.next_deadline() == 160.0
    assert ids(there) == ["b-1"]
    assert there.tick(160.0)
    assert ids(there) == []
    assert ids(there, lost=True) == ["b-1"]
    assert told(there) == ["lost b 1: b.1 is lost: nothing heard of it for 100 s"]
    assert there.heard(announcing("b-1", 1), 170.0)
    assert told(there) == ["live b 1: b.1 is live again"]
    assert there.next_deadline() == 270.0


def test_who_announces_a_shorter_period_is_missed_earlier():
    there = heard(announcing("b-1", period=40.0))
    there.heard(announcing("b-1", period=4.0), 1.0)
    assert there.next_deadline() == 11.0
    assert there.tick(11.0)
    assert ids(there) == []


def test_a_new_participant_takes_the_place_of_the_one_that_was_the_same_instance():
    there = heard(announcing("old", 1), announcing("other", 2))
    assert there.heard(announcing("new", 1), 1.0)
    assert ids(there) == ["other", "new"]
    assert told(there) == ["live b 1: b.1 is live"]
    there.heard(announcing("other", 2), 99.0)
    there.heard(announcing("new", 1), 99.0)
    there.tick(100.0)  # nobody misses the old one
    assert told(there) == []
    assert not there.knows("b", "old")


def test_two_that_say_they_are_one_instance_are_both_shown_and_told_once():
    there = heard(announcing("one", 1))
    for beat in range(5):
        there.heard(announcing("two", 1), float(beat))
        there.heard(announcing("one", 1), float(beat))
    assert sorted(ids(there)) == ["one", "two"]
    assert told(there) == [
        "live b 1: b.1 is live",
        "wrong b 1: b.1 is held by more than one participant, 'one' being one",
    ]


def test_one_without_an_instance_takes_the_place_of_those_that_are_lost():
    there = heard(announcing("one"), announcing("two"))
    there.tick(100.0)
    there.heard(announcing("three"), 101.0)
    assert ids(there) == ["three"]
    assert ids(there, lost=True) == []


def test_a_goodbye_is_for_one_role_only():
    there = heard(announcing("same"), announcing("same", role="c"))
    assert there.left(Goodbye("same", "c"))
    assert not there.left(Goodbye("same", "c"))
    assert ids(there) == ["same"]
    assert told(there) == ["gone c None: c said goodbye"]


def test_a_process_that_ended_is_lost_at_once():
    there = heard(announcing("b-1", 1), announcing("b-2", 2))
    assert there.vanished("b", 1)
    assert not there.vanished("b", 1)
    assert not there.vanished("nobody", 1)
    assert ids(there) == ["b-2"]
    assert told(there) == ["lost b 1: b.1 is lost: its process ended"]


@pytest.mark.parametrize(
    ("wanted", "served", "kept"), [("b", False, True), ("b", True, False), ("", False, False)]
)
def test_the_lost_are_shown_for_an_hour_and_longer_only_where_their_role_needs_them(
    wanted, served, kept
):
    there = heard(announcing("b-1", 1), wanted=wanted)
    there.tick(100.0)
    end = 100.0 + LOST_KEPT
    if served:
        there.heard(announcing("b-2", 2, period=1e4), 100.0)
    there.tick(end - 1)
    assert ids(there, lost=True) == ["b-1"]
    there.tick(end)
    assert ids(there, lost=True) == (["b-1"] if kept else [])
    assert there.next_deadline() is None or there.next_deadline() > end


def test_what_comes_and_goes_for_ever_takes_no_room_for_ever(monkeypatch):
    there = heard(announcing("b-1", 1), wanted="b")
    monkeypatch.setattr(module, "MOST_DEFINITIONS", 100)
    for number in range(2000):
        role = f"r{number}"
        there.heard(announcing("x", role=role), float(number))
        there.heard(announcing("b-1", 1, period=40.0 + number % 7), float(number))
        if number % 2:
            there.left(Goodbye("x", role))
        there.tick(float(number))
        there.events.clear()
    # Who is found lost is shown for an hour from then on.
    there.tick(2100.0)
    there.tick(2100.0 + LOST_KEPT)
    there.events.clear()
    for number in range(10):
        there.heard(announcing("x", role=f"s{number}"), 6000.0)
    assert sum(1 for _ in there) <= 12
    assert len(there._roles) <= 12
    assert len(there._deadlines) <= 200
    assert len(there.definitions) <= 2000
    assert "b" in there.definitions


# What a role is.


def test_a_role_has_the_ports_of_all_its_participants_as_the_latest_says_them():
    there = heard(
        announcing("one", 1, **{"in": "one", "only": "x"}), announcing("two", 2, **{"in": "two"})
    )
    assert queues(there) == {"in": "two", "only": "x"}
    there.heard(announcing("one", 1, **{"in": "one", "only": "x"}), 1.0)
    assert queues(there) == {"in": "two", "only": "x"}


def test_ports_of_one_name_are_kept_as_they_are_said():
    twins = Definition(
        "b-1", "b", "esp/Thing", inports=(Port("in", queue="x"), Port("in", queue="y"))
    )
    there = heard(Announcement(twins))
    assert there.definitions["b"].inports == twins.inports
    assert told(there) == []


def test_who_changes_its_ports_counts_as_the_latest():
    there = heard(announcing("one", 1), announcing("two", 2))
    there.heard(announcing("one", 1, **{"in": "b/in"}), 1.0)
    assert queues(there) == {"in": "b/in"}
    assert told(there)[0] == "changed b 1: b.1 has changed ports"


def test_a_restart_with_other_ports_replaces_them():
    there = heard(announcing("old", 1, **{"in": "b.IN", "gone": "b.GONE"}))
    there.heard(announcing("new", 1, **{"in": "b/in"}), 1.0)
    assert queues(there) == {"in": "b/in"}


def test_a_port_stays_when_the_only_one_that_had_it_leaves():
    there = heard(announcing("one", 1), announcing("two", 2, **{"in": "other", "debug": "d"}))
    there.left(Goodbye("two", "b"))
    assert queues(there) == {"in": "b.IN", "debug": "d"}
    there.left(Goodbye("one", "b"))
    assert queues(there) == {"in": "b.IN", "debug": "d"}
    there.heard(announcing("three", 1), 1.0)
    assert queues(there) == {"in": "b.IN"}


def test_what_an_earlier_coordinator_knew_counts_until_all_must_have_been_heard():
    earlier = heard(announcing("one", 1), announcing("two", 2, debug="d")).definitions
    there = Participants(earlier)
    there.wanted = {"b"}
    assert there.next_deadline() is None
    there.heard(announcing("one", 1, period=1e4), 50.0)
    assert queues(there) == {"in": "b.IN", "debug": "d"}
    assert not there.complete
    assert there.next_deadline() == 50.0 + EARLIER_KEPT
    assert there.tick(50.0 + EARLIER_KEPT)
    assert queues(there) == {"in": "b.IN"}
    assert there.complete
    assert there.next_deadline() == 50.0 + 2.5e4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["hear", "leave", "vanish", "tick"]),
            st.sampled_from(["one", "two", "three"]),
            st.sampled_from([None, 1, 2]),
            st.sampled_from([0.0, 1.0, 30.0, 101.0, LOST_KEPT]),
        ),
        max_size=30,
    )
)
def test_whatever_happens_a_deadline_that_is_over_clears(happenings):
    there = Participants({})
    there.wanted = {"b"}
    now = 0.0
    for what, id_, instance, passed in happenings:
        now += passed
        if what == "hear":
            there.heard(announcing(id_, instance), now)
            assert id_ in ids(there)
        elif what == "leave":
            there.left(Goodbye(id_, "b"))
            assert not there.knows("b", id_)
        elif what == "vanish":
            there.vanished("b", instance or 1)
        there.tick(now)
        deadline = there.next_deadline()
        assert deadline is None or deadline > now
        expected = [one.deadline for one in there if not one.lost]
        assert not expected or (deadline is not None and deadline <= min(expected))
