"""The house rules: which way modules lean, how large they grow, what needs a row or a docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import catalogue
import catalogue_models
import pytest
from torch import nn

from segue.fields import KINDS
from segue.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "segue"
MODULES = sorted(SOURCE.rglob("*.py"))
PYTHON = [
    *MODULES,
    *(
        path
        for folder in ("tests", "examples", "benchmarks")
        for path in ROOT.glob(f"{folder}/*.py")
    ),
]
NATIVE = sorted(path for path in (ROOT / "csrc").iterdir() if path.suffix in (".cpp", ".h"))

ORDER = (
    {"errors"},
    {"shapes"},
    {"ragged"},
    {"ops"},
    {"cells"},
    {"layers"},
    {"nn"},
    {"sequences"},
    {"schema"},
    {"fields"},
    {"tasks"},
    {"data"},
    {"clock"},
    {"member"},
    {"forecaster"},
    {"body"},
    {"apart", "joined"},
    {"model"},
    {"inference"},
    {"trained"},
    {"conformal"},
    {"defaults", "checkpoint", "torch_defaults"},
    {"records", "language"},
    {"train", "stream", "evaluate", "predict", "infer"},
    {"report"},
    {"run"},
    {"pipe", "terminal"},
    {"demo"},
    {"cli"},
    {"__main__"},
)
"""A module imports only from groups to the left of its own; a folder counts as one module."""

FILE_LINES, FUNCTION_LINES, NATIVE_LINES = 600, 60, 80
VAGUE = {"utils", "util", "common", "base", "helpers", "helper", "misc", "core"}
LAZY = {"__init__.py", "cli.py", "demo.py"}
"""Where imports may stand inside functions."""


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def top(path: Path) -> str:
    """The module of the order that a source file belongs to."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that a file imports."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: a relative import"
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


# Which way modules lean ---------------------------------------------------------------------------


def test_every_module_has_its_place_in_the_order() -> None:
    placed = sorted(name for group in ORDER for name in group)
    assert placed == sorted({top(path) for path in MODULES} - {"__init__"})


@pytest.mark.parametrize("path", named(MODULES))
def test_a_module_imports_only_from_its_left(path: Path) -> None:
    if path == SOURCE / "__init__.py":
        return
    rank = {name: place for place, group in enumerate(ORDER) for name in group}
    for line, name in imported(path):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package != "segue" or other in (top(path), "_native"):
            continue
        assert rank[other] < rank[top(path)], f"{path.name}:{line} imports {name} from its right"


def test_no_module_imports_itself_in_a_circle() -> None:
    known = {module_name(path): path for path in MODULES}
    leads = {
        name: {target(found, known) for _, found in imported(path)} - {name, None}
        for name, path in known.items()
        if path != SOURCE / "__init__.py"
    }
    while leads:
        # Take away the modules that import nothing that is left; what a circle holds never goes.
        free = {name for name, needs in leads.items() if not needs & leads.keys()}
        assert free, f"these import each other in a circle: {sorted(leads)}"
        leads = {name: needs for name, needs in leads.items() if name not in free}


