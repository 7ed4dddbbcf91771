"""SQLAlchemy through the local RDS Proxy: its dialects' own compliance suite, and a program as people write them."""

from __future__ import annotations

from collections import Counter
from threading import Barrier, Thread
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import ForeignKey, String, create_engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from tests.support import sqlalchemy_suite as suite
from tests.support.rds_proxy import make_proxy

if TYPE_CHECKING:
    from pathlib import Path

    from lambda_dbconn.testing.servers import LocalServer

pytestmark = pytest.mark.long

_PINS = {
    "postgresql": {"SQL created a temporary object.", "SQL manipulated a sequence.", "SQL declared a cursor."},
    # The suite sets foreign_key_checks, which is no variable that RDS Proxy tracks.
    "mysql": {"SQL created a temporary table.", "SQL changed session settings that the proxy doesn't track."},
}


@pytest.mark.timeout(900)  # seconds, against hangs: both runs together take 20 on an idle machine
def test_the_dialects_suite_has_the_same_outcomes_through_the_proxy(own_server: LocalServer, tmp_path: Path) -> None:
    """What does not pass through the proxy must not pass without it either, and in the same way."""
    certificates = own_server.certificates
    assert certificates is not None
    suite.make_schemas(own_server)
    with make_proxy(own_server, max_database_connections=5) as proxy:
        address = suite.url(own_server, port=proxy.port)
        through = suite.run(address, ca_path=certificates.ca_path, folder=tmp_path / "through")
    passed_not = {name: outcome for name, outcome in through.items() if outcome != "passed"}
    assert passed_not
    address = suite.url(own_server)
    assert suite.run(address, ca_path=certificates.ca_path, folder=tmp_path / "direct", only=passed_not) == passed_not

    # The suite did run, most of it is good, and it was shared database connections that it ran on.
    outcomes = Counter(through.values())
    assert outcomes["passed"] > 400
    assert outcomes["passed"] > 10 * (outcomes["failure"] + outcomes["error"])
    stats = proxy.stats()
    assert stats.pins.keys() == _PINS[own_server.engine]
    assert stats.logins > sum(stats.pins.values())
    assert stats.borrows > 2 * stats.logins
    assert stats.most_database_connections <= 5
    assert "[ERROR]" not in proxy.log()


class Base(DeclarativeBase):
    """What is mapped here."""


class Department(Base):
    __tablename__ = "orm_department"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    employees: Mapped[list[Employee]] = relationship(back_populates="department", cascade="all, delete-orphan")


class Employee(Base):
    __tablename__ = "orm_employee"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    department_id: Mapped[int] = mapped_column(ForeignKey(Department.id))
    department: Mapped[Department] = relationship(back_populates="employees")


def test_orm_sessions_share_a_database_connection_and_are_not_pinned(own_server: LocalServer) -> None:
    with make_proxy(own_server, max_database_connections=1) as proxy:
        address = suite.url(own_server, port=proxy.port)
        arguments = suite.connect_args(address.get_driver_name(), proxy.certificates.ca_path)
        engine = create_engine(address, connect_args=arguments, pool_size=4, pool_pre_ping=True)
        Base.metadata.create_all(engine)
        together = Barrier(4)

        def hire(number: int) -> None:
            with Session(engine) as session, session.begin():
                session.connection()
                together.wait(timeout=10)  # four sessions, each with a connection to the proxy
                team = Department(name=f"team {number}", employees=[Employee(name=name) for name in ("Ada", "Bob")])
                session.add(team)

        threads = [Thread(target=hire, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        with Session(engine) as session:
            session.add(Department(name="team 1"))
            with pytest.raises(IntegrityError):
                session.commit()
            session.rollback()
            teams = session.scalars(select(Department).options(selectinload(Department.employees))).all()
            assert {(team.name, len(team.employees)) for team in teams} == {(f"team {n}", 2) for n in range(4)}
            ada = session.scalars(select(Employee).where(Employee.name == "Ada").order_by(Employee.id)).first()
            assert ada is not None
            ada.name = "Ada Lovelace"
            session.delete(ada.department)  # with her and her colleague: what was flushed is not committed
            session.flush()
            session.rollback()
            assert ada.name == "Ada"
            assert session.scalar(select(func.count()).select_from(Employee)) == 8
        engine.dispose()
        stats = proxy.stats()
        assert (stats.pins, stats.most_database_connections, stats.borrowed_connections) == ({}, 1, 0)
        assert stats.most_client_connections == 4
        assert "[ERROR]" not in proxy.log()
