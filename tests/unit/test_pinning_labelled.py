"""The rules against statements of real code: precision and recall, and a second opinion."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from lambda_dbconn.proxy import is_harmless, pin
from lambda_dbconn.proxy.rules import RULES
from lambda_dbconn.testing.rds_proxy.pinning import pin_reason

pytestmark = pytest.mark.once

ENGINES = ("postgresql", "mysql")

# Labelled otherwise than judged, by engine and statement. Empty is not "perfect": see the README beside the data.
MISLABELLED: set[tuple[str, str]] = set()

# The documentation does not say; what we do meanwhile.
OPEN = {
    "PREPARE TRANSACTION :xid": None,
    "ALTER TABLE ONLY public.sa_items ALTER COLUMN id SET DEFAULT nextval('public.sa_items_id_seq'::regclass);": None,
    "CREATE TABLE films (code char(5), did integer DEFAULT nextval('serial'))": None,
    "CALL `foo`(@`_foo_0`,@`_foo_1`)": None,
    'call iotest("io1", @x, 1);': None,
    "FLUSH TABLES t1 FOR EXPORT;": None,
    "handler t1 open;": None,
    "SET STATEMENT max_statement_time=2 FOR\n"
    "                  SELECT name, sleep(0.01) FROM tbl": "mysql-set-statement",
    "GET DIAGNOSTICS @var1 = ROW_COUNT, @var2 = NUMBER;": "mysql-assigns-user-variable",
    "GET DIAGNOSTICS CONDITION 1 @var3= ROW_NUMBER;": "mysql-assigns-user-variable",
    "load data infile '../../std_data/rpl_loaddata.dat' into table t1 (a, @b) set b=@b+10, "
    'c=concat("b=",@b);': "mysql-assigns-user-variable",
    "SET @@tx_isolation = 'serializable';": "mysql-next-transaction-variable",
    "set role test_role1;": "mysql-set-role",
}

# Where the local proxy's own list (regular expressions, written from the same pages) says otherwise, and why.
ROUTINE = "it looks into the bodies of routines, which do not run when they are created"
DEFAULT = "it does not tell a default from a call"
NOT_THERE = "it does not know this form"
NO_VARIABLE = "it takes what is not a variable for one"
SECOND_OPINION = {
    "CREATE PROCEDURE test_procedure ()\n        BEGIN\n            DECLARE V_I INTEGER;\n            SET V_I = 1;\n"
    "        END;": ROUTINE,
    "CREATE PROCEDURE test_procedure (P_I INTEGER)\n        BEGIN\n            DECLARE V_I INTEGER;\n"
    "            SET V_I = P_I;\n        END;": ROUTINE,
    "create function f1() returns int begin set @a = 1; set @b := 2; return get_lock('x', 1); end;": ROUTINE,
    "PREPARE TRANSACTION :xid": "it takes the two-phase commit's PREPARE for a prepared statement's",
    "ALTER TABLE ONLY public.sa_items ALTER COLUMN id "
    "SET DEFAULT nextval('public.sa_items_id_seq'::regclass);": DEFAULT,
    "CREATE TABLE films (code char(5), did integer DEFAULT nextval('serial'))": DEFAULT,
    "EXPLAIN ANALYZE EXECUTE query(100, 200);": "it does not look behind EXPLAIN",
    "CREATE TABLE pg_temp.scratch (id int)": NOT_THERE,
    "/* outer /* inner */ still a comment */ SET x = 1": "it does not nest comments",
    "GET DIAGNOSTICS @var1 = ROW_COUNT, @var2 = NUMBER;": NOT_THERE,
    "GET DIAGNOSTICS CONDITION 1 @var3= ROW_NUMBER;": NOT_THERE,
    "load data infile '../../std_data/rpl_loaddata.dat' into table t1 (a, @b) set b=@b+10, "
    'c=concat("b=",@b);': NOT_THERE,
    "drop prepare stmt1;": NOT_THERE,
    "FLUSH LOCAL TABLES WITH READ LOCK;": NOT_THERE,
    "SET @@tx_isolation = 'serializable';": "it takes @@name for the session's, which it is not for these variables",
    "select '/*! 1 */', \"/*M! 2 */\", `/*! c */` from t1;": "it keeps what is in a quoted name",
    "set default role test_role;": NO_VARIABLE,
    "set password for oldauth@localhost = PASSWORD('test2');": NO_VARIABLE,
    "SET names utf8mb4, sql_big_selects=1;": "it does not look behind NAMES",
}


class Labelled(NamedTuple):
    """A line of the data."""

    engine: str
    label: str
    source: str
    statement: str


def labelled() -> list[Labelled]:
    path = Path(__file__).parents[1] / "data" / "pinning" / "statements.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Labelled(*(unescaped(part) for part in line.split("\t"))) for line in lines if not line.startswith("#")]


def unescaped(text: str) -> str:
    halves = (half.replace("\\n", "\n").replace("\\t", "\t") for half in text.split("\\\\"))
    return "\\".join(halves)


def verdict(item: Labelled) -> str:
    found = pin(item.engine, item.statement)
    return "-" if found is None else found.rule.id


SET = labelled()


def scores(engine: str) -> tuple[float, float]:
    """Return precision and recall, over the statements that have a label; another rule's verdict is a wrong one."""
    decided = [item for item in SET if item.engine == engine and item.label != "?"]
    right = sum(verdict(item) == item.label != "-" for item in decided)
    judged = sum(verdict(item) != "-" for item in decided)
    pinning = sum(item.label != "-" for item in decided)
    return right / judged, right / pinning


