"""The pages on how to move: their code runs, and what they say of both sides is so."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.types.json import Json

from lambda_dbconn import LambdaDbConnWarning, registry
from tests.support.invocations import environment, table
from tests.support.pages import Page, files_of
from tests.support.rds_proxy import KEY, PROXY_NAME, make_proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.servers import LocalPostgres, LocalServer

pytestmark = pytest.mark.walk

GLOBAL, SQLALCHEMY = "how-to/from-a-global-connection.md", "how-to/from-sqlalchemy.md"
WRAPPER, PSYCOPG2 = "how-to/from-the-aws-wrapper.md", "how-to/from-psycopg2-recipes.md"
AFTER = [GLOBAL, WRAPPER, PSYCOPG2]


@pytest.fixture
def open_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, LocalServer], Page]]:
    """Open a page for a server; the managers that its code makes are closed in the end."""
    known = dict(registry._managers)
    registry._managers.clear()

    def open_(page: str, server: LocalServer) -> Page:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        return Page(page, tmp_path, monkeypatch)

    yield open_
    for manager in registry._managers.values():
        manager.close()
    registry._managers.clear()
    registry._managers.update(known)


@contextmanager
def employees(server: LocalServer) -> Iterator[None]:
    with (
        table(server, "employee", "id int primary key, name varchar(50)", (1, "Ann"), (2, "Bob")),
        table(server, "renamed", "employee_id int"),
    ):
        yield


def end_sessions(server: LocalServer) -> None:
    for session in server.session_ids():
        server.kill_session(session)


def name_of(server: LocalServer, number: int) -> Any:
    return server.query("select name from employee where id = %s", number)[0][0]


# --- from a global connection


def test_before_each_invocation_fails_once_the_session_was_ended(
    open_page: Callable[..., Page], own_postgres: LocalPostgres
) -> None:
    with employees(own_postgres), open_page(GLOBAL, own_postgres).imported("before") as before:
        try:
            assert before.handler({"id": 1}, 20) == "Ann"
            end_sessions(own_postgres)
            for _ in range(3):
                with pytest.raises(psycopg.OperationalError):
                    before.handler({"id": 1}, 20)
        finally:
            before.conn.close()


def test_before_a_transaction_stays_open_and_a_failure_stays_as_well(
    open_page: Callable[..., Page], own_postgres: LocalPostgres
) -> None:
    with employees(own_postgres), open_page(GLOBAL, own_postgres).imported("before") as before:
        try:
            before.handler({"id": 1}, 20)
            assert before.conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
            with pytest.raises(psycopg.errors.InvalidTextRepresentation):
                before.handler({"id": "one"}, 20)
            for _ in range(2):
                with pytest.raises(psycopg.errors.InFailedSqlTransaction):
                    before.handler({"id": 1}, 20)
        finally:
            before.conn.close()


@pytest.mark.parametrize("page", AFTER)
def test_after_the_next_invocation_connects_again(
    open_page: Callable[..., Page], own_postgres: LocalPostgres, page: str
) -> None:
    event = {"id": 1, "ids": [1, 2]}
    with employees(own_postgres), open_page(page, own_postgres).imported("after") as after:
        first = after.handler(event, 20)
        assert first == ("Ann" if page != PSYCOPG2 else [{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}])
        end_sessions(own_postgres)
        assert [after.handler(event, 20) for _ in range(2)] == [first, first]
        assert after.db.stats().replaced == {"hang_up": 1}


def test_after_it_is_the_same_for_the_other_engine(open_page: Callable[..., Page], own_server: LocalServer) -> None:
    page = open_page(GLOBAL, own_server)
    with employees(own_server), page.imported("after") as after:
        assert after.handler({"id": 2}, 20) == "Bob"
        end_sessions(own_server)
        assert after.handler({"id": 2}, 20) == "Bob"


def test_after_statements_that_belong_together_are_undone_together(
    open_page: Callable[..., Page], own_postgres: LocalPostgres
) -> None:
    with employees(own_postgres), open_page(GLOBAL, own_postgres).imported("after") as after:
        after.rename({"id": 1, "name": "Eve"}, 20)
        assert name_of(own_postgres, 1) == "Eve"
        own_postgres.execute("drop table renamed")
        with pytest.raises(psycopg.errors.UndefinedTable):
            after.rename({"id": 1, "name": "Zoe"}, 20)
        assert name_of(own_postgres, 1) == "Eve"
        own_postgres.execute("create table renamed (employee_id int)")


def test_a_commit_that_is_left_in_does_no_harm_and_the_drivers_own_block_costs_a_connect(
    open_page: Callable[..., Page], own_postgres: LocalPostgres
) -> None:
    with employees(own_postgres), open_page(GLOBAL, own_postgres).imported("after") as after:
        for _ in range(2):
            with after.db.connection(20) as conn:
                conn.execute("update employee set name = 'Ida' where id = 1")
                conn.commit()
        assert after.db.stats().opened == 1
        for _ in range(2):
            with after.db.connection(20) as conn, conn:
                conn.execute("select 1")
        assert after.db.stats().opened == 2
        assert after.db.stats().open == 0
        with after.db.connection(20) as conn, conn.transaction():
            conn.execute("select 1")
        assert after.db.stats().open == 1


# --- from SQLAlchemy


@pytest.fixture
def proxied(own_postgres: LocalPostgres, proxy_certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A proxy that checks tokens, and a function's environment for it."""
    with make_proxy(
        own_postgres, certificates=proxy_certificates, auth="iam", aws_keys=[KEY], signing_host=PROXY_NAME
    ) as proxy:
        variables = {"DB_PORT": str(proxy.port), "DB_SIGNING_HOST": PROXY_NAME, "DB_AUTH": "iam"}
        variables |= {"DB_SSLROOTCERT": str(proxy_certificates.ca_path), "AWS_ACCESS_KEY_ID": KEY.access_key_id}
        variables |= {"AWS_SECRET_ACCESS_KEY": KEY.secret_access_key}
        yield proxy, variables


