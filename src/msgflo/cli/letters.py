"""Dead letters of a network that runs: told, repaired, put back, written down, deleted."""

import asyncio
import base64
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from msgflo.cli.looking import aged, check_roles, print_json, table
from msgflo.cli.network import steer, waiting
from msgflo.cli.options import Chosen, Where
from msgflo.errors import ConfigurationError, ProtocolError, near
from msgflo.processes.output import clean, plain
from msgflo.protocol.client import Client
from msgflo.transport.contract import REQUEUED

__all__ = ["edit", "export", "fits", "list_letters", "purge", "requeue", "show"]

AT_ONCE = 100
"""So many are asked for, put back or deleted by one command of the protocol."""

Letter = dict[str, Any]


def fits(letter: Mapping[str, Any], chosen: Chosen, now: float) -> bool:
    """Tell whether a dead letter is among those that are meant, its role aside."""
    death = letter["death"]
    age = now - death["died"]
    return (
        (chosen.error.casefold() in f"{death['error']}: {death['text']}".casefold())
        and (chosen.older is None or age >= chosen.older)
        and (chosen.newer is None or age <= chosen.newer)
        and (not chosen.ids or any(letter["message"].startswith(it) for it in chosen.ids))
    )


# Looking.


def list_letters(where: Where, chosen: Chosen, as_json: bool) -> int:
    """List dead letters."""

    async def work(client: Client) -> int:
        async with waiting("reading the dead letters"):
            found = [letter async for letter in _found(client, chosen)]
        found.sort(key=lambda letter: letter["death"]["died"])
        if as_json:
            print_json(found)
            return 0
        if not found:
            click.echo("no dead letters" + ("" if chosen.anything else " like that"), err=True)
            return 0
        now = time.time()
        rows = [
            (
                letter["message"],
                letter["port"],
                aged(now - letter["death"]["died"]),
                letter["death"]["attempts"],
                _requeued(letter) or "",
                _one_line(f"{letter['death']['error']}: {letter['death']['text']}", 60),
            )
            for letter in found
        ]
        table(("ID", "ROLE", "AGE", "TRIED", "PUT BACK", "ERROR"), rows, "  >>>")
        click.echo(f"{_letters(len(found))}; see: msgflo deadletters show ID", err=True)
        return 0

    return steer(where, work)


def show(where: Where, message: str, as_json: bool) -> int:
    """Show one dead letter whole."""

    async def work(client: Client) -> int:
        letter = await _one(client, message)
        if as_json:
            print_json(letter)
            return 0
        for line in told(letter):
            click.echo(line)
        return 0

    return steer(where, work)


def told(letter: Mapping[str, Any]) -> Iterable[str]:
    """Yield lines that tell all of a dead letter."""
    death = letter["death"]
    times, again = death["attempts"], _requeued(letter)
    yield f"message    {letter['message']}"
    yield f"died       {_when(death['died'])}, in {death['queue']}"
    yield f"           at {death['role']}.{death['instance']}, tried {_times(times)}"
    if again:
        yield f"           it was put back {_times(again)} before, and died again"
    if death["first_seen"]:
        yield f"sent       {_when(death['first_seen'])}"
    yield f"error      {plain(clean(death['error']))}: {_one_line(death['text'], 500)}"
    for name, value in sorted(letter["headers"].items()):
        yield f"header     {plain(clean(f'{name}: {value}'))}"
    if death["traceback"].strip():
        yield ""
        for line in death["traceback"].rstrip().splitlines():
            yield plain(clean(line))
    yield ""
    yield f"payload, {letter['size']} bytes:"
    if "data" in letter:
        text = json.dumps(letter["data"], indent=2, ensure_ascii=False)
        yield from (plain(clean(line)) for line in text.splitlines())
    else:
        yield f"base64 {letter['base64']}"


# Putting back, and deleting.


def requeue(where: Where, chosen: Chosen) -> int:
    """Put dead letters back. Returns 1 if none was meant, or one was gone meanwhile."""
    return _in_bulk(where, chosen, "requeue", "requeued", "put back")


