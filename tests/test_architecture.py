"""The budgets, the direction of imports and the documentation of the code, held by reading it."""

from __future__ import annotations

import ast
import functools
import re
import statistics
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "tlhub"
FILES = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}

# What a line names may be imported by the lines above it, never the other way round.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("doctor", "inventory"),
    ("api",),
    ("planning",),
    ("proving", "quickstart"),
    ("run",),
    ("finished",),
    ("record", "results", "workbench"),
    ("tasks",),
    ("wake_word",),
    ("strategies",),
    ("problems",),
    ("training",),
    ("evaluation",),
    ("models",),
    ("data",),
    ("folder", "launching"),
    ("options",),
    ("limits", "parsers"),
    ("config",),
    ("builtin",),
    ("registry", "environment", "seeding", "errors", "version", "yaml_files", "stopping", "locking"),
    ("__init__",),
)
DOORS = {"peft": {"models/adapters.py"}, "jsonargparse": {"parsers.py"}}
FORBIDDEN_CALLS = {"torch.save", "torch.load", "pickle.dump", "pickle.dumps", "pickle.load", "pickle.loads"}
# The lazy imports of packages, the command line and the doctor are what keeps `--help` and errors quick.
MAY_IMPORT_LATE = {"cli.py", "doctor.py", "launching.py"}


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def functions():
    for path, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield path, node