def behind(proxied: Any, page: Page, monkeypatch: pytest.MonkeyPatch) -> Page:
    for name, value in proxied[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DB_PASSWORD")
    return page


def test_sqlalchemys_pool_logs_in_with_tokens_and_signs_a_new_one_for_each_connect(
    open_page: Callable[..., Page], own_postgres: LocalPostgres, proxied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with behind(proxied, open_page(SQLALCHEMY, own_postgres), monkeypatch).imported("tokens") as tokens:
        try:
            assert tokens.handler({}, 20) == "app"
            proxied[0].restart()
            assert tokens.handler({}, 20) == "app"
            assert proxied[0].stats().pins == {}
        finally:
            tokens.engine.dispose()


def test_a_lent_connection_is_reused_replaced_and_never_pinned(
    open_page: Callable[..., Page], own_postgres: LocalPostgres, proxied: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = behind(proxied, open_page(SQLALCHEMY, own_postgres), monkeypatch)
    with employees(own_postgres), page.imported("function") as function:
        db = page.module("lending").db
        assert [function.handler({"id": 1}, 20) for _ in range(3)] == ["Ann"] * 3
        function.rename({"id": 1, "name": "Eve"}, 20)
        assert function.handler({"id": 1}, 20) == "Eve"
        assert (db.stats().opened, db.stats().reused) == (1, 4)
        proxied[0].restart()
        assert function.handler({"id": 1}, 20) == "Eve"
        assert db.stats().replaced == {"hang_up": 1}
        assert proxied[0].stats().pins == {}


def test_a_lent_connection_is_rolled_back_by_its_session_and_replaced_when_it_is_lost(
    open_page: Callable[..., Page], own_postgres: LocalPostgres
) -> None:
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    page = open_page(SQLALCHEMY, own_postgres)
    with employees(own_postgres), page.imported("function") as function:
        lending = page.module("lending")
        fail_after_a_change(function, lending)
        assert function.handler({"id": 1}, 20) == "Ann"
        with pytest.raises(OperationalError), lending.session(20) as s, s.begin():
            s.execute(text("select pg_terminate_backend(pg_backend_pid())"))
        assert function.handler({"id": 1}, 20) == "Ann"
        assert lending.db.stats().replaced == {"lost": 1}


@pytest.mark.parametrize(
    ("left_out", "became_and_opened"),
    [
        ('    isolation_level="READ COMMITTED",\n', ("Zoe", 1)),
        ("engine.dialect.do_close = lambda connection: None", ("Ann", 3)),
    ],
    ids=["isolation_level", "do_close"],
)
def test_the_traps_of_lending_to_sqlalchemy_are_traps(
    open_page: Callable[..., Page],
    own_postgres: LocalPostgres,
    tmp_path: Path,
    left_out: str,
    became_and_opened: tuple[str, int],
) -> None:
    became, opened = became_and_opened
    page = open_page(SQLALCHEMY, own_postgres)
    code = (tmp_path / "lending.py").read_text()
    assert left_out in code
    (tmp_path / "lending.py").write_text(code.replace(left_out, ""))
    with employees(own_postgres), page.imported("function") as function:
        lending = page.module("lending")
        fail_after_a_change(function, lending)
        assert [function.handler({"id": 1}, 20) for _ in range(2)] == [became] * 2
        assert lending.db.stats().opened == opened


def fail_after_a_change(function: Any, lending: Any) -> None:
    def change() -> None:
        with lending.session(20) as s, s.begin():
            s.get(function.Employee, 1).name = "Zoe"
            s.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()


# --- from psycopg2


def test_what_psycopg_3_does_differently_is_as_the_page_says(
    open_page: Callable[..., Page], own_postgres: LocalPostgres
) -> None:
    with open_page(PSYCOPG2, own_postgres).imported("after") as after, after.db.connection(20) as conn:
        with pytest.raises(psycopg.errors.SyntaxError):
            conn.execute("select 1 where 1 in %s", ((1, 2),))
        assert conn.execute("select 1 where 1 = any(%s)", ([1, 2],)).fetchone() == (1,)
        with pytest.raises(psycopg.errors.SyntaxError):
            conn.execute("set timezone to %s", ("UTC",))
        assert conn.execute("select set_config('timezone', %s, false)", ("UTC",)).fetchone() == ("UTC",)
        with pytest.raises(psycopg.errors.SyntaxError, match="multiple commands"):
            conn.execute("select %s::int; select 2", (1,))
        conn.execute("create temporary table t (a int, b text)")
        with conn.cursor(row_factory=dict_row) as cur:
            cur.executemany("insert into t values (%s, %s)", [(1, "x"), (2, "y")])
            with cur.copy("copy t from stdin") as copy:
                copy.write_row((3, "z"))
            assert cur.execute("select count(*) from t").fetchone() == {"count": 3}
        assert conn.execute("select %s::text", ("x",)).fetchone() == ("x",)
        assert conn.execute("select %s", (Json({"a": 1}),)).fetchone() == ({"a": 1},)
        with psycopg.ClientCursor(conn) as client:
            assert client.execute("select %s; select 2", ("x",)).fetchone() == ("x",)


# --- the pages themselves


@pytest.mark.parametrize("page", AFTER)
def test_each_page_has_a_before_and_an_after(page: str) -> None:
    assert list(files_of(page)) == ["before.py", "after.py"]


def test_the_url_of_the_recipes_is_read_and_its_mode_refused(
    open_page: Callable[..., Page], own_postgres: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lambda_dbconn import ConfigurationError, Settings

    url = "postgresql://app:secret@localhost/shop"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LambdaDbConnWarning)
        assert Settings.from_env(environ={"DATABASE_URL": url}).user == "app"
        with pytest.raises(ConfigurationError, match="sslmode"):
            Settings.from_env(environ={"DATABASE_URL": f"{url}?sslmode=require"})
