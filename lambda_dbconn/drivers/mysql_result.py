"""PyMySQL's result, which knows how rows end; its private names are explained in `mysql_connection`."""

from __future__ import annotations

from struct import Struct

import pymysql
from pymysql.connections import MySQLResult
from pymysql.constants import CR, SERVER_STATUS

from lambda_dbconn._values import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MORE = SERVER_STATUS.SERVER_MORE_RESULTS_EXISTS
_END_OF_ROWS, _LONGEST_END_BYTES = 0xFE, 8
_WARNINGS_AND_STATUS = Struct("<HH")


def out_of_step() -> pymysql.OperationalError:
    """Return the error for what is not sent or read because it would get another statement's answer."""
    return pymysql.OperationalError(
        CR.CR_COMMANDS_OUT_OF_SYNC,
        "the reply to an earlier statement was not read to its end: leave the `with` block, and acquire again",
    )


class Result(MySQLResult):
    """PyMySQL's result, which tells the connection the status that rows end with, and that a packet is half read."""

    connection: Any  # until the end is read
    _read_row_from_packet: Callable[[Any], Any]
    unbuffered_active = False  # for `__del__`, should `__init__` be interrupted
    is_cut = False

    def _check_packet_is_eof(self, packet: Any) -> bool:
        """Read the end of the rows, if it is that; PyMySQL's own forgets the status."""
        data = packet.get_all_data()
        if data[0] != _END_OF_ROWS or len(data) > _LONGEST_END_BYTES:
            return False
        self.warning_count, status = _WARNINGS_AND_STATUS.unpack_from(data, 1)
        self.has_next = status & _MORE
        self.connection.note_status(status)
        return True

    def _read_rowdata_packet_unbuffered(self) -> Any:
        """Read the next row of a streamed result."""
        if self.unbuffered_active:
            packet = self.next_packet()
            if packet is not None:
                row = self._read_row_from_packet(packet)
                self.affected_rows = 1
                self.rows = (row,)
                return row
        elif self.is_cut:
            raise pymysql.InterfaceError("the rest of the rows went with the end of the `with` block or of the time")
        return None

    def next_packet(self) -> Any:
        """Read the packet of a streamed result's next row; None at the end."""
        connection = self.connection
        if connection.owes:
            raise out_of_step()
        connection.owes = True  # an interrupt may leave half a packet behind
        try:
            packet = connection._read_packet()  # noqa: SLF001
        except pymysql.MySQLError as error:
            connection.note_error(error)
            raise
        if self._check_packet_is_eof(packet):
            self.unbuffered_active = False
            self.connection = self.rows = packet = None
        connection.owes = False
        return packet

    def _finish_unbuffered_query(self) -> None:
        """Read a streamed result to its end, unless an interrupt has left half a packet of it."""
        if not self.unbuffered_active:
            return
        connection = self.connection
        if connection.owes:
            self.unbuffered_active, self.is_cut = False, True
            return
        connection.owes = True
        try:
            super()._finish_unbuffered_query()  # type: ignore[misc] # not in PyMySQL's stubs
        except pymysql.MySQLError as error:
            connection.note_error(error)
            raise
        connection.owes = False

    def cut(self) -> None:
        """Let nobody read on, neither a cursor nor the destructor."""
        self.is_cut = self.unbuffered_active
        self.unbuffered_active = False
