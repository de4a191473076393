"""The shape of the code: what may import what, and a few habits that keep it so."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "msgflo"

# What belongs together. A name stands for a module and, if it is a package, for all that is in
# it, unless something there is named by another group.
GROUPS = {
    "errors": ["errors"],
    "flow": ["flow"],
    "contract": ["transport", "transport.contract"],  # the door to all transports, and their law
    "transports": ["transport.*"],
    "participant": [
        *("payload", "signature", "declaration", "loading", "environment", "log", "meter", "otel"),
        *(
            "meter",
            "failure",
            "child",
            "lanes",
            "outbox",
            "sources",
            "engine",
            "classic",
            "participant",
        ),
    ],
    "trace": ["trace"],
    "deadletters": ["deadletters"],
    "project": ["project"],
    "processes": ["processes"],
    "broker": ["broker"],
    "coordinator": ["coordinator"],
    "protocol": ["protocol"],
    "serving": ["protocol.server", "protocol.replay"],
    "testing": ["testing"],
    "conformance": ["conformance"],
    "spec": ["spec"],
    "components": ["components"],
    "ui": ["ui"],
    "runtime": ["runtime", "live"],
    "steering": ["steering"],
    "cli": ["cli", "__main__"],
    "msgflo": [""],
}

# A group may import itself and these. The package's own __init__ is not an import of anything:
# it loads what it names when that is used.
MAY_IMPORT = {
    "errors": "",
    "flow": "errors",
    "contract": "errors flow",
    "transports": "errors flow contract",
    "participant": "errors flow contract",
    "trace": "errors flow contract",
    "deadletters": "errors flow contract",
    "project": "errors flow",
    "processes": "errors flow contract project",
    "broker": "errors flow contract project processes",
    "coordinator": "errors flow contract trace deadletters processes",
    "protocol": "errors flow",
    "serving": "errors flow contract protocol trace deadletters processes coordinator",
    "testing": "errors flow contract transports participant",
    "conformance": "errors flow contract participant",
    "spec": "errors flow contract transports participant trace project processes protocol testing",
    "components": "errors flow contract participant",
    "ui": "errors flow protocol",
    "runtime": "errors flow contract trace deadletters project processes broker coordinator "
    "protocol serving ui",
    "steering": "errors flow contract trace deadletters project processes coordinator protocol "
    "serving runtime",
    "cli": "errors flow contract trace deadletters project processes broker coordinator protocol "
    "serving ui runtime steering participant conformance spec testing",
    "msgflo": "errors flow contract participant testing",
}

# Where each library that not every program needs is imported.
LIBRARIES = {
    "nats": "transport.nats_link",
    "pika": "transport.amqp_link",
    "paho": "transport.mqtt",
    "pytest": "spec.pytest_plugin",
    "ruamel": "flow.yamltext",
    "uvloop": "participant",
    "click": "cli",
    "rich": "cli",
    "starlette": "protocol.server",
    "uvicorn": "protocol.server",
    "websockets": "protocol.client",
    "prometheus_client": "trace.metrics",
    "opentelemetry": "otel",
    "pydantic": "payload",
}
IN_SEVERAL_FILES = {"click", "rich"}  # of the one package

# Where a library is no more than msgflo's own cost: values and JSON.
EVERYWHERE = {"msgspec", "msgflo"}

# Modules that are parts of another one, and are tested by its tests.
TESTED_WITH = {
    "__main__": "cli/test_cli",
    "cli.changing": "cli/test_change",
    "cli.connecting": "cli/test_messages",
    "cli.traces": "cli/test_trace",
    "cli.tracing": "cli/test_trace",
    "cli.diagnosis": "cli/test_doctor",
    "cli.letters": "cli/test_deadletters",
    "cli.looking": "cli/test_look",
    "cli.network": "cli/test_change",
    "cli.options": "cli/test_messages",
    "cli.registering": "cli/test_register",
    "cli.running": "cli/test_run",
    "cli.settingup": "cli/test_setup",
    "cli.suites": "cli/test_test",
    "cli.traffic": "cli/test_messages",
    "conformance.*": "conformance/test_suite",
    "flow.fbpwriter": "flow/test_fbp",
    "flow.parts": "flow/test_graph",
    "flow.values": "flow/test_graph",
    "flow.svgdrawing": "flow/test_drawing",
    "flow.textdrawing": "flow/test_drawing",
    "transport.amqp_*": "transport/test_amqp",
    "transport.nats_*": "transport/test_nats",
}

MOST_LINES = 900
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "base", "helpers", "helper", "manager", "misc"}


@dataclass(frozen=True)
class Import:
    module: str
    line: int
    imports: str
    only_for_types: bool

    def __str__(self) -> str:
        return f"{self.module} (line {self.line}) imports {self.imports}"


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCES).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {name_of(path): path for path in sorted(SOURCES.rglob("*.py"))}


def imports_of(module: str) -> Iterator[Import]:
    """All imports of a module, those inside functions too; ours without the ``msgflo.``."""
    tree = ast.parse(MODULES[module].read_text())
    typing = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        found = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            whole = node.module or ""
            for alias in node.names:
                part = f"{whole}.{alias.name}"
                found.append(part if ours(part) in MODULES else whole)
        for name in dict.fromkeys(found):
            yield Import(module, node.lineno, name, id(node) in typing)


def ours(name: str) -> str | None:
    """The module's name without ``msgflo.``; ``None`` if it is not ours."""
    package, _, rest = name.partition(".")
    return rest if package == "msgflo" else None


