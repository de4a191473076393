"""What a participant's surroundings say: environment variables, read by pure functions.

========================== =========================================================
``MSGFLO_BROKER``          the broker's URL; else ``CLOUDAMQP_URL``, as hosts of RabbitMQ say it
``MSGFLO_ROLE``            the role, if there is one participant
``MSGFLO_INSTANCE``        which participant of its role it is, from 1
``MSGFLO_IIPS``            initial packets: a JSON object of values by inport
``MSGFLO_DISCOVERY_PERIOD``  seconds; it announces itself a little more than twice in each
``MSGFLO_PAUSED``          not empty: take no messages until a coordinator says so
``MSGFLO_GRACE``           seconds to finish what is in work when it is told to stop
``MSGFLO_LOGLEVEL``        ``DEBUG``, ``INFO``, ``WARNING`` or ``ERROR``
========================== =========================================================

The instance is also known from Heroku (``DYNO=worker.3`` is 3) and, in Kubernetes, from the name
that a StatefulSet gives (``worker-0`` is instance 1, because ordinals start at 0 and instances at
1). If nobody assigns one, it is the lowest that no living participant of the role has.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from msgflo.errors import ConfigurationError

__all__ = [
    "assigned_instance",
    "broker_of",
    "packets_of",
    "parse_packets",
    "seconds_of",
    "starts_paused",
]


def assigned_instance(environment: Mapping[str, str]) -> int | None:
    """Return the instance number that the surroundings assign; None if they do not.

    Raises:
        ConfigurationError: ``MSGFLO_INSTANCE`` is no number from 1.
    """
    said = environment.get("MSGFLO_INSTANCE", "")
    if said:
        if not said.isascii() or not said.isdecimal() or int(said) < 1:
            raise ConfigurationError(f"MSGFLO_INSTANCE is {said!r}; expected a number from 1")
        return int(said)
    # A one-off dyno (run.1234, scheduler.1234, release.1234) is none of a row of workers.
    heroku = re.fullmatch(
        r"(?!(?:run|scheduler|release)\.)[\w-]+\.(\d{1,4})", environment.get("DYNO", "")
    )
    if heroku and int(heroku[1]) > 0:
        return int(heroku[1])
    if environment.get("KUBERNETES_SERVICE_HOST"):
        # A Deployment's pods end in five letters and digits, which might be digits by chance.
        ordinal = re.fullmatch(r".+-(0|[1-9]\d{0,3})", environment.get("HOSTNAME", ""))
        if ordinal:
            return int(ordinal[1]) + 1
    return None


def starts_paused(environment: Mapping[str, str]) -> bool:
    """Tell whether a participant is to take no messages before a coordinator says so."""
    return bool(environment.get("MSGFLO_PAUSED"))


def seconds_of(
    name: str, given: float | None, default: float, environment: Mapping[str, str], least: float
) -> float:
    """Return a number of seconds: what was given, else the variable of this name, else a default.

    Raises:
        ConfigurationError: it is no number, or less than ``least``.
    """
    said: float | str | None = given if given is not None else environment.get(name) or None
    if said is None:
        return default
    try:
        value = float(said)
    except ValueError:
        value = -1.0
    if not least <= value < float("inf"):
        raise ConfigurationError(f"{name} is {said!r}; expected seconds, at least {least:g}")
    return value


def packets_of(
    given: Mapping[str, Any] | None, environment: Mapping[str, str]
) -> Mapping[str, Any]:
    """Return the initial packets of ``MSGFLO_IIPS``, and what was given beside or instead.

    Raises:
        ConfigurationError: the variable is no JSON object.
    """
    said = environment.get("MSGFLO_IIPS", "")
    return {**(parse_packets(said, "MSGFLO_IIPS") if said else {}), **(given or {})}


def parse_packets(text: str, origin: str) -> dict[str, Any]:
    """Read initial packets, a JSON object.

    Args:
        text: what to read.
        origin: where it comes from, for the error message.

    Raises:
        ConfigurationError: it is no JSON object.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{origin} is {text!r}, which is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigurationError(
            f"{origin} is {text!r}; expected a JSON object of values by inport, such as "
            f'{{"size": 800}}'
        )
    return value


def broker_of(given: str | None, environment: Mapping[str, str]) -> str:
    """Return the broker's URL: what was given, else ``MSGFLO_BROKER``, else ``CLOUDAMQP_URL``.

    Raises:
        ConfigurationError: nobody says it.
    """
    url = given or environment.get("MSGFLO_BROKER") or environment.get("CLOUDAMQP_URL", "")
    if not url:
        raise ConfigurationError(
            "no broker is named; expected --broker or MSGFLO_BROKER, such as "
            "nats://localhost:4222 (msgflo run GRAPH starts one of its own)"
        )
    return url