def purge(where: Where, chosen: Chosen, yes: bool) -> int:
    """Delete dead letters. Returns 1 if none was meant."""

    def sure(number: int) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            raise ConfigurationError(f"{_letters(number)} would be deleted for good; say --yes")
        return click.confirm(f"Delete {_letters(number)} for good?")

    return _in_bulk(where, chosen, "purge", "purged", "deleted", sure)


def _in_bulk(
    where: Where,
    chosen: Chosen,
    command: str,
    counted: str,
    verb: str,
    sure: Callable[[int], bool] = lambda _: True,
) -> int:
    async def work(client: Client) -> int:
        keys: dict[str, list[str]] = {}
        async with waiting("reading the dead letters"):
            async for letter in _found(client, chosen):
                keys.setdefault(letter["queue"], []).append(letter["key"])
        number = sum(map(len, keys.values()))
        if not number:
            click.echo("no dead letters like that", err=True)
            return 1
        if not await asyncio.to_thread(sure, number):
            return 1
        done = 0
        async with waiting(f"{_letters(number)}"):
            for queue, its in keys.items():
                for start in range(0, len(its), AT_ONCE):
                    some = its[start : start + AT_ONCE]
                    answer = await client.ask(f"deadletters:{command}", queue=queue, keys=some)
                    done += answer[counted]
        click.echo(f"{_letters(done)} {verb}")
        if done < number:
            click.echo(f"{number - done} were not there any more", err=True)
        return 0

    return steer(where, work)


def edit(where: Where, message: str, data: str | None, content: bytes | None) -> int:
    """Put a dead letter back with another payload. Returns 1 if it is left as it is."""

    async def work(client: Client) -> int:
        letter = await _one(client, message)
        said: dict[str, Any]
        if content is not None:
            said = _payload(content)
        elif data is not None:
            said = {"data": _json_or_text(data)}
        else:
            edited = await asyncio.to_thread(_in_editor, letter)
            if edited is None:
                click.echo("nothing was changed; it stays where it is", err=True)
                return 1
            said = edited
        await _check_type(client, letter, said)
        answer = await client.ask(
            "deadletters:edit", queue=letter["queue"], key=letter["key"], **said
        )
        if not answer["requeued"]:
            raise ProtocolError("it was not there any more")
        click.echo(f"{letter['message']} put back into {letter['death']['queue']}")
        return 0

    return steer(where, work)


def _in_editor(letter: Letter) -> dict[str, Any] | None:
    """Have somebody edit a payload; ``None``: it is to stay as it is.

    JSON that is wrong is told, and edited on.
    """
    if "data" in letter:
        before = json.dumps(letter["data"], indent=2, ensure_ascii=False).encode() + b"\n"
    else:
        before = base64.b64decode(letter["base64"])
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory(prefix="msgflo-") as folder:
        file = Path(folder) / ("payload.json" if "data" in letter else "payload")
        file.write_bytes(before)
        while True:
            # The person's own choice of a program, who types this command.
            ended = subprocess.run([*shlex.split(editor), str(file)], check=False)  # noqa: S603
            if ended.returncode:
                raise ConfigurationError(f"{editor} ended with status {ended.returncode}")
            after = file.read_bytes()
            if after == before or not after.strip():
                return None
            if "data" not in letter:
                return _payload(after)
            try:
                return {"data": json.loads(after)}
            except ValueError as error:
                click.echo(f"this is no JSON: {error}", err=True)
                if not sys.stdin.isatty() or not click.confirm("Edit it again?", default=True):
                    return None


def _payload(content: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, UnicodeDecodeError):
        return {"data": json.loads(content)}
    return {"base64": base64.b64encode(content).decode()}


