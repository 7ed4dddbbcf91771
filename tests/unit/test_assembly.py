from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lambda_dbconn.manager import BaseManager
from tests.unit.conftest import local

if TYPE_CHECKING:
    from lambda_dbconn.testing.fakes import FakeServer
    from tests.unit.conftest import MakeManager


def test_a_reader_is_of_the_same_kind_and_shares_driverobserver_and_credentials(make: MakeManager) -> None:
    db = make(reader_host="127.0.0.1")
    reader = db.reader
    assert type(reader) is type(db)
    assert reader is db.reader
    assert reader is not db
    assert (reader._driver, reader.observer, reader._credentials) == (db._driver, db.observer, db._credentials)


def test_closing_a_manager_closes_its_reader(make: MakeManager, server: FakeServer) -> None:
    db = make(reader_host="127.0.0.1")
    with db.reader.connection():
        pass
    db.close()
    assert [connection.closes for connection in server.connections] == [1]


def test_an_assembly_alone_has_no_driver() -> None:
    with pytest.raises(NotImplementedError):
        BaseManager(local())
