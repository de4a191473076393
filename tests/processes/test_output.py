"""What processes print: whole lines, safe for a terminal, with the role before them."""

import io
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msgflo.processes.output import Lines, Prefixed, clean, plain


def lines_of(data: bytes, longest: int = 1000, step: int | None = None) -> list[str]:
    cut = Lines(longest)
    step = step or max(1, len(data))
    found = []
    for at in range(0, len(data), step):
        found += cut.feed(data[at : at + step])
    return found + cut.end()


def test_lines_are_given_when_they_are_complete_and_the_last_at_the_end():
    cut = Lines()
    assert cut.feed(b"one\ntw") == ["one"]
    assert cut.feed(b"o") == []
    assert cut.feed(b"\n\nthree") == ["two", ""]
    assert cut.end() == ["three"]
    assert cut.end() == []


@given(st.binary(max_size=200), st.integers(1, 7))
def test_how_it_arrives_makes_no_difference(data, step):
    assert lines_of(data, 20, step) == lines_of(data, 20)


@given(st.lists(st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20)))
def test_text_comes_out_as_it_went_in(texts):
    assert lines_of("".join(f"{text}\n" for text in texts).encode()) == texts


def test_a_long_line_is_cut_and_says_how_much_is_missing():
    assert lines_of(b"x" * 30 + b"\nnext\n", 10) == [f"{'x' * 10} ... (20 more bytes)", "next"]


def test_a_line_without_end_never_grows_in_memory():
    cut = Lines(10)
    for _ in range(1000):
        assert cut.feed(b"y" * 1000) == []
    assert len(cut._held) == 10
    assert cut.end() == [f"{'y' * 10} ... (999990 more bytes)"]


@pytest.mark.parametrize("character", ["ä", "€", "🙂"])
def test_a_long_line_is_not_cut_within_a_character(character):
    for longest in range(4, 12):
        (line,) = lines_of((character * 10).encode(), longest)
        assert "�" not in line
        shown, _, rest = line.partition(" ... (")
        missing = int(rest.removesuffix(" more bytes)"))
        assert len(shown.encode()) + missing == len((character * 10).encode())


def test_bytes_that_are_no_text_are_replaced():
    assert lines_of(b"a\xffb\n") == ["a�b"]


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("plain", "plain"),
        ("tab\there", "tab\there"),
        ("größe 🙂", "größe 🙂"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[1;38;5;200mx", "\x1b[1;38;5;200mx"),
        ("a\x1b[2Jb", "ab"),
        ("a\x1b[10;10Hb", "ab"),
        ("a\x1b[?1049hb", "ab"),
        ("a\x1b]0;title\x07b", "ab"),
        ("a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b", "alinkb"),
        ("a\x1b]0;never closed", "a"),
        ("a\x1bPq\x1b\\b", "ab"),
        ("a\x1bcb", "ab"),
        ("a\x1b(Bb", "ab"),
        ("a\x9b2Jb", "a2Jb"),
        ("a\x07\x08\x00b\x7f", "ab"),
        ("a\x1b", "a"),
        ("a\x1b[", "a"),
        ("a\u202eb\u2066c\u2028", "abc"),
        ("10%\r20%\r30%", "30%"),
        ("windows\r", "windows"),
    ],
)
def test_a_line_keeps_its_colours_and_loses_what_could_harm_the_terminal(given_, shown):
    assert clean(given_) == shown


@given(
    st.text(st.sampled_from("\x1b[]();?0123m;HJPX^_\\\x07\x9b\x9c\x00\r\tab\u202e"), max_size=40)
)
def test_nothing_but_colours_and_tabs_is_left_of_any_control(text):
    left = plain(clean(text))
    assert all(character.isprintable() or character == "\t" for character in left)
    assert clean(clean(text)) == clean(text)


def test_lines_have_role_and_instance_before_them_aligned_to_the_longest():
    out = io.StringIO()
    show = Prefixed(out, names=["resize.12"])
    show("web", 1, "stdout", "ready")
    show("resize", 12, "stderr", "oh")
    show("very-long-role", 3, "stdout", "x")
    show("web", 1, "stdout", "")
    assert out.getvalue().splitlines() == [
        "web.1     | ready",
        "resize.12 | oh",
        "very-long-role.3 | x",
        "web.1            |",
    ]


def test_without_colours_the_childrens_are_taken_off_too():
    assert Prefixed(io.StringIO()).line("a", 1, "stdout", "\x1b[31mred\x1b[0m") == "a.1 | red"


def test_with_colours_a_role_has_its_own_and_a_line_ends_its_own():
    show = Prefixed(io.StringIO(), colour=True)
    one = show.line("web", 1, "stdout", "\x1b[1mbold")
    assert one.endswith("\x1b[1mbold\x1b[0m")
    assert plain(one) == "web.1 | bold"
    same = show.line("web", 2, "stdout", "x")
    assert one.split("w")[0] == same.split("w")[0]
    begins = {show.line(role, 1, "stdout", "").split("m")[0] for role in map(str, range(50))}
    assert len(begins) > 3


def test_a_roles_colour_is_the_same_in_every_run():
    code = (
        "from msgflo.processes.output import Prefixed\n"
        "print(Prefixed(colour=True).line('web', 1, 'stdout', 'x'))"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1
    assert b"\x1b[" in shown.pop()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
        (io.StringIO(), {"FORCE_COLOR": "1"}, True),
        (io.StringIO(), {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(stream, environ, coloured):
    assert ("\x1b" in Prefixed(stream, environ=environ).line("a", 1, "stdout", "x")) is coloured


def test_a_role_cannot_harm_the_terminal_either():
    show = Prefixed(io.StringIO())
    assert show.line("a\x1b[2J\x1b[31mb", 1, "stdout", "x") == "ab.1 | x"


def test_a_stream_that_cannot_say_a_character_says_another():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", write_through=True)
    Prefixed(stream)("a", 1, "stdout", "größe")
    assert raw.getvalue() == b"a.1 | gr??e\n"


def test_a_reader_that_went_away_is_no_error():
    out = io.StringIO()
    show = Prefixed(out)
    out.close()
    show("a", 1, "stdout", "x")
