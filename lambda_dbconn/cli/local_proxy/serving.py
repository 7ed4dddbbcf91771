"""Starts the proxy, lets it run until somebody ends it, and says what it did."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import click

from lambda_dbconn.cli.local_proxy.backend import PASSWORD, private_server, running_server
from lambda_dbconn.cli.local_proxy.certificates import certificates_in
from lambda_dbconn.cli.local_proxy.environment import ClientEnvironment
from lambda_dbconn.cli.printable import printable
from lambda_dbconn.cli.progress import step
from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy
from lambda_dbconn.testing.servers import LocalServer, ServerUnavailableError
from lambda_dbconn.testing.servers.process import make_temporary_directory, remove_temporary_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from lambda_dbconn.testing.certificates import Certificates
    from lambda_dbconn.testing.rds_proxy import Backend, Stats

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LONGEST_SLEEP_S = 0.5  # a signal that comes just before a sleep does not end it


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the command line asks for.

    Attributes:
        backend_url: A server that runs; or None, and then
        engine: which private one to start.
        auth: How clients log in.
        access_key_id: Whose tokens are good; None: a new key pair's.
        listen_port: 0 for a free one.
        region: That tokens must be signed for.
        read_only: Be a read-only endpoint.
        most: Connections to the database.
        borrow_timeout_s: How long a request may wait for one.
        idle_timeout_s: How long a client may ask nothing.
        certificates: The directory to keep them in; None: made anew.
        print_env: In which form clients' variables are printed.
    """

    backend_url: str | None
    engine: str | None
    auth: Literal["iam", "secret"]
    access_key_id: str | None
    listen_port: int
    region: str
    read_only: bool
    most: int
    borrow_timeout_s: float
    idle_timeout_s: float
    certificates: Path | None
    print_env: Literal["sh", "json"]

    @property
    def signing_host(self) -> str:
        """The proxy's name, as it would be in AWS."""
        return f"local.proxy-cexample0000.{self.region}.rds.amazonaws.com"


def serve(order: Order) -> None:
    """Run a proxy until SIGINT, SIGTERM or SIGHUP; nothing is left behind.

    Raises:
        click.ClickException: It does not start; the message says why, in one line.
    """
    with _signals_as_keyboard_interrupt(), suppress(KeyboardInterrupt), ExitStack() as stack:
        key = _key(order)
        certificates = certificates_in(order.certificates or _temporary_directory(stack), order.signing_host)
        backend, database = _backend(order, certificates, stack)
        if order.auth == "secret" and not backend.password:
            raise click.UsageError(f"--auth secret needs the user's password, in {PASSWORD}")
        proxy = _proxy(order, backend, certificates, key)
        _start(proxy)
        stack.callback(lambda: _show_summary(proxy.stats()))
        stack.callback(proxy.stop)
        _tell(order, _environment(order, proxy, database, key))
        click.echo(f"Serving on {proxy.host}:{proxy.port}, until Ctrl-C.", err=True)
        while True:
            time.sleep(_LONGEST_SLEEP_S)


def summary(stats: Stats) -> str:
    """Say what a proxy did."""
    most_clients, most_connections = stats.most_client_connections, stats.most_database_connections
    rows = [
        f"Logins: {stats.logins}, refused: {sum(stats.refused.values())}",
        *(f"  {count} x {text}" for text, count in stats.refused.items()),
        f"Database connections borrowed: {stats.borrows}, waited in vain: {stats.borrow_timeouts}",
        f"Most at once: clients {most_clients}, database connections {most_connections}",
        f"Sessions pinned: {sum(stats.pins.values())}",
        *(f"  {count} x {reason}" for reason, count in stats.pins.items()),
    ]
    return "\n".join(rows)


