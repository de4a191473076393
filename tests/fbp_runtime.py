"""A small runtime of the FBP protocol, to run suites on: as strict as clients may expect.

Its components are ``Repeat``, ``Fails`` (a processerror), ``Quiet`` and ``Shout`` (a
network:output). As a program: ``python fbp_runtime.py PORT [SECRET]``.
"""

import asyncio
import json
import sys

from websockets.asyncio.server import serve

COMPONENTS = ("Repeat", "Fails", "Quiet", "Shout")
CAPABILITIES = [
    "protocol:runtime", "protocol:graph", "protocol:network", "protocol:component",
    "component:getsource",
]  # fmt: skip
TESTS = """
topic: Repeat
name: of Repeat itself
cases:
- {name: n, assertion: a, inputs: {in: 1}, expect: {out: {equals: 1}}}
"""


class FbpRuntime:
    def __init__(self, secret="", version="0.7", capabilities=CAPABILITIES):
        self.secret = secret
        self.version = version
        self.capabilities = capabilities
        self.graphs = {}
        self.running = set()
        self.received = []
        self.silent = set()
        self.refuses = {}
        self.server = None

    async def start(self, port=0):
        self.server = await serve(self.converse, "127.0.0.1", port, subprotocols=["noflo"])
        self.port = self.server.sockets[0].getsockname()[1]
        self.address = f"ws://127.0.0.1:{self.port}"
        return self

    async def close(self):
        self.server.close()
        await self.server.wait_closed()

    async def converse(self, socket):
        async for text in socket:
            message = json.loads(text)
            protocol, command = message["protocol"], message["command"]
            payload = dict(message["payload"])
            allowed = payload.pop("secret", "") == self.secret
            self.received.append((f"{protocol}:{command}", payload))

            async def say(protocol, command, payload):
                message = {"protocol": protocol, "command": command, "payload": payload}
                await socket.send(json.dumps(message))

            if f"{protocol}:{command}" in self.silent:
                continue
            if f"{protocol}:{command}" in self.refuses:
                await say(protocol, "error", {"message": self.refuses[f"{protocol}:{command}"]})
            elif (protocol, command) == ("runtime", "getruntime"):
                capabilities = self.capabilities if allowed else []
                await say("runtime", "runtime", {
                    "version": self.version, "type": "test", "capabilities": capabilities,
                })  # fmt: skip
            elif not allowed:
                await say(protocol, "error", {"message": "that is not the secret"})
            else:
                try:
                    await self.obey(say, protocol, command, payload)
                except KeyError as error:
                    await say(protocol, "error", {"message": f"there is no {error}"})

    async def obey(self, say, protocol, command, payload):
        match protocol, command:
            case "component", "list":
                for name in COMPONENTS:
                    await say("component", "component", {
                        "name": name, "subgraph": False,
                        "inPorts": [{"id": "in", "type": "any"}],
                        "outPorts": [{"id": "out", "type": "any"}],
                    })  # fmt: skip
                await say("component", "componentsready", len(COMPONENTS))
            case "component", "getsource":
                await say("component", "source", {
                    "name": payload["name"], "language": "none", "code": "",
                    "tests": TESTS if payload["name"] == "Repeat" else "describe('mocha')",
                })  # fmt: skip
            case "graph", "clear":
                self.graphs[payload["id"]] = {"nodes": {}, "in": {}, "out": {}}
                await say(protocol, command, payload)
            case "graph", _:
                graph = self.graphs[payload["graph"]]
                if command == "addnode":
                    assert payload["component"] in COMPONENTS
                    graph["nodes"][payload["id"]] = payload["component"]
                elif command in ("addinport", "addoutport"):
                    way = "in" if command == "addinport" else "out"
                    graph[way][payload["public"]] = graph["nodes"][payload["node"]]
                await say(protocol, command, payload)
            case "network", "start" | "stop":
                self.graphs[payload["graph"]]
                change = self.running.add if command == "start" else self.running.discard
                change(payload["graph"])
                done = "started" if command == "start" else "stopped"
                await say(protocol, done, {"graph": payload["graph"]})
            case "runtime", "packet":
                await self.packet(say, payload)
            case _:
                raise KeyError(command)

    async def packet(self, say, payload):
        graph = self.graphs[payload["graph"]]
        component = graph["in"][payload["port"]]
        if component != "Quiet":
            # Some clients take any packet; others' come in between.
            await say("runtime", "packet", {**payload, "graph": "other", "port": "out"})
        if self.version >= "0.7":
            await say("runtime", "packetsent", payload)
        if component == "Fails":
            await say("network", "processerror", {
                "id": "testee", "error": "it broke", "graph": payload["graph"],
            })  # fmt: skip
        elif component != "Quiet":
            if component == "Shout":
                await say("network", "output", {"message": f"I got {payload['payload']}"})
            for event in ("begingroup", "data", "endgroup"):
                out = {"port": "out", "event": event, "graph": payload["graph"]}
                if event == "data":
                    out["payload"] = payload["payload"]
                await say("runtime", "packet", out)


async def main(port, secret=""):
    runtime = await FbpRuntime(secret).start(int(port))
    sys.stdout.write(f"listening at {runtime.address}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