IMPORTS = [found for module in MODULES for found in imports_of(module)]


def matches(module: str, pattern: str) -> bool:
    if pattern.endswith("*"):
        return module.startswith(pattern[:-1])
    return module == pattern or (pattern != "" and module.startswith(f"{pattern}."))


def group_of(module: str) -> str | None:
    """The group with the longest pattern that the module matches."""
    found = [
        (len(pattern) - pattern.count("*"), pattern == module, group)
        for group, patterns in GROUPS.items()
        for pattern in patterns
        if matches(module, pattern) and not (pattern == "transport" and module != "transport")
    ]
    return max(found)[-1] if found else None


@pytest.mark.parametrize("module", MODULES)
def test_every_module_belongs_to_a_group(module):
    assert group_of(module) in GROUPS, (
        f"{module} is in no group of this test. Where does it stand in the data's way?"
    )


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_imports_only_what_it_may(group):
    allowed = {group, *MAY_IMPORT[group].split()}
    assert allowed <= GROUPS.keys()
    wrong = [
        str(found)
        for found in IMPORTS
        if group_of(found.module) == group
        and (target := ours(found.imports)) is not None
        and target != ""
        and group_of(target) not in allowed
    ]
    assert not wrong, "\n".join(wrong)


def test_the_table_itself_runs_one_way():
    graph = {group: set(MAY_IMPORT[group].split()) for group in GROUPS}
    assert rings(graph) == []


def test_participant_and_coordinator_never_meet_but_in_messages():
    reach = {group: closure(group) for group in GROUPS}
    assert "coordinator" not in reach["participant"]
    assert "participant" not in reach["coordinator"]
    assert reach["ui"] == {"errors", "flow", "protocol"}


def closure(group: str) -> set[str]:
    found: set[str] = set()
    ahead = MAY_IMPORT[group].split()
    while ahead:
        other = ahead.pop()
        if other not in found:
            found.add(other)
            ahead += MAY_IMPORT[other].split()
    return found


def rings(graph: dict[str, set[str]]) -> list[str]:
    """What is left when everything that imports nothing that is left is taken away."""
    left = {name: set(targets) - {name} for name, targets in graph.items()}
    while True:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        if not free:
            return sorted(left)
        left = {name: targets for name, targets in left.items() if name not in free}


def test_imports_run_one_way():
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        target = ours(found.imports)
        if target and not found.only_for_types:
            graph[found.module].add(target)
    assert rings(graph) == [], "these import each other, or what does"


def test_rings_are_found():
    assert rings({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == list("abcd")
    assert rings({"a": {"b", "a"}, "b": {"c"}, "c": {"gone"}}) == []


def test_each_library_is_imported_in_one_file():
    for library, home in LIBRARIES.items():
        users = {found.module for found in IMPORTS if found.imports.partition(".")[0] == library}
        assert all(matches(user, home) for user in users), f"{library}: {sorted(users)}"
        if library not in IN_SEVERAL_FILES:
            assert len(users) <= 1, f"{library} is imported in {sorted(users)}"


def test_every_library_that_is_imported_is_known_here():
    known = {*LIBRARIES, *EVERYWHERE, *sys.stdlib_module_names}
    unknown = [str(found) for found in IMPORTS if found.imports.partition(".")[0] not in known]
    assert not unknown, "\n".join(unknown)


def test_libraries_of_the_far_end_are_loaded_on_use():
    """Whoever imports a module of ours gets a web server or a broker library only where it is."""
    light = ["", "participant", "transport", "testing", "coordinator.coordinator", "runtime"]
    heavy = sorted(
        {*LIBRARIES, "hypothesis", "pytest", "asyncio.subprocess"} - {"asyncio.subprocess"}
    )
    for module in light:
        if module in MODULES:
            assert loaded_by(f"import msgflo.{module}".rstrip("."), heavy) == set(), module


def test_importing_msgflo_loads_next_to_nothing():
    assert loaded_by("import msgflo", ["asyncio", "msgspec", "json", "inspect", "logging"]) == set()


def loaded_by(statement: str, modules: list[str]) -> set[str]:
    code = f"import sys; {statement}; print(*[name for name in {modules!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", MODULES)
def test_no_name_says_nothing(module):
    assert not NAMES_THAT_SAY_NOTHING & set(module.replace("_", ".").split("."))


@pytest.mark.parametrize("module", MODULES)
def test_no_file_is_too_long_to_read(module):
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= MOST_LINES, f"{MODULES[module].name} has {lines} lines"


def has_code(path: Path) -> bool:
    """Whether there is more than a docstring and names."""
    body = ast.parse(path.read_text()).body
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) for node in body
    )


def places_of_tests(module: str) -> list[Path]:
    """Where the tests of a module may be."""
    path = MODULES[module]
    folder = path.relative_to(SOURCES).parent
    if path.name == "__init__.py":
        return [TESTS / folder / f"test_{path.parent.name}.py"]
    shared = [TESTS / f"{it}.py" for pattern, it in TESTED_WITH.items() if matches(module, pattern)]
    return [TESTS / folder / f"test_{path.stem}.py", *shared]


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if has_code(path)])
def test_every_module_has_tests_of_its_name(module):
    places = places_of_tests(module)
    assert any(place.exists() for place in places), (
        f"no tests of {module}; expected {' or '.join(str(it.relative_to(TESTS)) for it in places)}"
    )
