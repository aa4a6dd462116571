"""What README and docs say is true: examples run, commands parse, options and links are there."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from segue import defaults, schema
from segue.cells import CELLS
from segue.cli import main, parser
from segue.fields import KINDS
from segue.run import declare
from segue.tasks import TASKS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
PROMISING = [ROOT / "README.md", ROOT / "DESIGN.md"]
OTHER_COMMANDS = {".", "cat", "cd", "cp", "git", "head", "tail"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    info: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, with the line of their first line."""
    fence = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    text = page.read_text(encoding="utf-8")
    for found in fence.finditer(text):
        line = text.count("\n", 0, found.start(2)) + 1
        yield Block(page, line, found[1].strip(), found[2])


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def blocks_of(*infos: str) -> list[Any]:
    """The blocks of these kinds on all pages, as parameters of a test."""
    return [
        pytest.param(block, id=f"{block.page.name}:{block.line}")
        for page in PAGES
        for block in blocks(page)
        if block.info in infos
    ]


def pages_with(info: str) -> list[Any]:
    """The pages that have blocks of this kind, as parameters of a test."""
    found = [page for page in PAGES if any(block.info == info for block in blocks(page))]
    return [pytest.param(page, id=page.name) for page in found]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of, as the place where examples run."""
    package = find_spec("statsmodels")
    if package is None or package.origin is None:
        pytest.skip("the examples read the data of statsmodels: pip install '.[test]'")
    shutil.copy(Path(package.origin).parent / "datasets" / "co2" / "co2.csv", tmp_path)
    shutil.copy(ROOT / "LICENSE", tmp_path / "licence.txt")
    monkeypatch.chdir(tmp_path)
    # The examples as they stand, but with a short training.
    monkeypatch.setattr(defaults, "UPDATES", 5)
    return tmp_path


# Examples -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", pages_with("python"))
def test_python_examples_run(page: Path, desk: Path) -> None:
    lines = [""] * page.read_text(encoding="utf-8").count("\n")
    for block in blocks(page):
        if block.info == "python":
            own = block.text.splitlines()
            lines[block.line - 1 : block.line - 1 + len(own)] = own
    exec(compile("\n".join(lines), str(page), "exec"), {"__name__": page.stem})


@pytest.mark.parametrize("page", pages_with("console check"))
def test_commands_answer_as_shown(
    page: Path, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(page):
        if block.info == "console check":
            shown = []
            for command in re.findall(r"^\$ (.*)$", block.text, re.MULTILINE):
                main(shlex.split(command)[1:])
                said = capsys.readouterr()
                shown.append(f"$ {command}\n{said.out}{said.err}")
            assert "".join(shown).rstrip() == block.text.rstrip()


@pytest.mark.parametrize("block", blocks_of("console", "console check"))
def test_commands_are_known(block: Block) -> None:
    commands = re.findall(r"^\$ (.*)$", block.text, re.MULTILINE)
    assert commands
    for command in commands:
        for words in parts(command):
            assert_known(words)


def parts(command: str) -> Iterator[list[str]]:
    """The simple commands of a line of shell, without what they are redirected to."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|;&<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for token in lexer:
        if token in ("|", ";", "&&"):
            yield words
            words = []
        elif token in ("<", ">"):
            next(lexer)
        else:
            words.append(token)
    yield words


def assert_known(words: list[str]) -> None:
    match words:
        case ["segue", *arguments]:
            if arguments not in (["--help"], ["--version"]):
                parser().parse_args(arguments)
        case ["make", *targets]:
            rules = (ROOT / "Makefile").read_text(encoding="utf-8")
            assert all(re.search(rf"^{target}:", rules, re.MULTILINE) for target in targets)
        case ["pip", "install", *arguments]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            extras = re.findall(r"\w+", re.sub(r"^\.", "", arguments[-1]))
            assert set(extras) <= set(project["project"]["optional-dependencies"])
        case ["python" | "python3" | ".venv/bin/python", script, *_]:
            assert script in ("-m", "-c") or (ROOT / script).is_file()
        case [command, *_]:
            assert command in OTHER_COMMANDS or (ROOT / command).is_file()


@pytest.mark.parametrize("block", blocks_of("yaml"))
def test_yaml_examples_are_declarations(block: Block) -> None:
    least = {
        "data": {"rows": "steps"},
        "inputs": {"x": {"kind": "number"}},
        "outputs": {"y": {"task": "regress"}},
    }
    declare({**least, **yaml.safe_load(block.text)})