def _json_or_text(data: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "text": (str,),
    "number": (int, float),
    "int": (int,),
    "integer": (int,),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


async def _check_type(client: Client, letter: Letter, said: Mapping[str, Any]) -> None:
    """Refuse a payload that the port that it is for can never take, as far as that is known."""
    if "data" not in said:
        return
    name, _, port = letter["port"].rpartition(".")
    status = await client.ask("status")
    data = said["data"]
    for node in status["nodes"]:
        for its in node.get("inports", []) if node["node"] == name else ():
            wanted = _TYPES.get(its["type"])
            if its["id"].casefold() != port.casefold() or wanted is None:
                continue
            if not isinstance(data, wanted) or (isinstance(data, bool) and bool not in wanted):
                raise ProtocolError(
                    f"{letter['port']} takes {its['type']}; got {json.dumps(data)[:80]}"
                )


def export(where: Where, chosen: Chosen, output: Path | None) -> int:
    """Write dead letters as lines of JSON."""

    async def work(client: Client) -> int:
        number = 0
        with contextlib.ExitStack() as stack:
            stream = sys.stdout
            if output is not None:
                stream = stack.enter_context(output.open("w", encoding="utf-8"))
            async with waiting("reading the dead letters"):
                async for letter in _found(client, chosen, "export"):
                    stream.write(json.dumps(letter, ensure_ascii=False) + "\n")
                    number += 1
        click.echo(f"{_letters(number)} written", err=True)
        return 0

    return steer(where, work)


# Finding.


async def _inports(client: Client, targets: Iterable[str]) -> dict[str, str]:
    """Return the queues of the inports that are meant, each with its name for people."""
    said = (await client.ask("queues"))["queues"]
    ports = {it["queue"]: f"{it['node']}.{it['port']}" for it in said if it["kind"] == "work"}
    for it in said:  # of an inport whose work queue is not there yet
        if it["kind"] == "dead":
            ports.setdefault(it["queue"].removeprefix("dead-"), f"{it['node']}.{it['port']}")
    if not targets:
        return ports
    found: dict[str, str] = {}
    for target in targets:
        its = {
            queue: name
            for queue, name in ports.items()
            if target.casefold() == name.casefold() or target == name.rpartition(".")[0]
        }
        if not its:
            await check_roles(client, [target.rpartition(".")[0] or target])
            names = list(ports.values())
            raise ProtocolError(
                f"there is no inport {target!r}; there are: {', '.join(names)}."
                f"{near(target, names)}"
            )
        found |= its
    return found


async def _found(client: Client, chosen: Chosen, command: str = "list") -> AsyncIterator[Letter]:
    """Yield the dead letters that are meant, each with its inport for people as ``port``."""
    now = time.time()
    for queue, port in sorted((await _inports(client, chosen.targets)).items()):
        after = ""
        while True:
            said: dict[str, Any] = {"queue": queue, "after": after}
            answer = await client.ask(f"deadletters:{command}", **said)
            letters = answer["letters"]
            for letter in letters:
                if fits(letter, chosen, now):
                    yield {**letter, "port": port}
            if len(letters) < AT_ONCE:
                break
            after = letters[-1]["key"]


async def _one(client: Client, message: str) -> Letter:
    """Return the dead letter whose message's id begins so, whole."""
    found = [letter async for letter in _found(client, Chosen(ids=(message,)))]
    exact = [letter for letter in found if letter["message"] == message]
    found = exact or found
    if not found:
        raise ProtocolError(f"there is no dead letter {message!r}; see: msgflo deadletters list")
    if len(found) > 1:
        some = ", ".join(f"{it['message']} of {it['port']}" for it in found[:5])
        raise ProtocolError(f"{message!r} may be any of {len(found)} dead letters: {some}")
    letter = found[0]
    said = await client.ask("deadletters:show", queue=letter["queue"], key=letter["key"])
    return {**said["letter"], "port": letter["port"]}


# Words.


def _requeued(letter: Mapping[str, Any]) -> int:
    try:
        return int(letter["headers"].get(REQUEUED, 0))
    except ValueError:
        return 0


def _letters(number: int) -> str:
    return f"{number} dead letter{'s' * (number != 1)}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _when(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds).astimezone()
    return f"{when:%Y-%m-%d %H:%M:%S} ({aged(max(0.0, time.time() - seconds))} ago)"


def _one_line(text: str, longest: int) -> str:
    line = " ".join(plain(clean(part)) for part in text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
