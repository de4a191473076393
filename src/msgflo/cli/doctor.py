"""``msgflo doctor``: what can be typed; :mod:`msgflo.cli.diagnosis` does it."""

import click

from msgflo.cli.completion import complete_roles
from msgflo.cli.options import Where, broker_option, json_option, network_options

__all__ = ["doctor"]


@click.command()
@click.argument("role", required=False, shell_complete=complete_roles)
@network_options
@broker_option
@json_option
def doctor(role: str | None, where: Where, broker: str | None, as_json: bool) -> int:
    """Find out why nothing arrives.

    Looks at the project, the broker, the runtime, the participants, connections and queues, and
    says what is wrong and what to do; with ROLE, at that role and all that leads to it. Without a
    network that runs, it looks at what one would need, and at the broker that is named. Exit status
    1 if something is wrong.
    """
    from msgflo.cli import diagnosis

    return diagnosis.diagnose(where, role, broker, as_json)