def test_every_kind_of_block_is_one_that_is_tested() -> None:
    kinds = {block.info for page in PAGES for block in blocks(page)}
    # Equations and output have no language; what is skipped says so.
    assert kinds <= {"", "text", "python", "python skip", "console", "console check", "yaml"}


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, segue.cli; segue.cli.parser(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Options ------------------------------------------------------------------------------------------


def option_models() -> dict[str, tuple[type[BaseModel], type[BaseModel] | None]]:
    """The models of the declaration by their name in the pages, and whose options they share."""
    own = (schema.Data, schema.Split, schema.Input, schema.Model, schema.Training, schema.Clip)
    return {
        **{model.__name__: (model, None) for model in own},
        **{name: (kind.Spec, schema.Input) for name, kind in KINDS.items()},
        **{name: (task.Spec, schema.Output) for name, task in TASKS.items()},
    }


def option_tables() -> dict[str, list[list[str]]]:
    """The rows of the option tables of the pages, by the name in their mark."""
    found = {}
    mark = re.compile(r"^<!-- options: (\w+) -->\n((?:\|.*\n)+)", re.MULTILINE)
    for page in PAGES:
        for name, table in mark.findall(page.read_text(encoding="utf-8")):
            assert name not in found
            found[name] = [table_cells(line) for line in table.splitlines()[2:]]
    return found


def table_cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def shown_default(field: FieldInfo) -> set[str]:
    """What may stand as the default of an option."""
    value = field.default
    if field.is_required():
        return {"required"}
    if value is None:
        return {"none", "inferred", "found"}
    if isinstance(value, BaseModel):
        said = yaml.safe_dump(value.model_dump(exclude_none=True), default_flow_style=True).strip()
        return {f"`{said}`" if said != "{}" else "see below"}
    return {f"`{value if isinstance(value, str) else json.dumps(value)}`"}


def choices(annotation: Any) -> set[str]:
    """The words of all literals in a type."""
    found: set[str] = set()
    for part in get_args(annotation):
        found |= {part} if isinstance(part, str) else choices(part)
    return found


@pytest.mark.parametrize("name", option_models())
def test_every_option_stands_with_its_default_and_its_choices(name: str) -> None:
    model, shared = option_models()[name]
    inherited = set() if shared is None else set(shared.model_fields)
    fields = {n: field for n, field in model.model_fields.items() if n not in inherited}
    rows = {cells[0].strip("`"): cells[1:] for cells in option_tables()[name]}
    assert list(rows) == list(fields)
    for option, field in fields.items():
        default, meaning = rows[option]
        assert default in shown_default(field), option
        words = set(re.findall(r"`([^`]*)`", meaning))
        assert choices(field.annotation) <= words | {default.strip("`")}, option


def test_every_cell_and_optimizer_is_named() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in CELLS)


# Links and promises -------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.replace(" ", "-") for text in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PROMISING, ids=lambda page: page.name)
def test_promises_name_tests_that_exist(page: Path) -> None:
    files = list((ROOT / "tests").glob("test_*.py"))
    known = {file.stem for file in files}
    for file in files:
        known |= set(re.findall(r"^def (test_\w+)", file.read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\btest_\w+", page.read_text(encoding="utf-8")))
    assert named
    assert not named - known


def test_figures_name_the_command_that_makes_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text.partition("<!-- figures -->")[2].partition("<!-- end of figures -->")[0]
    rows = [table_cells(line) for line in table.strip().splitlines()[2:]]
    known = (ROOT / "benchmarks" / "run_all.py").read_text(encoding="utf-8")
    assert rows
    for *_, command in rows:
        script = re.search(r"benchmarks/\w+\.py", command)
        assert script and (ROOT / script[0]).is_file(), command
        # With the seeds of the figures: a median is not what one seed prints.
        assert f'"{command.strip("`").removeprefix("python benchmarks/")}"' in known, command


def test_the_design_fits_on_its_pages() -> None:
    assert len((ROOT / "DESIGN.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_import_order_of_the_design_is_that_of_the_code() -> None:
    section = (ROOT / "DESIGN.md").read_text(encoding="utf-8").partition("## Import order")[2]
    block = section.split("```")[1]
    order = re.findall(r"\w+", "\n".join(line.partition("   ")[0] for line in block.splitlines()))
    source = ROOT / "src" / "segue"
    modules = {path.stem for path in source.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert set(order) == {name for name in modules if not name.startswith("_")}
    for name in order:
        files = [source / f"{name}.py", *(source / name).rglob("*.py")]
        for tree in (ast.parse(file.read_text("utf-8")) for file in files if file.is_file()):
            for imported in imports(tree) - {name}:
                assert order.index(imported) < order.index(name), f"{name} imports {imported}"


def imports(tree: ast.Module) -> set[str]:
    """The modules of segue that a module imports from."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "segue":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("segue."):
            found.add((node.module or "").split(".")[1])
    return found
