"""examples/polyglot: one network of several languages, by the command of its README."""

from pathlib import Path

import pytest

from interop.mixed import surroundings
from programs import program
from readmes import EXAMPLES, commands, copied


@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_sentence_goes_from_python_through_noflo_and_nodejs_to_python(
    tmp_path: Path, modules: Path, rabbitmq: str
):
    folder = copied("polyglot", tmp_path)
    [(command, printed)] = commands(folder / "README.md")
    # As npm would install them, but NoFlo need not look through all the rest.
    (folder / "node_modules").mkdir()
    for name in (".bin", "noflo", "noflo-core", "msgflo-nodejs"):
        (folder / "node_modules" / name).symlink_to(modules / name)
    around = {**surroundings(modules), "MSGFLO_BROKER": rabbitmq}
    with program(command, cwd=tmp_path, **around) as run:
        for line in printed:
            text = line.partition("| ")[2]
            assert run.until(text, patience=250).split()[0] == "show.1"
        assert run.end() == 0


def test_it_is_pinned_to_the_packages_that_are_tested_here():
    ours = (EXAMPLES / "polyglot" / "package.json").read_text()
    tested = (Path(__file__).parent / "npm" / "package.json").read_text()
    pins = [line.strip().strip(",") for line in ours.splitlines() if line.startswith("    ")]
    assert len(pins) == 4
    assert all(pin in tested for pin in pins)