def module_name(path: Path) -> str:
    parts = ("segue", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def target(name: str, known: dict[str, Path]) -> str | None:
    """The module of segue that an imported name comes from; None if it is not of segue."""
    while name not in known:
        name, _, _ = name.rpartition(".")
        if not name:
            return None
    return None if name == "segue" else name


def test_ops_alone_imports_the_native_module() -> None:
    mentions = {
        top(path)
        for path in MODULES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and node.value == "segue._native"
    }
    imports = {name for path in MODULES for _, name in imported(path)}
    assert mentions == {"ops"}
    assert "segue._native" not in imports


@pytest.mark.parametrize("path", named([path for path in MODULES if path.name not in LAZY]))
def test_imports_stand_at_the_top(path: Path) -> None:
    inside = [
        f"{path.name}:{node.lineno}"
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert inside == []


# How large they may grow --------------------------------------------------------------------------


@pytest.mark.parametrize("path", named([*PYTHON, *NATIVE]))
def test_a_file_keeps_its_budget(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", named(PYTHON))
def test_a_function_keeps_its_budget(path: Path) -> None:
    long = {function.name: size for function in functions(path) if (size := body(function)) > 60}
    assert long == {}, f"bodies of more than {FUNCTION_LINES} lines"


def body(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    said = ast.get_docstring(function, clean=False) is not None
    statements = function.body[1:] if said else function.body
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1 if statements else 0


@pytest.mark.parametrize("path", named(NATIVE))
def test_a_native_function_keeps_its_budget(path: Path) -> None:
    long = {line: size for line, size in native_functions(path) if size > NATIVE_LINES}
    assert long == {}, "first lines and sizes of functions that are too long"


def native_functions(path: Path) -> Iterator[tuple[int, int]]:
    """First line and number of lines of every block that is not a namespace, class or list."""
    text = re.sub(r'//[^\n]*|"(\\.|[^"\\\n])*"', "", path.read_text(encoding="utf-8"))
    text = re.sub(r"^[ \t]*#[^\n]*", "", text, flags=re.MULTILINE)
    text = re.sub(r"/\*.*?\*/", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    opened: list[tuple[int, bool]] = []
    for found in re.finditer(r"[{}]", text):
        line = text.count("\n", 0, found.start()) + 1
        if found[0] == "{":
            head = re.split(r"[;{}]", text[: found.start()])[-1]
            inside = any(is_function for _, is_function in opened)
            opened.append((line, ")" in head and not inside))
            continue
        first, is_function = opened.pop()
        if is_function:
            yield first, line - first + 1


# What may not be there ----------------------------------------------------------------------------


def test_no_module_has_a_vague_name() -> None:
    assert [str(path) for path in PYTHON if path.stem in VAGUE] == []


@pytest.mark.parametrize("path", named(PYTHON))
def test_nothing_pickles(path: Path) -> None:
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not forbidden & {part for _, name in imported(path) for part in name.split(".")}
    used = {ast.unparse(node.func) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)}
    assert not used & {"torch.save", "torch.load"}


@pytest.mark.parametrize("path", named(sorted((ROOT / "tests").rglob("*.py"))))
def test_no_test_catches_what_it_should_let_fail(path: Path) -> None:
    caught = [
        node.lineno for node in ast.walk(tree(path)) if isinstance(node, ast.Try | ast.TryStar)
    ]
    assert caught == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(r"(?<![\w.])/(?:work|home|root|Users|mnt|tmp|opt|srv)/\w")
    folders = ("src", "csrc", "tests", "examples", "benchmarks", "docs", "scripts", ".ci")
    suffixes = (
        ".py",
        ".pyi",
        ".cpp",
        ".h",
        ".md",
        ".toml",
        ".txt",
        ".yaml",
        ".sh",
        ".json",
        ".js",
        "",
    )
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file()]
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        if path.suffix in suffixes and "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if place.search(line)
    ]
    assert found == []


# What has to be there -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["segue.cells", "segue.layers", "segue.nn"])
def test_every_public_layer_has_a_row(name: str) -> None:
    module = importlib.import_module(name)
    layers = {
        value
        for key, value in vars(module).items()
        if key in getattr(module, "__all__", vars(module)) and not key.startswith("_")
        if inspect.isclass(value) and issubclass(value, nn.Module) and not inspect.isabstract(value)
        if value.__module__.startswith(name)
    }
    covered = {row.covers for row in [*catalogue.ROWS, *catalogue.MODULES]}
    assert sorted(layer.__name__ for layer in layers - covered) == []


def test_every_kind_and_every_task_has_a_row() -> None:
    specs = [row.spec for row in catalogue_models.ROWS]
    kinds = {entry["kind"] for spec in specs for entry in spec["inputs"].values()}
    tasks = {entry["task"] for spec in specs for entry in spec["outputs"].values()}
    assert (kinds, tasks) == (set(KINDS), set(TASKS))


@pytest.mark.parametrize("path", named(MODULES))
def test_what_is_public_has_a_docstring(path: Path) -> None:
    module = tree(path)
    assert ast.get_docstring(module), f"{path.name} itself"
    assert list(without_docstring(module, path.stem)) == []


def without_docstring(parent: ast.Module | ast.ClassDef, name: str) -> Iterator[str]:
    """Public classes, functions and methods; one that inherits may leave its methods to that."""
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if node.name.startswith("_") or inherits(parent) and not isinstance(node, ast.ClassDef):
            continue
        if not ast.get_docstring(node):
            yield f"{name}.{node.name}"
        if isinstance(node, ast.ClassDef):
            yield from without_docstring(node, f"{name}.{node.name}")


def inherits(parent: ast.Module | ast.ClassDef) -> bool:
    return isinstance(parent, ast.ClassDef) and bool(parent.bases)