def body_lines(node):
    """Return the number of lines of a function's body, without its docstring."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def module_name(path):
    """Return the name that a file is imported by."""
    return f"tlhub.{relative(path).removesuffix('.py').replace('/', '.')}".removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def unit(module):
    """Return the part of the package that a module belongs to: `tlhub.data.text` belongs to `data`."""
    return [*module.split("."), "__init__"][1]


def imported(tree, *, late):
    """Return the modules that a file imports, with those below functions or not, without those for types only."""
    found = []
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    inside = {id(child) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for child in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in for_types or (id(node) in inside) != late:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name if name in MODULES else node.module for name in names]
    return found


@functools.cache
def dependencies():
    """Return the modules of the package that each of them imports, at any place."""
    return {
        name: {
            module
            for late in (False, True)
            for module in imported(FILES[path], late=late)
            if module in MODULES and module != name
        }
        for name, path in MODULES.items()
    }


def test_every_file_is_seen():
    assert len(FILES) >= 40
    assert {path.parent.name for path in FILES} >= {
        "tlhub",
        "data",
        "models",
        "training",
        "evaluation",
        "strategies",
        "tasks",
    }


def test_files_are_short():
    lengths = {relative(path): len(path.read_text().splitlines()) for path in FILES}
    assert {name: length for name, length in lengths.items() if length > 400} == {}
    assert statistics.median(lengths.values()) <= 150


def test_functions_are_short():
    lengths = {f"{relative(path)}:{node.name}": body_lines(node) for path, node in functions()}
    assert len(lengths) > 200
    assert {name: length for name, length in lengths.items() if length > 60} == {}
    assert statistics.quantiles(lengths.values(), n=10)[-1] <= 30


def test_functions_take_few_parameters():
    counts = {}
    for path, node in functions():
        names = [argument.arg for argument in node.args.posonlyargs + node.args.args + node.args.kwonlyargs]
        counts[f"{relative(path)}:{node.name}"] = len([name for name in names if name not in ("self", "cls")])
    assert {name: count for name, count in counts.items() if count > 8} == {}


def test_imports_go_downward():
    rank = {name: number for number, layer in enumerate(LAYERS) for name in layer}
    assert {unit(name) for name in MODULES} <= set(rank), "a new part of the package needs its place in LAYERS"
    upward = [
        f"{name} imports {module}"
        for name, modules in dependencies().items()
        for module in modules
        if rank[unit(name)] > rank[unit(module)] and name != "tlhub"
    ]
    assert upward == []


def test_no_import_cycle():
    # The package's own file imports environment.py and version.py, which import nothing of the package.
    assert dependencies()["tlhub"] == {"tlhub.environment", "tlhub.version"}
    assert dependencies()["tlhub.environment"] == set()
    graph = {name: targets - {"tlhub"} for name, targets in dependencies().items() if name != "tlhub"}
    assert sum(map(len, graph.values())) > 80
    while leaves := [name for name, targets in graph.items() if not targets & set(graph)]:
        for name in leaves:
            del graph[name]
    assert graph == {}


def test_heavy_dependencies_have_one_door():
    seen = {name: set() for name in DOORS}
    for path, tree in FILES.items():
        for module in imported(tree, late=False) + imported(tree, late=True):
            if module.partition(".")[0] in DOORS and relative(path) != "doctor.py":
                seen[module.partition(".")[0]].add(relative(path))
    assert seen == DOORS


def test_late_imports_are_few():
    late = {relative(path) for path, tree in FILES.items() if imported(tree, late=True)}
    assert late <= MAY_IMPORT_LATE | {"tasks/__init__.py"}
    assert late >= {"cli.py"}


def test_nothing_is_pickled():
    calls = [ast.unparse(node.func) for tree in FILES.values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert len(calls) > 1000
    assert set(calls) & FORBIDDEN_CALLS == set()
    loads = [
        node
        for tree in FILES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle"
    ]
    assert all(isinstance(node.value, ast.Constant) and node.value.value is False for node in loads)


def test_only_the_command_line_prints():
    printing = {
        relative(path)
        for path, tree in FILES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == {"cli.py"}


def test_everything_public_is_annotated_and_documented():
    missing, seen = [], 0
    for path, tree in FILES.items():
        if not ast.get_docstring(tree):
            missing.append(relative(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                seen += 1
                if not ast.get_docstring(node) and not is_nested(tree, node):
                    missing.append(f"{relative(path)}:{node.name}")
    for path, node in functions():
        arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        bare = [
            argument.arg
            for argument in arguments
            if argument.annotation is None and argument.arg not in ("self", "cls")
        ]
        if bare or node.returns is None:
            missing.append(f"{relative(path)}:{node.name} {bare or 'return'}")
    assert seen > 150
    assert missing == []


def is_nested(tree, node):
    """Tell whether a definition stands inside a function, or in a private class."""
    holders = [
        holder
        for holder in ast.walk(tree)
        if isinstance(holder, ast.FunctionDef | ast.ClassDef)
        and holder is not node
        and any(child is node for child in ast.walk(holder))
    ]
    return any(isinstance(holder, ast.FunctionDef) or holder.name.startswith("_") for holder in holders)


def test_every_raised_error_is_documented():
    missing, seen = [], 0
    for path, node in functions():
        if node.name.startswith("_") or is_nested(FILES[path], node):
            continue
        raised = {
            name
            for child in ast.walk(node)
            if isinstance(child, ast.Raise) and child.exc
            for name in re.findall(r"^\w+(?:Error|Exit|Interrupt)", ast.unparse(child.exc))
        }
        seen += len(raised)
        section = re.search(r"Raises:\n(.*)", ast.get_docstring(node) or "", re.DOTALL)
        missing += [
            f"{relative(path)}:{node.name}: {name}" for name in raised if not section or f"{name}:" not in section[1]
        ]
    assert seen > 20
    assert missing == []


@pytest.mark.parametrize(
    "name", ["README.md", "CHANGELOG.md", "LICENSE", "constraints.txt", ".ci/run", "tlhub/py.typed"]
)
def test_the_project_has_its_files(name):
    assert (REPOSITORY / name).exists()


def test_layers_name_only_what_there_is():
    there = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()}
    named = {name for layer in LAYERS for name in layer} - {"wake_word"}
    assert named <= there


def test_the_constraints_pin_every_dependency():
    # tomllib is not in Python 3.10, and the tables are plain enough to read.
    text = (REPOSITORY / "pyproject.toml").read_text()
    names = {name.lower() for name in re.findall(r'^    "([A-Za-z0-9-]+)(?:>=[^"]*)?",$', text, re.MULTILINE)}
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (REPOSITORY / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert len(names) >= 18
    assert names <= pinned
    assert "+" not in (REPOSITORY / "constraints.txt").read_text().replace("C++", "")
