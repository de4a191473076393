"""What ``import msgflo`` gives to the author of a participant."""

import ast
import inspect
import subprocess
import sys

import pytest

import msgflo
from msgflo import errors

PUBLIC = """
    AlreadyRunning BrokerError Component ComponentError ConfigurationError ConformanceFailure
    ConnectFailed ConnectionLost Context DefinitionError DiscoveryTimeout GraphError
    GraphSyntaxError In InvalidName Message MsgFloError Out Param Participant PayloadError
    ProtocolError Reject Retry RetryLater SendFailed SpecError StartFailed Struct TraceError
    TransportError UnknownComponent UnknownNode UnknownPort UnknownQueue UnknownScheme
    UnsupportedBinding YamlError component inport main run serve source testing transport
""".split()  # noqa: SIM905 - shorter to read


def test_the_public_names_are_these():
    """A name that is added or taken away is a decision: change this list with it."""
    assert sorted(msgflo.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_can_be_had(name):
    assert getattr(msgflo, name) is not None
    assert name in dir(msgflo)


def test_every_error_can_be_caught_by_a_public_name():
    raised = {
        name
        for name, it in vars(errors).items()
        if inspect.isclass(it) and issubclass(it, Exception) and it.__module__ == errors.__name__
    }
    assert raised <= set(PUBLIC)


def test_type_checkers_see_the_names_that_the_program_sees():
    tree = ast.parse(inspect.getsource(msgflo))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert sorted(seen) == PUBLIC


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'msgflo' has no attribute 'componant'"):
        msgflo.componant  # noqa: B018


def test_a_small_component_loads_no_broker_and_no_web_server_and_no_command_line():
    """A site runs many small participants, and each pays for what it loads."""
    code = """
import sys
import msgflo

@msgflo.component
async def upper(text: str) -> str:
    return text.upper()

print(msgflo.testing.collect(upper, "a"))
print(*[it for it in ("nats", "click", "rich", "starlette", "uvicorn", "pydantic", "ruamel")
        if it in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "{'out': ['A']}\n\n"
