"""The documents: what they show runs, and what they name exists.

A fenced block says by its first word what it is. `python` must compile, and with a second word, `python runs`, it is
executed in an empty folder. In `console`, a line after `$` is a command: one of skewguard must be understood by its
parser, one of make must have a target. `toml` and `json` must be read by their parsers.
"""

import argparse
import ast
import builtins
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import skewguard
from skewguard import cli, errors
from skewguard.contract import _READERS
from skewguard.findings import Kind
from skewguard.policy import load_policy
from skewguard.workflows.project import load_project

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

SHARED = {
    "audit": "snapshot",
    "cli": "api",
    "errors": "api",
    "findings": "compare",
    "place": "snapshot",
    "policy": "verdict",
    "spine": "answer",
    "testing": "transforms",
}
"""Rooms that have no page of their own, and the page that tells of them."""

PARTS = ("skewguard", "flights", "pipelines", "serving", "feature_repo", "tests", "benchmarks", "docs")
"""Folders of the repository: a path that begins with one of them is held to exist."""

MACHINE = re.compile(r"(?:^|[^\w.])/(?:work|root|home|Users|tmp|opt|mnt)/", re.MULTILINE)
FENCE = re.compile(r"^(?P<margin> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=margin)```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Block:
    """One fenced block of a document: its info words, its text, and where it begins."""

    document: Path
    line: int
    words: tuple[str, ...]
    text: str

    @property
    def language(self) -> str:
        return self.words[0] if self.words else ""

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}:{self.line}"


def _blocks() -> Iterator[Block]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(document, line, tuple(found["info"].split()), found["body"])


BLOCKS = list(_blocks())


def _of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def _prose(document: Path) -> str:
    """A document without its fenced blocks, lines kept."""
    return FENCE.sub(lambda found: "\n" * found[0].count("\n"), document.read_text(encoding="utf-8"))


def _code(document: Path) -> Iterator[str]:
    """Every piece of code that a document shows: lines of fenced and of indented blocks, and spans."""
    for block in BLOCKS:
        if block.document == document:
            yield from re.sub(r"\\\n\s*", " ", block.text).splitlines()
    text = _prose(document)
    yield from (line.strip() for line in text.splitlines() if line.startswith("    "))
    yield from (" ".join(span.split()) for span in SPAN.findall(text))


def _shown(block: Block) -> Iterator[str]:
    """The commands of a console block, continued lines joined."""
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        if line.startswith("$ "):
            yield line.removeprefix("$ ")


def _commands() -> dict[str, argparse.ArgumentParser]:
    parser = cli._parser()
    (choices,) = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(choices)


def _flags(command: argparse.ArgumentParser) -> set[str]:
    return {flag for action in command._actions for flag in action.option_strings if flag.startswith("--")}


COMMANDS = _commands()


# -- what is shown runs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", _of("python"), ids=str)
def test_python_in_the_documents_compiles(block: Block) -> None:
    """A snippet is Python, and its imports from skewguard exist."""
    tree = ast.parse(block.text, str(block))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "skewguard":
            _importable(node)


def _importable(node: ast.ImportFrom) -> None:
    """Without importing vendors: the module's source, or its package's, binds the name."""
    assert node.module is not None
    module = ROOT.joinpath(*node.module.split("."))
    source = module / "__init__.py" if module.is_dir() else module.with_suffix(".py")
    assert source.is_file(), f"there is no module {node.module}"
    text = source.read_text(encoding="utf-8")
    for alias in node.names:
        inside = (module / f"{alias.name}.py").is_file() or (module / alias.name).is_dir()
        assert inside or re.search(rf"\b{re.escape(alias.name)}\b", text), f"{node.module} has no {alias.name}"