@contextmanager
def _signals_as_keyboard_interrupt() -> Iterator[None]:
    """Let the first of the ending signals be a KeyboardInterrupt, and those after it nothing: it is being obeyed.

    After a signal that stays so: the process is about to end, and what it has cleaned up by then is not all.
    """
    is_ending = False

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_ending
        # Not by SIG_IGN: Python would complain of a signal that was on its way already.
        if not is_ending:
            is_ending = True
            raise KeyboardInterrupt

    # What is ignored already, as by nohup, stays so.
    before = {number: signal.getsignal(number) for number in _ENDING_SIGNALS}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, interrupt)
        yield
    finally:
        if not is_ending:
            for number, handler in before.items():
                signal.signal(number, handler)


def _key(order: Order) -> AwsKey | None:
    if order.auth != "iam":
        return None
    if order.access_key_id is None:
        return AwsKey(
            access_key_id=f"AKIALOCAL{secrets.token_hex(6).upper()}", secret_access_key=secrets.token_urlsafe(30)
        )
    secret = os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not secret:
        raise click.UsageError("--access-key-id needs the secret key, in AWS_SECRET_ACCESS_KEY")
    return AwsKey(
        access_key_id=order.access_key_id,
        secret_access_key=secret,
        session_token=os.environ.get("AWS_SESSION_TOKEN") or None,
    )


def _temporary_directory(stack: ExitStack) -> Path:
    directory = make_temporary_directory()  # removed even if this process is killed
    stack.callback(remove_temporary_directory, directory)
    return directory


def _backend(order: Order, certificates: Certificates, stack: ExitStack) -> tuple[Backend, str | None]:
    if order.engine is None:
        assert order.backend_url is not None  # noqa: S101 - one of the two is given
        return running_server(order.backend_url)
    server = private_server(order.engine, certificates)
    try:
        with step(f"Starting a private {server.version()}"):
            stack.enter_context(server)
    except ServerUnavailableError as error:
        first, *rest = str(error).splitlines()
        raise click.ClickException(" ".join([first, *rest[-1:]])) from error
    return server, server.database


def _proxy(order: Order, backend: Backend, certificates: Certificates, key: AwsKey | None) -> LocalRdsProxy:
    return LocalRdsProxy(
        backend=backend,
        certificates=certificates,
        port=order.listen_port,
        auth=order.auth,
        aws_keys=[key] if key is not None else [],
        region=order.region,
        signing_host=order.signing_host,
        is_read_only=order.read_only,
        max_database_connections=order.most,
        borrow_timeout_s=order.borrow_timeout_s,
        idle_client_timeout_s=order.idle_timeout_s,
        on_log=_show,
    )


def _start(proxy: LocalRdsProxy) -> None:
    try:
        proxy.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise click.ClickException(f"port {proxy.port} is taken: choose another --listen-port") from error
        where = f"localhost:{proxy.port} before {proxy.backend.host}"
        raise click.ClickException(f"cannot listen on {where}: {error.strerror or error}") from error


def _environment(order: Order, proxy: LocalRdsProxy, database: str | None, key: AwsKey | None) -> ClientEnvironment:
    environment = ClientEnvironment.of(proxy, database=database)
    if key is not None:
        (environment.add_generated_key if order.access_key_id is None else environment.add_own_key)(key)
    elif isinstance(proxy.backend, LocalServer):
        environment.add_private_password(proxy.backend.password)
    else:
        environment.add_own_password(PASSWORD)
    return environment


def _tell(order: Order, environment: ClientEnvironment) -> None:
    if order.print_env == "sh":
        click.echo(environment.as_sh())
        return
    for remark in environment.remarks:
        click.echo(remark, err=True)
    click.echo(environment.as_json())


def _show_summary(stats: Stats) -> None:
    for line in summary(stats).splitlines():
        click.echo(printable(line), err=True)


def _show(line: str) -> None:
    """Print a line of the log; called in the proxy's thread, which must not end because nobody listens any more."""
    with suppress(OSError, ValueError):
        click.secho(printable(line), fg="yellow" if line.startswith("[WARN]") else None, err=True)
