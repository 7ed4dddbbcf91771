from __future__ import annotations

import time

import pytest

from lambda_dbconn.lease import Slot
from lambda_dbconn.leftovers import Leftovers

LEAVES: dict[str, list[str | bytes]] = {
    "postgresql": [
        "set search_path to shop",
        "  SET\nTIME ZONE 'UTC'",
        "SET SESSION statement_timeout = 5",
        "set locality = 1",
        "select 1; set role admin",
        "/* sqlcommenter */ SET x.y = 1",
        "-- a comment\n-- another\nset x.y = 1",
        "/* nested /* */ */ set x.y = 1",
        "select set_config('x.y', '1', false)",
        "select set_config ('x.y', %s, %s)",
        "listen jobs",
        "LOAD 'auto_explain'",
        "prepare p as select 1",
        "do $$ begin set x.y = 1; end $$",
        'DECLARE "c" CURSOR WITH HOLD FOR select 1',
        "declare c scroll cursor with /* why */ hold for select 1",
        "select pg_advisory_lock(1)",
        "select pg_try_advisory_lock_shared(1)",
        "create temp table t (i int)",
        "CREATE  LOCAL TEMPORARY VIEW v AS SELECT 1",
        "create or replace temp view v as select 1",
        "create /* a */ temporary sequence s",
        "select 1 as i into temp t",
        "create table pg_temp.t (i int)",
        b"SET x.y = '\xe4'",
    ],
    "mysql": [
        "set sql_mode = ''",
        "SET @x = 1",
        "set names latin1",
        "SET autocommit = 0, sql_mode = ''",
        "# a comment\nset @x = 1",
        "use other",
        "lock tables t write",
        "flush tables with read lock",
        "prepare p from 'select 1'",
        "handler t open",
        "load data infile 'x' into table t",
        "xa start 'x'",
        "call p(@x)",
        "select /*! sql_no_cache */ 1",
        "select /*M! 1 + */ 1",
        "create temporary table t (i int)",
        "create or replace temporary table t (i int)",
        "select get_lock('x', 1)",
        "select @x := 1",
        "select 1 into @x",
        b"SET @x = '\xe4'",
    ],
}
LEAVES_NOTHING: dict[str, list[str | bytes]] = {
    "postgresql": [
        "",
        "select 1",
        "update t\nset a = 1",
        "update t set a = 1 where b = 2; insert into t values (3)",
        "insert into readings (temp, held) values (1, 2)",
        "set local statement_timeout = 5",
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "set constraints all deferred",
        "select set_config('app.tenant', %s, true)",
        "select pg_advisory_xact_lock(1)",
        "declare c cursor for select 1",
        "begin isolation level serializable",
        "notify jobs",
        "select nextval('s')",
        "select 'set x', \"settings\" from offset_table",
        "with settled as (select 1) select * from settled",
        b"select 1",
    ],
    "mysql": [
        "select 1",
        "update t\nset a = 1",
        "insert into t values ('ada@example.com')",
        "set autocommit=0",
        "SET AUTOCOMMIT = 1",
        "start transaction read only",
        "call p(1)",
        "create table t (i int)",
        "select release_lock('x')",
        "select 'user' from users",
    ],
}


@pytest.mark.parametrize(("engine", "text"), [(engine, text) for engine, texts in LEAVES.items() for text in texts])
def test_what_may_leave_something_is_seen(engine: str, text: str | bytes) -> None:
    assert Leftovers(engine).may_leave(text)


@pytest.mark.parametrize(
    ("engine", "text"), [(engine, text) for engine, texts in LEAVES_NOTHING.items() for text in texts]
)
def test_what_leaves_nothing_costs_nothing(engine: str, text: str | bytes) -> None:
    assert not Leftovers(engine).may_leave(text)


def test_a_slot_is_marked_by_what_leaves_something_also_when_it_is_seen_again() -> None:
    slot: Slot[str] = Slot()
    see = Leftovers("postgresql").watcher(slot)
    see("select 1")
    assert not slot.is_touched
    for _ in range(2):
        slot.is_touched = False
        see("set x.y = 1")
        assert slot.is_touched


def test_what_is_remembered_is_bounded() -> None:
    leftovers = Leftovers("postgresql")
    see = leftovers.watcher(Slot())
    for number in range(1000):
        see(f"select {number}")
    see("select '" + "x" * 10_000 + "'")
    assert 0 < len(leftovers._known) <= 256
    assert max(map(len, leftovers._known)) < 100


HOSTILE = (
    *("(", ";", " ", "-- x\n", ";--", "create /* ", ";declare ", "into ", "set_config(", "*/", ";\n("),
    *("into /**//**/", "create /**//**/", "set /**//**/", "/**/", "into " + "/**/" * 40, "'", '"', "\\", "$a$"),
)


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_the_time_to_judge_a_text_does_not_explode_with_what_strangers_write(engine: str) -> None:
    """An exponential pattern would not end at all, and a quadratic one would be slower by 64."""
    leftovers = Leftovers(engine)

    def judge(size: int) -> float:
        def once(text: str) -> float:
            started = time.perf_counter()
            leftovers.may_leave(text)
            return time.perf_counter() - started

        texts = [("into " + filler * size)[:size] for filler in HOSTILE]
        return sum(min(once(text) for _ in range(3)) for text in texts)

    judge(100)  # compiles
    assert judge(16_000) < 500 * judge(1_000)


def test_a_text_of_a_form_with_many_comments_is_judged_at_once() -> None:
    assert not Leftovers("mysql").may_leave("insert into note (body) values ('into " + "/**/" * 40 + "')")


def test_a_comment_of_any_length_hides_nothing() -> None:
    assert Leftovers("mysql").may_leave("/* " + "x" * 2000 + " */ set @x = 1")
    assert Leftovers("mysql").may_leave("select 1 into /* " + "x" * 2000 + " */ @x")
    assert Leftovers("postgresql").may_leave("-- " + "x" * 2000 + "\nset x.y = 1")


def test_a_very_long_text_counts_as_one_that_may_leave_something() -> None:
    assert Leftovers("postgresql").may_leave("select '" + "x" * 100_000 + "'")