@pytest.mark.parametrize("block", [b for b in _of("python") if "runs" in b.words], ids=str)
def test_python_that_is_said_to_run_runs(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A block `python runs` runs in an empty folder, and prints what its comments `# -> ...` say, line by line."""
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "snippet.py"  # a transform is fingerprinted by its source, which must lie in a file
    source.write_text(block.text, encoding="utf-8")
    namespace = {"__name__": "snippet", "__builtins__": builtins}
    exec(compile(block.text, str(source), "exec"), namespace)
    promised = re.findall(r"# -> (.*)", block.text)
    assert capsys.readouterr().out.splitlines() == promised


def _is_understood(arguments: list[str]) -> bool:
    try:
        cli._parser().parse_args(arguments)
    except SystemExit as ended:
        return not ended.code
    return True


@pytest.mark.parametrize("block", _of("console"), ids=str)
def test_commands_in_the_documents_are_understood(block: Block) -> None:
    """A console block shows at least one command, and those of skewguard parse."""
    shown = list(_shown(block))
    assert shown, "a console block shows commands after `$ `"
    for line in shown:
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words and words[0].rpartition("/")[2] == "skewguard":
            assert _is_understood(words[1:]), f"{line}: the parser refuses it"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_flags_that_are_named_exist(document: Path) -> None:
    """Wherever code says `skewguard <command> --flag` or `make <target>`, there is such a command, flag and target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for code in _code(document):
        for found in re.finditer(r"(?<!from )(?<!import )(?<![\w.-])skewguard ([a-z][a-z-]*)((?: [^|;&`]*)?)", code):
            assert found[1] in COMMANDS, f"{code}: there is no command {found[1]}"
            unknown = set(re.findall(r"--[a-z][a-z-]*", found[2])) - _flags(COMMANDS[found[1]])
            assert not unknown, f"{code}: {found[1]} has no {', '.join(sorted(unknown))}"
        for target in re.findall(r"^(?:\$ )?make ([a-z]+)", code):
            assert target in targets, f"{code}: there is no target {target}"


@pytest.mark.parametrize("block", _of("json"), ids=str)
def test_json_in_the_documents_is_json(block: Block) -> None:
    """A block of JSON is read by a parser."""
    json.loads(block.text)


@pytest.mark.parametrize("block", _of("toml"), ids=str)
def test_toml_in_the_documents_is_what_its_reader_takes(block: Block, tmp_path: Path) -> None:
    """A block of TOML parses, and a policy or a skewguard.toml is accepted by what reads it."""
    data = tomllib.loads(block.text)
    file = tmp_path / "shown.toml"
    file.write_text(block.text, encoding="utf-8")
    if "policy" in data:
        assert load_policy(file).governs
    if "skewguard" in data:
        assert load_project(file, environ={}).service


# -- what is named exists ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_resolve(document: Path) -> None:
    """A link leads to a file of the repository, and to a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name}: {target} leads nowhere"
        if anchor:
            assert anchor in _anchors(file), f"{document.name}: {target}: no such heading"


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", _prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_exist(document: Path) -> None:
    """A path in a span that begins with a folder of the repository is there."""
    for span in SPAN.findall(_prose(document)):
        if re.fullmatch(rf"(?:{'|'.join(PARTS)})/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{document.name}: there is no {span}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_names_a_path_of_a_machine(document: Path) -> None:
    """A document is true wherever the checkout lies."""
    assert MACHINE.findall(document.read_text(encoding="utf-8")) == []


# -- what there is, is told -------------------------------------------------------------------------------------------


def test_every_room_has_a_page() -> None:
    """Every room of skewguard/ is told of in a page of its name, or in the page that it shares."""
    entries = [entry for entry in (ROOT / "skewguard").iterdir() if not entry.name.startswith(("_", "."))]
    rooms = {entry.stem for entry in entries if entry.suffix == ".py" or (entry / "__init__.py").is_file()}
    untold = []
    for room in sorted(rooms):
        page = DOCS / f"{SHARED.get(room, room)}.md"
        if not page.is_file() or not re.search(rf"\b{room}\b", page.read_text(encoding="utf-8").lower()):
            untold.append(f"{room} in {page.relative_to(ROOT)}")
    assert untold == []


def test_the_corridor_in_the_documents_is_the_one_that_is_checked() -> None:
    """docs/architecture.md shows the rooms in the order that import-linter enforces."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (rooms,) = [one for one in settings["contracts"] if one["id"] == "rooms"]
    law = [sorted(re.findall(r"\w+", layer)) for layer in reversed(rooms["layers"])]
    (corridor,) = [b for b in BLOCKS if b.document == DOCS / "architecture.md" and b.language == "corridor"]
    shown = [sorted(re.findall(r"\w+", part)) for part in re.split(r"<", corridor.text)]
    assert shown == law


def test_every_page_is_reached_from_the_readme() -> None:
    """Whoever follows links from the README reaches every page and every decision."""
    reached: set[Path] = set()
    ahead = [ROOT / "README.md"]
    while ahead:
        document = ahead.pop()
        if document in reached or document not in DOCUMENTS:
            continue
        reached.add(document)
        ahead += [(document.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", _prose(document))]
    assert sorted(str(page.relative_to(ROOT)) for page in set(DOCUMENTS) - reached) == []


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_documented(command: str) -> None:
    """docs/api.md has a heading for the command, and names each of its flags below it."""
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    found = re.search(rf"^#+ `skewguard {command}`\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"docs/api.md has no heading `skewguard {command}`"
    common = {"--help", "--json", "--project"}
    missing = _flags(COMMANDS[command]) - common - set(re.findall(r"--[a-z][a-z-]*", found[1]))
    assert not missing, f"docs/api.md says nothing of {', '.join(sorted(missing))}"


def test_every_public_name_is_documented() -> None:
    """What `import skewguard` offers, every error, setting, tag and kind of finding has its place in the documents."""
    names = {
        "api.md": [*skewguard.__all__, *(name for name, one in vars(errors).items() if isinstance(one, type))],
        "contract.md": _READERS,
        "compare.md": Kind,
    }
    for page, wanted in names.items():
        text = (DOCS / page).read_text(encoding="utf-8")
        assert [name for name in wanted if not re.search(rf"\b{re.escape(name)}\b", text)] == [], page


def test_every_route_is_documented() -> None:
    """docs/api.md names every route of the service."""
    source = (ROOT / "skewguard/service/app.py").read_text(encoding="utf-8")
    routes = re.findall(r'@app\.(get|post)\("([^"]+)"', source)
    assert routes
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    told = {f"{verb} {route}" for verb, route in re.findall(r"`(GET|POST) (/[^`]*)`", text)}
    assert sorted({f"{verb.upper()} {route}" for verb, route in routes} - told) == []


@pytest.mark.parametrize("record", sorted((DOCS / "adr").glob("*.md")), ids=lambda path: path.stem)
def test_a_decision_says_how_to_check_that_it_still_holds(record: Path) -> None:
    """An ADR has context, decision and consequences, and the check that would find it broken."""
    text = record.read_text(encoding="utf-8")
    wanted = ["Context", "Decision", "Consequences", "How to check that it still holds"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == wanted
    assert re.match(rf"# {record.stem[:4]}: ", text)
