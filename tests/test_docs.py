"""The documentation is right: its code runs, its options, names, numbers and links exist.

Python blocks of docs/ run page by page, as one program a page, in an empty folder. What takes long
or needs something is marked by a comment in the line above, `<!-- run: WHY NOT -->`, and only
parsed; imports, and arguments of calls of physai, are checked against the library everywhere. A
block below `<!-- file: NAME -->` is written to that file before the page runs.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import re
import runpy
import shlex
import subprocess
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import tyro
from pages import table

import physai
from physai import verbs
from physai.control.policy import init_policy
from physai.export.c99 import policy_header, policy_source
from physai.export.compiled import run_compiler
from physai.export.contract import Contract
from physai.plant import load_plant
from physai.task import load_task

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
SPECS = sorted((ROOT / "envs").glob("*/README.md"))
PAGES = [ROOT / "README.md", *DOCS, *SPECS, *sorted((ROOT / "checkpoints").rglob("*.md"))]
SHELL = ("", "sh", "bash", "shell", "console")
NOT_HERE = {
    "stable_baselines3",
    "physai.env.stable_baselines",
    "onnxruntime",
    "PIL",
}  # imports of extras; whether they are installed is not our matter


class Block(NamedTuple):
    """A fenced block: its language, its text, and the comment in the line above."""

    page: Path
    line: int
    language: str
    text: str
    marker: str
    value: str


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    found, language, start, marker = [], None, 0, ("", "")
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.startswith("```"):
            continue
        if language is None:
            comment = re.fullmatch(r"<!-- (run|file): (.+) -->", lines[number - 2])
            marker = (comment[1], comment[2]) if comment else ("", "")
            language, start = line[3:].strip(), number
        else:
            text = "\n".join(lines[start : number - 1]) + "\n"
            found.append(Block(page, start, language, text, *marker))
            language = None
    assert language is None, f"{page}: a block that starts in line {start} does not end"
    return found


def name(value: Any) -> str:
    """Name a parameter of a test."""
    if isinstance(value, Block):
        return f"{value.page.name}:{value.line}"
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else str(value)


ALL = [block for page in PAGES for block in blocks(page)]
PYTHON = [block for block in ALL if block.language == "python"]


def runs(block: Block) -> bool:
    """Tell whether a block is run; README.md has no room for markers and shows the whole flow."""
    return block.language == "python" and not block.marker and block.page.parent == ROOT / "docs"


# Python


@pytest.mark.parametrize("page", [p for p in DOCS if any(map(runs, blocks(p)))], ids=name)
def test_the_code_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # Every line where it is in the page, so that a failure has the page's line numbers.
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for block in blocks(page):
        code = block.text.splitlines()
        if block.marker == "file":
            Path(block.value).write_text(block.text)
        if runs(block):
            lines[block.line : block.line + len(code)] = code
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(lines))
    runpy.run_path(str(script))


@pytest.mark.parametrize("block", PYTHON, ids=name)
def test_python_blocks_use_names_and_arguments_that_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    known: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                if top not in NOT_HERE:
                    module = importlib.import_module(alias.name)
                    known[alias.asname or top] = module if alias.asname else _module(top)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module not in NOT_HERE:
            for alias in node.names:
                known[alias.asname or alias.name] = getattr(_module(node.module), alias.name)
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            _check_call(call, known)


def _module(path: str) -> Any:
    return importlib.import_module(path)


def _check_call(call: ast.Call, known: dict[str, Any]) -> None:
    """Bind the arguments of a call of a name that a block imported."""
    try:
        called = eval_name(call.func, known)
    except KeyError:
        return
    home = getattr(called, "__module__", None) or ""
    if not (home.startswith("physai") and callable(called)):
        return
    if any(isinstance(a, ast.Starred) for a in call.args) or None in {k.arg for k in call.keywords}:
        return
    try:
        inspect.signature(called).bind(*call.args, **{str(k.arg): k for k in call.keywords})
    except TypeError as error:
        pytest.fail(f"line {call.lineno}: {ast.unparse(call)}: {error}")


def eval_name(node: ast.expr, known: dict[str, Any]) -> Any:
    """Return what `a` or `a.b.c` is, a KeyError where that is only known when the block runs."""
    if isinstance(node, ast.Name):
        return known[node.id]
    if isinstance(node, ast.Attribute):
        owner = eval_name(node.value, known)
        if not hasattr(owner, node.attr):
            pytest.fail(f"line {node.lineno}: there is no {ast.unparse(node)}")
        return getattr(owner, node.attr)
    raise KeyError


def test_the_table_of_the_library_is_the_public_surface() -> None:
    rows = table(ROOT / "docs" / "index.md", "module")
    listed = {row["name"].strip("`"): row["module"].strip("`") for row in rows}
    assert set(listed) == set(physai.__all__)
    for public, home in listed.items():
        assert getattr(physai, public) is getattr(_module(home), public), public


# C


def test_the_c_example_calls_an_exported_policy(tmp_path: Path) -> None:
    (example,) = [b for b in blocks(ROOT / "docs" / "howto-deploy.md") if b.language == "c"]
    plant = load_plant("quadrotor")
    task = load_task(plant)
    low, high = np.transpose([(a.low, a.high) for a in plant.actions])
    policy = init_policy(
        jax.random.key(0), (8,), np.zeros(task.no), np.ones(task.no), low, high, plant.trim
    )
    contract = Contract("example", 50.0, task.observations, plant.actions, plant.trim)
    (tmp_path / "policy.h").write_text(policy_header(policy, contract))
    (tmp_path / "policy.c").write_text(policy_source(policy, contract))
    (tmp_path / example.value).write_text(example.text)
    sources = [str(tmp_path / example.value), str(tmp_path / "policy.c")]
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    run_compiler([*strict, *sources, "-o", str(tmp_path / "main")])
    done = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("status 0, throttle of rotor 1: 0.2")


# Command line


class Command(NamedTuple):
    """A command of physai in a shell block."""

    block: Block
    words: list[str]


def commands() -> Iterator[Command]:
    for block in ALL:
        if block.language not in SHELL:
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            words = words[1:] if words[:1] == ["$"] else words
            if words[:1] and Path(words[0]).name == "physai":
                yield Command(block, words[1:])
            elif words[1:3] == ["-m", "physai"]:
                yield Command(block, words[3:])


COMMANDS = list(commands())


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{name(c.block)}-{c.words[0]}")
def test_commands_parse(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    verb, *arguments = command.words
    assert verb in verbs.VERBS
    try:
        parse(verb, arguments)
    except SystemExit:
        pytest.fail(f"physai {' '.join(command.words)}: {capsys.readouterr().err}")


def parse(verb: str, arguments: list[str]) -> dict[str, Any]:
    """Parse as the command line does, and do nothing."""

    @functools.wraps(verbs.VERBS[verb])
    def nothing(**values: Any) -> dict[str, Any]:
        return values

    return tyro.cli(nothing, args=arguments)  # type: ignore[return-value]


def test_every_verb_is_shown_somewhere() -> None:
    assert {c.words[0] for c in COMMANDS} == set(verbs.VERBS)


def options_of(record: Any) -> tuple[set[str], set[type]]:
    """Return the options of a verb or a settings class, and the settings classes within it."""
    hints, renamed = typing.get_type_hints(record), {}
    if dataclasses.is_dataclass(record):
        names = [field.name for field in dataclasses.fields(record)]
    else:
        # The plant, and what else has no name of its own, is no option.
        annotated = typing.get_type_hints(record, include_extras=True)
        about = {n: getattr(annotated[n], "__metadata__", ()) for n in annotated}
        names = [
            n for n in inspect.signature(record).parameters if tyro.conf.Positional not in about[n]
        ]
        renamed = {n: m.name for n in names for m in about[n] if getattr(m, "name", None)}
    nested = {hints[n] for n in names if dataclasses.is_dataclass(hints[n])}
    plain = [renamed.get(n, n) for n in names if not dataclasses.is_dataclass(hints[n])]
    return {"--" + n.replace("_", "-") for n in plain}, nested


def documented(heading: str) -> set[str]:
    """Return the options in the table of a section of the reference."""
    page = (ROOT / "docs" / "reference-cli.md").read_text(encoding="utf-8")
    parts = re.split(rf"^#+ {re.escape(heading)}\n", page, flags=re.MULTILINE)
    assert len(parts) == 2, f"reference-cli.md: expected one section {heading!r}"
    section = re.split(r"^#", parts[1], flags=re.MULTILINE)[0]
    return set(re.findall(r"^\| `(--[a-z-]+)` \|", section, flags=re.MULTILINE))


def settings_classes() -> set[type]:
    found: set[type] = set()
    pending = list(verbs.VERBS.values())
    while pending:
        _, nested = options_of(pending.pop())
        pending += nested - found  # type: ignore[arg-type]
        found |= nested
    return found


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_the_reference_has_every_option_of_a_verb(verb: str) -> None:
    assert documented(f"`{verb}`") == options_of(verbs.VERBS[verb])[0]


@pytest.mark.parametrize("settings", sorted(settings_classes(), key=str))
def test_the_reference_has_every_option_of_the_settings(settings: type) -> None:
    words = re.findall("[A-Z][a-z]+", settings.__name__)
    title = words[0] if words[0] == "Conditions" else f"{words[0]} settings"
    assert documented(title) == options_of(settings)[0]


# Links


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match("[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: no such file"
        assert target.is_relative_to(ROOT), f"{link}: outside the project"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


def test_the_index_leads_to_every_page() -> None:
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w-]+\.md)\)", text))
    assert linked == {page.name for page in DOCS} - {"index.md"}
