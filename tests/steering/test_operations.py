"""The protocol msgflo, on a real network with real dead letters."""

import asyncio

import pytest

from msgflo.errors import ProtocolError

WAIT = 60.0
FAILING = "INPORT=f.in:into\nf(Fail) out -> in b(Repeat)"


async def letters(it, count, **payload):
    async with asyncio.timeout(WAIT):
        while True:
            found = (await it.client.ask("deadletters:list", **payload))["letters"]
            if len(found) == count:
                return found
            await asyncio.sleep(0.05)


async def test_dead_letters_are_listed_shown_edited_requeued_exported_and_purged(steering):
    async with steering(FAILING) as it:
        await it.complete()
        for number in range(3):
            await it.send({"n": number, "text": "x" * 3000 * (number == 2)})
        found = await letters(it, 3)
        assert [one["data"]["n"] for one in found[:2]] == [0, 1]
        assert len(found[2]["start"]) == 2000
        assert found[0]["death"]["error"] == "ValueError"
        assert "traceback" not in found[0]["death"]
        ask = it.client.ask
        assert len((await ask("deadletters:list", node="f", limit=2))["letters"]) == 2
        shown = (await ask("deadletters:show", node="f", key=found[2]["key"]))["letter"]
        assert shown["data"]["text"] == "x" * 3000
        assert "not {'n': 2" in shown["death"]["traceback"]
        exported = await ask("deadletters:export", node="f", port="in")
        assert [one["data"]["n"] for one in exported["letters"]] == [0, 1, 2]
        assert exported["more"] is False
        assert (await ask("deadletters:requeue", node="f", keys=[found[0]["key"]]))["requeued"] == 1
        again = await letters(it, 3, queue="dead-f.IN")
        assert again[-1]["headers"]["Msgflo-Requeued"] == "1"
        edited = await ask("deadletters:edit", node="f", key=found[1]["key"], data=["other"])
        assert edited["requeued"] == 1
        again = await letters(it, 3)
        assert again[-1]["data"] == ["other"]
        keys = [again[0]["key"]]
        assert (await ask("deadletters:purge", queue="f.IN", keys=keys))["purged"] == 1
        with pytest.raises(ProtocolError, match="which dead letters are meant"):
            await ask("deadletters:purge", queue="f.IN")
        assert (await ask("deadletters:purge", queue="f.IN", all=True))["purged"] == 2
        await letters(it, 0)
        with pytest.raises(ProtocolError, match="there is no dead letter"):
            await ask("deadletters:show", node="f", key="none")


async def test_roles_are_scaled_and_restarted(steering):
    async with steering() as it:
        await it.complete()
        ask = it.client.ask

        def instances(status):
            found = next(one for one in status["nodes"] if one["node"] == "a")
            return {one["instance"]: one["pid"] for one in found["instances"]
                    if one["state"] == "live"}  # fmt: skip

        one = instances(await it.complete())
        await ask("scale", node="a", instances=3)
        three = instances(await it.until(lambda s: len(instances(s)) == 3))
        assert three[1] == one[1]
        await ask("restart", node="a", instance=2)
        after = instances(
            await it.until(lambda s: len(instances(s)) == 3 and instances(s)[2] != three[2])
        )
        assert (after[1], after[3]) == (three[1], three[3])
        await ask("scale", node="a", instances=1)
        await it.until(lambda s: instances(s) == one)
        for wrong, said in (
            ({"node": "a", "instances": -1}, "instances is -1"),
            ({"node": "a", "instances": "2"}, "instances is '2'"),
            ({"node": "z", "instances": 1}, "no node 'z'"),
            ({"node": ["a"], "instances": 1}, "no node"),
            ({"node": "a", "instances": 1, "graph": "none"}, "Requested graph not found"),
        ):
            with pytest.raises(ProtocolError, match=said):
                await ask("scale", **wrong)
        with pytest.raises(ProtocolError, match="has no instance 7"):
            await ask("restart", node="a", instance=7)


async def test_subscribers_are_told_what_is_news_and_nobody_else(steering):
    async with steering() as it:
        await it.client.ask("subscribe", topics=["status", "queues", "events"])
        await it.complete()
        status = await it.client.until("msgflo", "status:changed", WAIT)
        assert status["graph"] == "main"
        await it.client.command("graph", "addnode", id="c", component="Repeat", graph="main")
        heard = set()
        async with asyncio.timeout(WAIT):
            async for push in it.client.pushes():
                if push.protocol == "msgflo":
                    heard.add(push.command)
                if push.command == "event" and "c.1 is live" in push.payload["text"]:
                    break
        assert {"event", "status:changed", "queues:changed"} <= heard
        queues = await it.client.ask("queues")
        kinds = {(one["node"], one["kind"]) for one in queues["queues"]}
        assert {("a", "work"), ("a", "place"), ("a", "dead"), ("c", "work")} <= kinds
        await it.client.ask("unsubscribe")


async def test_what_is_not_known_is_said(steering):
    async with steering() as it:
        await it.complete()
        with pytest.raises(ProtocolError, match="msgflo has no command 'weather'"):
            await it.client.ask("weather")
        with pytest.raises(ProtocolError, match="has no inport 'inn'; it has: in"):
            await it.client.ask("deadletters:requeue", node="a", port="inn", all=True)
        with pytest.raises(ProtocolError, match="limit is 0"):
            await it.client.ask("deadletters:list", limit=0)