def test_the_set_is_large_and_of_many_sources() -> None:
    assert len(SET) >= 500
    assert len({item.source for item in SET}) >= 20
    for engine in ENGINES:
        labels = Counter(item.label in "-?" for item in SET if item.engine == engine)
        assert min(labels.values()) >= 60
    assert {item.label for item in SET} - {"-", "?"} <= {rule.id for rule in RULES}


def test_every_rule_but_that_of_size_has_a_statement() -> None:
    judged = {item.label for item in SET} | {rule for rule in OPEN.values() if rule}
    assert {rule.id for rule in RULES} - judged == {"long-text"}


def test_the_mislabelled_ones_are_those_that_are_known() -> None:
    found = {(item.engine, item.statement) for item in SET if item.label != "?" and verdict(item) != item.label}
    assert found == MISLABELLED


@pytest.mark.parametrize("engine", ENGINES)
def test_precision_and_recall(engine: str) -> None:
    assert scores(engine) == (1.0, 1.0)


def test_the_documentation_has_the_figures() -> None:
    page = " ".join((Path(__file__).parents[2] / "docs" / "reference" / "pinning.md").read_text().split())
    assert f"against {len(SET)} statements of real code" in page
    for engine, name in (("postgresql", "PostgreSQL"), ("mysql", "MySQL")):
        precision, recall = scores(engine)
        labels = Counter(item.label if item.label in "-?" else "pins" for item in SET if item.engine == engine)
        row = (labels["pins"], labels["-"], labels["?"], f"{precision:.3f}", f"{recall:.3f}")
        assert f"| {name} | {' | '.join(map(str, row))} |" in page


def test_what_the_documentation_does_not_say_is_judged_as_it_was() -> None:
    found = {item.statement: verdict(item) for item in SET if item.label == "?"}
    assert found == {statement: rule or "-" for statement, rule in OPEN.items()}


def test_the_local_proxys_own_list_agrees_but_where_it_is_known_why_not() -> None:
    differing = {
        item.statement
        for item in SET
        if (pin_reason(item.engine, item.statement.encode()) is not None) != (verdict(item) != "-")
    }
    assert differing == set(SECOND_OPINION)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_glance_never_overlooks_what_the_rules_find(engine: str) -> None:
    glanced = [item for item in SET if item.engine == engine and is_harmless(engine, item.statement)]
    assert [item for item in glanced if item.label not in "-?"] == []
    assert len(glanced) > 90  # it is worth having
