"""The documentation says what the code says: names, defaults, links. `test_docs_snippets.py` has its code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import NamedTuple

import click
import pytest

import lambda_dbconn
from benchmarks import layer
from lambda_dbconn import ConnectionManager, LambdaDbConnError, LambdaDbConnWarning, Settings, Stats, errors, events
from lambda_dbconn.cli.group import CommandGroup
from lambda_dbconn.drivers.errors import _ROWS, ROWS
from lambda_dbconn.events import Event
from lambda_dbconn.proxy.rules import MYSQL_TRACKED, table
from lambda_dbconn.settings.model import _FIELDS, PORTS
from tests.support import catalogue, matrix_page
from tests.support.matrix import SITUATIONS
from tests.support.stage import ENGINES, WAYS

pytestmark = pytest.mark.once

COMMANDS = CommandGroup.default()
CONTEXT = click.Context(COMMANDS)
ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "docs" / "reference" / "settings.md"

_GENERATED_FOLDERS = {"build", "dist", "site", "node_modules"}
_NOT_A_FIELD = "url"  # its parts are
# Defaults that follow from other settings: what the documentation must at least mention.
_COMPUTED_DEFAULTS = {
    "engine": [str(port) for port in PORTS.values()],
    "port": [str(port) for port in PORTS.values()],
    "auth": ["secret", "iam", "password"],
}
_CARD_PARTS = ["Field", "Type", "Unit", "Default", "Accepted", "Leave it alone"]


class Fence(NamedTuple):
    """One fenced block of a Markdown file."""

    line: int
    language: str
    code: str


def markdown_files() -> list[Path]:
    """Return every Markdown file of the project."""
    found = []
    for path in ROOT.rglob("*.md"):
        folders = path.relative_to(ROOT).parts[:-1]
        if not any(name.startswith(".") or name in _GENERATED_FOLDERS for name in folders):
            found.append(path)
    return sorted(found)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def split(text: str) -> tuple[str, list[Fence]]:
    """Return the text without its fenced blocks, and the blocks."""
    prose: list[str] = []
    fences: list[Fence] = []
    opening: re.Match[str] | None = None
    block: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if opening is None:
            opening = re.match(r"( *)(`{3,}|~{3,})(\w*)", line)
            if opening is None:
                prose.append(line)
        elif line.strip() == opening[2]:
            fences.append(Fence(number - len(block), opening[3], "\n".join(block) + "\n"))
            opening, block = None, []
        else:
            block.append(line.removeprefix(opening[1]))
    assert opening is None, "a fenced block is not closed"
    return "\n".join(prose), fences


def read(path: Path) -> str:
    """Return a file's prose."""
    return split(path.read_text(encoding="utf-8"))[0]


def sections(path: Path) -> dict[str, str]:
    """Return the text under each heading of the third level that is one name in code."""
    parts = re.split(r"^(#{1,6}) (.+)$", read(path), flags=re.MULTILINE)[1:]
    found: dict[str, str] = {}
    for level, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        name = re.fullmatch(r"`(\w+)`", title)
        if level == "###" and name:
            assert name[1] not in found, f"{name_of(path)} has {name[1]} twice"
            found[name[1]] = body
    return found


def card(body: str) -> dict[str, str]:
    """Return the parts of a card: `- Name: text`, each up to the next."""
    items = re.findall(r"^- ([A-Z][a-z ]*): (.*(?:\n  .*)*)", body, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}


def setting_cards() -> dict[str, dict[str, str]]:
    """Return the reference's cards by field."""
    return {name.removeprefix("DB_").lower(): card(body) for name, body in sections(SETTINGS).items()}


def readme_defaults() -> dict[str, str]:
    """Return the last column of the README's table of settings, by field."""
    rows = re.findall(r"^\| `DB_(\w+)` \|(.*)\|$", read(ROOT / "README.md"), flags=re.MULTILINE)
    names = [name.lower() for name, _ in rows]
    assert len(names) == len(set(names)), "a setting has two rows"
    return {name.lower(): cells.split(" | ")[-1].strip() for name, cells in rows}


def fault_in_default(field: str, said: str) -> str | None:
    """Say what is wrong with a documented default."""
    default = getattr(Settings, field, None)
    if field in _COMPUTED_DEFAULTS:
        missing = [value for value in _COMPUTED_DEFAULTS[field] if f"`{value}`" not in said]
        return f"does not mention {', '.join(missing)}" if missing else None
    if default is None:
        return None if re.match(r"none\b", said) else f"is {said!r}, but there is none"
    shown = f"`{default:g}`" if isinstance(default, (int, float)) else f"`{default}`"
    return None if said == shown else f"is {said!r}, but the code has {shown}"


