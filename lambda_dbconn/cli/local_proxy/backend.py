"""The server behind the proxy: somebody's, or a private one."""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lambda_dbconn import ConfigurationError, ConnectionManager, LambdaDbConnError, LambdaDbConnWarning, Settings
from lambda_dbconn.cli.requirements import require
from lambda_dbconn.drivers import load_driver
from lambda_dbconn.testing.rds_proxy import RunningServer
from lambda_dbconn.testing.servers import LocalMariaDB, LocalPostgres, LocalServer, ServerUnavailableError
from lambda_dbconn.tls import trust_for

if TYPE_CHECKING:
    from lambda_dbconn.events import Event
    from lambda_dbconn.testing.certificates import Certificates

PASSWORD = "BACKEND_PASSWORD"  # noqa: S105 - the name of a variable

_PRIVATE: dict[str, type[LocalServer]] = {"postgresql": LocalPostgres, "mysql": LocalMariaDB}
_MODULES = {"postgresql": "psycopg", "mysql": "pymysql"}


def private_server(engine: str, certificates: Certificates) -> LocalServer:
    """Make a server of one's own, to be started.

    Raises:
        click.ClickException: Its programs are not installed.
    """
    server_class = _PRIVATE[engine]
    try:
        server_class.version()
    except ServerUnavailableError as error:
        raise click.ClickException(str(error)) from error
    return server_class(certificates=certificates)


def running_server(url: str) -> tuple[RunningServer, str | None]:
    """Log in once at a server that runs, so as to fail now and with a reason; return it and the database's name.

    Raises:
        click.UsageError: The URL is not right.
        click.ClickException: The server cannot be reached, or does not let the user in.
    """
    with warnings.catch_warnings(record=True, category=LambdaDbConnWarning, action="always") as caught:
        settings = _settings(url)
    for warning in caught:
        click.echo(f"Warning: {warning.message}", err=True)
    require(_MODULES[settings.engine], extra="local-proxy")
    try:
        manager = ConnectionManager(settings, driver=load_driver(settings.engine), observer=_Silence())
        with closing(manager):
            manager.warm_up()
        cafile = trust_for(settings).cafile
    except LambdaDbConnError as error:
        raise click.ClickException(str(error)) from error
    assert settings.user is not None  # noqa: S101 - a login with a password has one
    server = RunningServer(
        engine=settings.engine,
        host=settings.host,
        port=settings.port,
        user=settings.user,
        password=settings.password.reveal() if settings.password is not None else "",
        ca_path=Path(cafile) if cafile is not None else None,
    )
    return server, settings.name


def _settings(url: str) -> Settings:
    variables = {"BACKEND_URL": url, PASSWORD: os.environ.get(PASSWORD, ""), "BACKEND_AUTH": "password"}
    try:
        without_password = Settings.from_env("BACKEND_", environ=variables | {PASSWORD: ""})
        if without_password.password is not None:
            raise click.UsageError(f"a password on the command line can be seen by others: put it in {PASSWORD}")
        settings = Settings.from_env("BACKEND_", environ=variables)
    except ConfigurationError as error:
        raise click.UsageError("; ".join(error.faults).replace("BACKEND_URL", "--backend")) from error
    # Few servers for development have TLS, and what they have is no certificate that anybody could verify.
    is_without = settings.endpoint.is_loopback and settings.sslrootcert is None
    return settings.replace(sslmode="disable") if is_without else settings


class _Silence:
    """An observer: each failed try would be a line of its own, and the error says it all."""

    def on_event(self, event: Event) -> None:
        """Do nothing."""
