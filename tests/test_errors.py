import copy
import inspect
import pickle
import re

import pytest

import msgflo.errors
from msgflo.errors import (
    AlreadyRunning,
    ConnectFailed,
    GraphSyntaxError,
    MsgFloError,
    Reject,
    RetryLater,
    UnknownComponent,
    UnknownNode,
    UnknownPort,
    UnknownScheme,
    near,
)

CLASSES = {
    name: it
    for name, it in vars(msgflo.errors).items()
    if inspect.isclass(it) and issubclass(it, Exception)
}

EXAMPLES = [
    GraphSyntaxError("expected '->'", name="a.fbp", line=3, column=5, source="a -- b", width=2),
    UnknownNode("resiz", ["resize", "store"]),
    UnknownPort("resize", "inport", "imgae", ["image", "options"]),
    UnknownScheme("nat", ["nats", "direct"]),
    ConnectFailed("nats://user:***@host", "refused"),
    UnknownComponent("images/Resiz", ["images/Resize"], "Look into components/."),
    AlreadyRunning("another run", pid=7),
    MsgFloError("anything"),
    Reject("not an image"),
    RetryLater(30, "busy"),
    RetryLater(0.5),
]


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes():
    drawn = {}
    above: list[str] = []
    for indent, line in re.findall(
        r"^( *)\* (.*(?:\n {4,}[^*\s].*)*)", msgflo.errors.__doc__, re.M
    ):
        depth = len(indent) // 2
        for name in re.findall(r":exc:`(\w+)`", line.split(": ")[0]):
            drawn[name] = above[depth - 1] if depth else None
            del above[depth:]
            above.append(name)
    real = {
        name: it.__base__.__name__ for name, it in CLASSES.items() if it.__base__ is not Exception
    }
    assert {name: parent for name, parent in drawn.items() if parent} == real
    assert {name for name, it in CLASSES.items() if it.__base__ is Exception} == {
        "MsgFloError",
        "Reject",
        "RetryLater",
    }


def test_all_errors_are_public_and_described():
    assert set(msgflo.errors.__all__) == {*CLASSES, "near"}
    assert all(it.__doc__ for it in CLASSES.values())


def test_orders_of_handlers_are_no_errors_of_msgflo():
    assert not issubclass(Reject, MsgFloError)
    assert not issubclass(RetryLater, MsgFloError)


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_comes_whole_out_of_another_process(error):
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_a_syntax_error_points_at_the_place():
    error = GraphSyntaxError(
        "expected '->'", name="main.fbp", line=3, column=3, source="a\t-- b", width=2
    )
    assert str(error) == "main.fbp:3:3: expected '->'\n  a -- b\n    ^^"


def test_a_syntax_error_without_a_source_is_one_line_and_its_caret_has_a_width():
    assert str(GraphSyntaxError("empty")) == "<graph>:1:1: empty"
    assert str(GraphSyntaxError("x", source="ab", width=0)).endswith("\n  ^")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (EXAMPLES[1], "the graph has no node 'resiz'. Did you mean 'resize'?"),
        (
            EXAMPLES[2],
            "'resize' has no inport 'imgae'; its inports are: image, options. "
            "Did you mean 'image'?",
        ),
        (UnknownPort("a", "outport", "x"), "'a' has no outport 'x'; its outports are: none."),
        (EXAMPLES[3], "no transport serves nat:// (there are: direct, nats). Did you mean 'nats'?"),
        (EXAMPLES[4], "cannot connect to the broker at nats://user:***@host: refused"),
        (
            EXAMPLES[5],
            "the library has no component 'images/Resiz'. Did you mean 'images/Resize'? "
            "Look into components/.",
        ),
        (EXAMPLES[9], "busy"),
        (EXAMPLES[10], "retry in 0.5 s"),
    ],
)
def test_an_error_says_what_was_got_and_what_was_near(error, text):
    assert str(error) == text


@pytest.mark.parametrize("delay", [-1, float("-inf"), float("nan")])
def test_nothing_is_asked_for_before_now(delay):
    with pytest.raises(ValueError, match="cannot be negative"):
        RetryLater(delay)


def test_near_looks_past_case_and_keeps_quiet_when_nothing_is():
    assert near("IMAGE", ["image"]) == " Did you mean 'image'?"
    assert near("zzz", ["image"]) == ""
    assert near("x", []) == ""