def anchors(path: Path) -> set[str]:
    """Return the anchors of a file's headings, as GitHub makes them."""
    titles = re.findall(r"^#{1,6} (.+)$", read(path), flags=re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower() for title in titles)
    return {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in plain}


def public(module: object, base: type) -> set[str]:
    """Return the names of a module's own classes below `base`."""
    return {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and inspect.isclass(value) and issubclass(value, base)
    }


# --- settings


def test_every_setting_has_a_card_and_every_card_is_of_a_setting() -> None:
    assert set(setting_cards()) == {*_FIELDS, _NOT_A_FIELD}


def test_every_setting_has_a_row_in_the_readme_and_every_row_is_of_a_setting() -> None:
    assert set(readme_defaults()) == {*_FIELDS, _NOT_A_FIELD}


@pytest.mark.parametrize("field", [*_FIELDS, _NOT_A_FIELD])
def test_a_card_has_all_its_parts(field: str) -> None:
    assert list(setting_cards()[field]) == _CARD_PARTS


@pytest.mark.parametrize("field", _FIELDS)
def test_a_card_names_its_field(field: str) -> None:
    assert setting_cards()[field]["Field"] == f"`{field}`"


@pytest.mark.parametrize("field", _FIELDS)
def test_a_card_says_what_is_accepted_in_the_words_of_the_code(field: str) -> None:
    assert setting_cards()[field]["Accepted"].startswith(_FIELDS[field].words)


@pytest.mark.parametrize("field", [*_FIELDS, _NOT_A_FIELD])
def test_a_cards_default_is_the_codes(field: str) -> None:
    assert fault_in_default(field, setting_cards()[field]["Default"]) is None


@pytest.mark.parametrize("field", [*_FIELDS, _NOT_A_FIELD])
def test_the_readmes_default_is_the_codes(field: str) -> None:
    assert fault_in_default(field, readme_defaults()[field]) is None


def test_the_unit_of_a_card_is_that_in_the_settings_name() -> None:
    units = {field: parts["Unit"] for field, parts in setting_cards().items()}
    assert {field for field, unit in units.items() if unit == "seconds"} == {f for f in _FIELDS if f.endswith("_s")}


# --- errors, events, names


def test_every_error_has_a_card_and_every_card_is_of_an_error() -> None:
    cards = sections(ROOT / "docs" / "reference" / "errors.md")
    assert set(cards) == public(errors, LambdaDbConnError) | public(errors, LambdaDbConnWarning)


@pytest.mark.parametrize("name", sorted(public(errors, LambdaDbConnError)))
def test_an_errors_card_says_when_whether_to_retry_and_what_to_do(name: str) -> None:
    parts = card(sections(ROOT / "docs" / "reference" / "errors.md")[name])
    assert list(parts) == ["Raised when", "Retryable", "Remedy"]
    is_always = getattr(errors, name).retryable
    assert re.match(r"yes\b" if is_always else r"(no|depends)\b", parts["Retryable"])


def test_the_tables_of_what_is_said_are_the_codes() -> None:
    page = catalogue.PAGE.read_text(encoding="utf-8")
    assert page == catalogue.with_tables(page), "run: python -m tests.support.catalogue"


def test_the_tables_of_what_is_said_have_a_line_for_each_of_the_codes() -> None:
    assert len(catalogue.said_at_connect().splitlines()) == len(_ROWS) + 2
    assert len(catalogue.said_of_queries().splitlines()) == len(ROWS) + 2


def test_every_event_has_a_section_and_every_section_is_of_an_event() -> None:
    assert set(sections(ROOT / "docs" / "reference" / "events.md")) == public(events, Event) - {"Event"}


@pytest.mark.parametrize("name", sorted(public(events, Event) - {"Event"}))
def test_an_events_section_has_its_fields_in_order(name: str) -> None:
    section = sections(ROOT / "docs" / "reference" / "events.md")[name]
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == getattr(events, name)._fields


@pytest.mark.parametrize("name", lambda_dbconn.__all__)
def test_every_public_name_is_in_the_api_reference(name: str) -> None:
    assert re.search(rf"`{name}[`(]", read(ROOT / "docs" / "reference" / "api.md"))


@pytest.mark.parametrize("name", [name for name in dir(ConnectionManager) if not name.startswith("_")])
def test_every_method_of_the_manager_has_a_heading(name: str) -> None:
    headings = re.findall(r"^#### (.+)$", read(ROOT / "docs" / "reference" / "api.md"), flags=re.MULTILINE)
    assert any(re.search(rf"`{name}[`(]", heading) for heading in headings)


