"""The server behind the proxy: somebody's, or a private one."""

from __future__ import annotations

import os
import re
import warnings
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lambda_dbconn import (
    AuthenticationError,
    ConfigurationError,
    ConnectionManager,
    LambdaDbConnError,
    LambdaDbConnWarning,
    Secret,
    Settings,
)
from lambda_dbconn.cli.requirements import require
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
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        click.echo(f"Warning: {_in_options(message)}", err=True)
    require(_MODULES[settings.engine], extra="local-proxy")
    try:
        cafile = trust_for(settings).cafile
        manager: ConnectionManager[Any] = ConnectionManager(settings, observer=_Silence())
        with closing(manager), manager.connection():
            pass
    except LambdaDbConnError as error:
        is_missing = isinstance(error, AuthenticationError) and settings.password is None
        hint = f" ({PASSWORD} is not set)" if is_missing else ""
        raise click.ClickException(_in_options(error.message) + hint) from error
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
    variables = {"BACKEND_URL": url, "BACKEND_AUTH": "password"}
    password = os.environ.get(PASSWORD)
    try:
        settings = Settings.from_env("BACKEND_", environ=variables)
        if settings.password is not None:
            raise click.UsageError(f"a password on the command line can be seen by others: put it in {PASSWORD}")
        if password:
            settings = settings.replace(password=Secret(password))
    except ConfigurationError as error:
        raise click.UsageError(_in_options("; ".join(error.faults))) from error
    # Few servers for development have TLS, and what they have is no certificate that anybody could verify.
    is_without = settings.endpoint.is_loopback and settings.sslrootcert is None
    return settings.replace(sslmode="disable") if is_without else settings


def _in_options(text: str) -> str:
    """Say a message about variables, which is how the library knows settings, in the words of the command line."""
    text = text.replace("BACKEND_URL", "--backend")
    return re.sub(rf"\b(?!{PASSWORD})BACKEND_(\w+)", lambda match: f"{match[1].lower()} in --backend", text)


class _Silence:
    """An observer: each failed try would be a line of its own, and the error says it all."""

    def on_event(self, event: Event) -> None:
        """Do nothing."""
