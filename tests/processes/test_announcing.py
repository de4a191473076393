"""Participants that cannot announce themselves are announced for them."""

import asyncio

from msgflo.flow.discovery import Definition, Instruction
from msgflo.processes.announcing import Announcer
from networks import Network, turns, until

LAMP = Definition("lamp", "lamp", "Lamp")
DOOR = Definition("door", "door", "Door")


def said(network: Network, command: str = "participant") -> list[str]:
    return [it["payload"]["role"] for it in network.heard if it["command"] == command]


async def test_they_are_announced_at_once_when_asked_and_when_they_change(network: Network):
    announcer = Announcer(network.url, lambda why: None)
    announcer.announce({"lamp": LAMP})
    await until(lambda: said(network))
    await turns(100)
    before = len(said(network))
    await network.broker.tell(Instruction("announce").encode())
    await until(lambda: len(said(network)) > before)
    assert {*said(network)} == {"lamp"}
    announcer.announce({"door": DOOR})
    await until(lambda: said(network)[-1] == "door")
    assert said(network, "goodbye") == ["lamp"]
    await announcer.close()
    await announcer.close()
    assert said(network, "goodbye") == ["lamp", "door"]


async def test_they_are_announced_a_little_more_than_twice_in_each_period(network: Network):
    announcer = Announcer(network.url, lambda why: None, period=0.02)
    announcer.announce({"lamp": LAMP})
    await until(lambda: len(said(network)) >= 4)
    assert network.heard[0]["msgflo"]["period"] == 0.02
    await announcer.close()


async def test_without_any_nothing_is_connected_and_an_error_is_told():
    told: list[str] = []
    announcer = Announcer("gopher://x", told.append)
    announcer.announce({})
    await asyncio.sleep(0)
    assert told == []
    announcer.announce({"lamp": LAMP})
    await asyncio.sleep(0)
    await announcer.close()