@pytest.mark.parametrize("name", Stats._fields)
def test_every_counter_is_in_the_api_reference(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", sections(ROOT / "docs" / "reference" / "api.md")["Stats"], re.MULTILINE)


# --- command line


@pytest.mark.parametrize("name", COMMANDS.list_commands(CONTEXT))
def test_every_option_of_a_command_is_in_the_reference_with_its_default(name: str) -> None:
    text = read(ROOT / "docs" / "reference" / "command-line.md")
    section = re.split(r"^## ", text.partition(f"## `lambda-dbconn {name}`")[2], flags=re.MULTILINE)[0]
    rows = {row[0]: row[1] for row in re.findall(r"^\| `(--[\w-]+)` \|.*\| ([^|]+) \|$", section, flags=re.MULTILINE)}
    command = COMMANDS.get_command(CONTEXT, name)
    assert command is not None
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert set(rows) == {option.opts[0] for option in options}
    shown = [option for option in options if option.show_default]
    assert {rows[option.opts[0]].strip("`") for option in shown} == {_default_of(option) for option in shown}


def _default_of(option: click.Option) -> str:
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default)


# --- pinning


def test_the_table_of_pinning_rules_is_the_generated_one() -> None:
    page = (ROOT / "docs" / "reference" / "pinning.md").read_text(encoding="utf-8")
    assert page.partition("<!-- rules -->\n")[2].partition("<!-- end of rules -->")[0].strip() == table().strip()


def test_the_tracked_variables_are_all_in_the_reference_of_pinning() -> None:
    page = read(ROOT / "docs" / "reference" / "pinning.md").partition("what the proxy tracks:")[2].partition(";")[0]
    assert set(re.findall(r"`(\w+)`", page)) == MYSQL_TRACKED


# --- the invocation matrix


def table_of(name: str) -> list[list[str]]:
    """Return the cells of a table in the page of the invocation matrix, without its head."""
    page = matrix_page.PAGE.read_text(encoding="utf-8")
    lines = page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0].splitlines()
    assert set(lines[1]) == {"|", "-"}
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_the_invocation_matrix_has_a_line_for_each_cell_and_each_line_says_all() -> None:
    lines = table_of("matrix")
    cells = [[situation.name, engine, way] for situation in SITUATIONS for engine in ENGINES.values() for way in WAYS]
    assert [line[:3] for line in lines] == cells
    assert all(len(line) == 8 and all(line) for line in lines)


def test_the_times_of_locks_are_there_for_each_engine_and_handler() -> None:
    lines = table_of("times")
    handlers = matrix_page.HANDLERS.values()
    assert [line[:2] for line in lines] == [[engine, handler] for engine in ENGINES.values() for handler in handlers]
    assert all(re.fullmatch(r"\d+\.\d s", time) for line in lines for time in line[3:])
    assert all(len(line) == 6 for line in lines)


# --- what layers cost


def test_the_table_of_layers_has_a_line_for_each_with_its_sizes_and_times_or_that_it_was_not_run() -> None:
    page = (ROOT / "docs" / "explanation" / "what-it-costs.md").read_text(encoding="utf-8")
    head, _, *lines = page.partition("<!-- layers -->\n")[2].partition("\n<!-- end -->")[0].splitlines()
    rows = [[cell.strip() for cell in line.removeprefix("| ").removesuffix(" |").split(" | ")] for line in lines]
    assert head == "| " + " | ".join(layer.HEAD) + " |"
    assert [tuple(row[:3]) for row in rows] == layer.LAYERS
    assert all(re.fullmatch(r"\d+\.\d MB", size) for row in rows for size in row[3:5])
    was_run = [row for row in rows if not row[5].startswith(layer.NOT_RUN)]
    assert len(rows) >= 10
    assert len(was_run) >= 6
    assert all(re.fullmatch(r"\d+ ms \d+ ms \d\.\d\W", " ".join(row[5:])) for row in was_run)
    assert all(row[6:] == [layer.NOT_RUN, ""] for row in rows if row not in was_run)


# --- Markdown


@pytest.mark.parametrize("path", markdown_files(), ids=name_of)
def test_relative_links_lead_somewhere(path: Path) -> None:
    broken = []
    prose = re.sub(r"(`+)(?:(?!\1).)+?\1", "`code`", read(path), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        is_right = linked.exists() and (not anchor or anchor in anchors(linked))
        if not is_right:
            broken.append(target)
    assert broken == []


def test_there_is_documentation_to_be_tested() -> None:
    names = [name_of(path) for path in markdown_files()]
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/index.md"} <= set(names)
    assert sum(fence.language == "python" for path in markdown_files() for fence in split(path.read_text())[1]) > 10
