"""`Settings`: what a manager needs to know, frozen and checked; the only reader of `os.environ`."""

from __future__ import annotations

import os

from lambda_dbconn._values import TYPE_CHECKING, Value
from lambda_dbconn.errors import ConfigurationError, LambdaDbConnWarning
from lambda_dbconn.secret import Secret, unsendable
from lambda_dbconn.settings.endpoint import Endpoint, classify
from lambda_dbconn.settings.fields import HOST, Field, is_host, one_of, printable, seconds, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

PORTS = {"postgresql": 5432, "mysql": 3306}

_DEFAULT_PREFIX = "DB_"
_SCHEMES = {"postgresql": "postgresql", "postgres": "postgresql", "mysql": "mysql", "mariadb": "mysql"}


# In the order of the reference page. The variable of a field is the prefix and the field's name in upper case.
_FIELDS: dict[str, Field] = {
    "engine": one_of(*PORTS),
    "host": HOST,
    "port": whole(1, 65535),
    "name": printable(),
    "user": printable(),
    "reader_host": HOST,
    "reader_fallback": one_of("none", "writer"),
    "auth": one_of("iam", "secret", "password"),
    "secret_id": printable(),
    "password": Field(
        words="a Secret that is Unicode text without a zero byte",
        is_valid=lambda value: isinstance(value, Secret) and unsendable(value.reveal()) is None,
        read=Secret,
    ),
    "signing_host": HOST,
    "region": printable("an AWS region"),
    "sslrootcert": printable("the path of a PEM file"),
    "sslmode": one_of("verify-full", "disable"),
    "connect_timeout_s": seconds(0.1, 900),
    "ping_idle_s": seconds(0, 86400),
    "max_idle_s": seconds(1, 86400),
    "max_lifetime_s": seconds(1, 86400),
    "reserve_s": seconds(0, 60),
    "max_connections": whole(1, 100),
    "on_pin": one_of("warn", "raise", "ignore"),
    "warm_up": one_of("init"),
    "reset": one_of("always", "wait", "never"),
}
_REQUIRED = ("engine", "host", "port", "auth", "sslmode")


class Settings(Value):
    """Where to connect, as whom, whom to trust, and within which limits. Frozen, hashable, checked.

    Attributes:
        engine: `postgresql` or `mysql` (which serves MariaDB too).
        host: A proxy endpoint, or a cluster's or instance's, or any other host.
        port: TCP port; by default the engine's.
        name: The database; None for the server's default.
        user: The database user.
        reader_host: A read-only endpoint, or None.
        reader_fallback: `writer` to read from `host` while the reader cannot be reached, or `none`.
        auth: `iam`, `secret` or `password`.
        secret_id: Name or ARN of the Secrets Manager secret.
        password: For development.
        signing_host: The server's own name, where `host` is an alias or a tunnel: what an IAM token is signed for and
            what the server's certificate must name.
        region: AWS region; by default the host name's.
        sslrootcert: Path of a PEM file with the authorities to trust.
        sslmode: `verify-full`, or `disable` for a host that is not RDS's.
        connect_timeout_s: Seconds that one borrow may spend on opening a connection, all tries together.
        ping_idle_s: A connection idle for longer is pinged before it is lent.
        max_idle_s: A connection idle for longer is replaced.
        max_lifetime_s: A connection open for longer is replaced.
        reserve_s: Seconds of the invocation that are left to the handler for its answer.
        max_connections: How many threads of one invocation may hold a connection at once.
        on_pin: `warn`, `raise` or `ignore`; None is `warn` on an RDS Proxy endpoint, else `ignore`.
        warm_up: `init`: `lambda_dbconn.from_env()` connects at once; None for the first loan.
        reset: `always` sends a reset at release and reads its answer at the next acquire, `wait` awaits the answer at
            release, `never` sends none. Behind RDS Proxy none is sent; a pinned connection is closed, unless `never`.
        prefix: Of the variables that these settings came from, for messages; None when built by hand.
    """

    engine: str
    host: str
    port: int
    name: str | None = None
    user: str | None = None
    reader_host: str | None = None
    reader_fallback: str = "none"
    auth: str = "password"
    secret_id: str | None = None
    password: Secret | None = None
    signing_host: str | None = None
    region: str | None = None
    sslrootcert: str | None = None
    sslmode: str = "verify-full"
    connect_timeout_s: float = 5.0
    ping_idle_s: float = 30.0
    max_idle_s: float = 1500.0
    max_lifetime_s: float = 82800.0
    reserve_s: float = 0.5
    max_connections: int = 1
    on_pin: str | None = None
    warm_up: str | None = None
    reset: str = "always"
    prefix: str | None = None

    @classmethod
    def from_env(
        cls,
        prefix: str = _DEFAULT_PREFIX,
        *,
        engine: str | None = None,
        environ: Mapping[str, str] | None = None,
        read_secret: Callable[[str, str | None], Mapping[str, Any]] | None = None,
    ) -> Settings:
        """Read and check the variables that begin with `prefix`. An empty variable counts as unset.

        `URL` gives what the single variables do not; with the prefix `DB_`, `DATABASE_URL` stands in for it.

        Args:
            prefix: Letters, digits and underscores.
            engine: What the caller's code is written for; a variable that contradicts it is a fault.
            environ: Instead of `os.environ`.
            read_secret: Called with `secret_id` and `region` when the login is by secret and engine, host or name is
                not set; returns what the secret says of these and of `port`, by field: a value, or the error that says
                why it is none.

        Raises:
            ConfigurationError: With every fault at once, each naming its variable.
        """
        if not (prefix.isascii() and prefix.isidentifier()):
            raise ConfigurationError(
                f"the argument prefix is {prefix!r}; accepted are letters, digits and underscores, as in 'DB_'"
            )
        values, faults, unknown = _read_all(os.environ if environ is None else environ, prefix)
        del environ  # from here on something may be raised, and a traceback may show local variables
        meant = _misspelt(unknown, prefix)
        _name_engine(values, engine, faults)
        if read_secret is not None and not faults:
            _ask_secret(values, faults, read_secret)
        _complete(values, faults)
        for field, fault in _faults(values):
            if "url" in faults and values.get(field) is None:
                continue  # the URL may have said it
            faults.setdefault(field, f"{fault} ({meant[field]} is set: is that meant?)" if field in meant else fault)
        if faults:
            raise _report(faults)
        return cls(**values)

    def variable(self, field: str) -> str:
        """Return how the user knows this field: its variable, or the argument's name."""
        return _label(field, self.prefix)

    @property
    def identity(self) -> tuple[object, ...]:
        """What makes two settings lead to the same connection: all but the variables' prefix, and when to connect."""
        return tuple(value for field, value in self.__dict__.items() if field not in ("prefix", "warm_up"))

    @property
    def is_read_only(self) -> bool:
        """Whether writes are bound to be refused here: that then says nothing about a failover."""
        return self.host == self.reader_host or self.endpoint.is_read_only

    @property
    def pin_action(self) -> str:
        """What is done about a statement that pins: `warn`, `raise` or `ignore`.

        By default `warn` behind RDS Proxy, and `ignore` elsewhere: there is nothing to pin.
        """
        return self.on_pin or ("warn" if self.is_proxy else "ignore")

    @property
    def is_proxy(self) -> bool:
        """Whether RDS Proxy is what answers: by the host's name, or by the one that `signing_host` says it has."""
        return classify(self.server_name).is_proxy

    @property
    def endpoint(self) -> Endpoint:
        """The host, classified."""
        return classify(self.host)

    @property
    def server_name(self) -> str:
        """What the server's certificate must be for, and what a token is signed for: `signing_host`, else `host`."""
        return self.signing_host or self.host

    @property
    def address(self) -> str:
        """`host:port`, for messages and events."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def _check(self) -> None:
        faults = dict(_faults(self.__dict__))
        if faults:
            raise _report(faults)
        endpoint = self.endpoint
        if endpoint.is_rds and self.auth == "password":
            _warn(f"{self.variable('password')} is for development: use IAM or a secret with {self.host}")
        if self.sslmode == "disable" and not endpoint.is_loopback:
            _warn(f"{self.variable('sslmode')} is disable: all traffic with {self.host} can be read on the way")


def environment(name: str) -> str | None:
    """Return one of Lambda's own variables as it is now; None when unset or empty."""
    return os.environ.get(name) or None


def _label(field: str, prefix: str | None) -> str:
    return field if prefix is None else prefix + field.upper()


def _read_all(variables: Mapping[str, str], prefix: str) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
    """Return the values, the faults, and the names that are left over. Raises nothing: here passwords are bare text."""
    given = {key[len(prefix) :]: text for key, text in variables.items() if key.startswith(prefix) and text}
    url_variable = prefix + "URL"
    url = given.pop("URL", None)
    if url is None and prefix == _DEFAULT_PREFIX:
        url_variable = "DATABASE_URL"
        url = variables.get(url_variable)

    faults: dict[str, str] = {}
    values: dict[str, Any] = {"prefix": prefix}
    if url:
        values |= _read_url(url, url_variable, faults)
    for field in _FIELDS:
        text = given.pop(field.upper(), None)
        if text is not None:
            _read(field, text, prefix + field.upper(), values, faults)
    return values, faults, tuple(given)


def _misspelt(unknown: tuple[str, ...], prefix: str) -> dict[str, str]:
    """Warn of variables that look like a misspelling; return which variable may be meant for which field."""
    if not unknown:
        return {}
    from lambda_dbconn.settings.hints import misspelt

    return misspelt(unknown, prefix, tuple(_FIELDS))


def _read(field: str, text: str, label: str, values: dict[str, Any], faults: dict[str, str]) -> None:
    """Put the value read from `text` into `values`, or what is wrong with it into `faults`."""
    accepts = _FIELDS[field]
    try:
        value = values[field] = accepts.read(text)
    except ValueError:
        faults[field] = _fault(label, text, accepts)
    else:
        if not accepts.is_valid(value):
            faults[field] = _fault(label, value, accepts)
            if _may_hold_password(value, accepts):
                del values[field]


def _read_url(url: str, variable: str, faults: dict[str, str]) -> dict[str, Any]:
    """Take a URL apart. No message shows the URL: it may hold a password."""
    from urllib.parse import parse_qsl, unquote, urlsplit

    values: dict[str, Any] = {}
    form = f"{variable} is not a URL of the form engine://user@host:port/name?setting=value"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        faults["url"] = f"{form} (host or port cannot be read)"
        return values
    engine = _SCHEMES.get(parts.scheme.partition("+")[0])
    if engine is None:
        faults["url"] = f"{form}; accepted engines: {', '.join(_SCHEMES)}"
        return values
    if "://" not in url or "@" in parts.path + parts.query + parts.fragment:  # the password spilt into the rest
        faults["url"] = f"{form}; in user, password and after the host, / ? # @ are written %2F %3F %23 %40"
        return values
    found = {
        "engine": engine,
        "host": parts.hostname and _with_case(parts.hostname, parts.netloc),
        "port": port,
        "user": unquote(parts.username or ""),
        "password": Secret(unquote(parts.password)) if parts.password else None,
        "name": unquote(parts.path.removeprefix("/")),
    }
    values |= {field: value for field, value in found.items() if value}
    for key, text in parse_qsl(parts.query):
        if key not in _FIELDS or key == "password":
            from lambda_dbconn.settings.hints import instead_of

            names = ", ".join(name for name in _FIELDS if name != "password")
            faults[f"url?{key}"] = (
                f"{variable} has the parameter {key[:30]!r}; accepted: {names}; {instead_of(key, engine)}"
            )
        else:
            _read(key, text, f"the parameter {key} of {variable}", values, faults)
    return values


def _with_case(hostname: str, netloc: str) -> str:
    """Undo urlsplit's lower-casing: an IAM token is signed for the host as it is written."""
    start = netloc.lower().rfind(hostname)
    return netloc[start : start + len(hostname)]


def _name_engine(values: dict[str, Any], engine: str | None, faults: dict[str, str]) -> None:
    """Take the engine from the code, or from the port."""
    if engine is not None:
        said = values.get("engine", engine)
        if said != engine:
            faults["engine"] = (
                f"{_label('engine', values['prefix'])} (or the URL) says {said!r}, but the code asks for {engine!r}"
            )
        values["engine"] = engine
    if "engine" not in values and "engine" not in faults:
        by_port = {port: name for name, port in PORTS.items()}
        if values.get("port") in by_port:
            values["engine"] = by_port[values["port"]]


def _ask_secret(
    values: dict[str, Any], faults: dict[str, str], read_secret: Callable[[str, str | None], Mapping[str, Any]]
) -> None:
    """Let the secret fill in what is not set. Its port is its host's: an endpoint that is set has a port of its own."""
    is_login = values.get("auth", "secret") == "secret" and "secret_id" in values
    if not is_login or all(field in values for field in ("engine", "host", "name")):
        return
    said = dict(read_secret(values["secret_id"], values.get("region")))
    if "host" in values:
        said.pop("port", None)
    for field, value in said.items():
        if field not in values and isinstance(value, ConfigurationError):
            faults[field] = f"{_label(field, values['prefix'])} is not set, and {value.message}"
    values |= {field: value for field, value in said.items() if field not in values and field not in faults}
    for field in ("engine", "host"):
        if field not in values and field not in faults:
            faults[field] = (
                f"{_label(field, values['prefix'])} is not set, and the secret {values['secret_id']!r} has nothing "
                f"under the key {field!r}; accepted: {_FIELDS[field].words}"
            )


def _complete(values: dict[str, Any], faults: dict[str, str]) -> None:
    """Fill in what follows from the rest: port from engine, how to log in."""
    if "port" not in values and "port" not in faults and values.get("engine") in PORTS:
        values["port"] = PORTS[values["engine"]]
    if "auth" not in values and "auth" not in faults:
        server_name = values.get("signing_host") or values.get("host", "")
        if "secret_id" in values:
            values["auth"] = "secret"
        elif "password" not in values and is_host(server_name) and classify(server_name).is_rds:
            values["auth"] = "iam"


def _faults(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with these values, each with its field: one by one first, then together."""
    prefix = values.get("prefix")
    for field, accepts in _FIELDS.items():
        value = values.get(field, getattr(Settings, field, None))
        if value is None:
            if field in _REQUIRED and (field != "port" or _FIELDS["engine"].is_valid(values.get("engine"))):
                yield field, f"{_label(field, prefix)} is not set; accepted: {accepts.words}"
        elif not accepts.is_valid(value):
            yield field, _fault(_label(field, prefix), value, accepts)
    auth = values.get("auth", Settings.auth)
    if auth in ("iam", "password") and values.get("user") is None:
        yield "user", f"{_label('user', prefix)} is not set; accepted: the database user's name"
    hosts = [values[field] for field in ("host", "reader_host", "signing_host") if is_host(values.get(field))]
    if auth == "secret" and values.get("secret_id") is None:
        yield "secret_id", f"{_label('secret_id', prefix)} is not set, but {_label('auth', prefix)} is secret"
    server_name = values.get("signing_host") or values.get("host")
    if values.get("engine") == "postgresql" and is_host(server_name) and classify(str(server_name)).is_proxy:
        from lambda_dbconn.settings.hints import faults_with_a_proxy  # most functions do without

        yield from faults_with_a_proxy(environment)
    if values.get("sslmode") == "disable" and (auth == "iam" or any(classify(host).is_rds for host in hosts)):
        yield "sslmode", f"{_label('sslmode', prefix)} is 'disable'; accepted with IAM or an RDS host: verify-full"


def _fault(label: str, value: object, accepts: Field) -> str:
    longest = 60
    shown = "not acceptable" if _may_hold_password(value, accepts) else repr(value)
    return f"{label} is {shown[:longest] + '…' if len(shown) > longest else shown}; accepted: {accepts.words}"


def _may_hold_password(value: object, accepts: Field) -> bool:
    return accepts is _FIELDS["password"] or "@" in str(value)  # a URL in the wrong variable


def _report(faults: dict[str, str]) -> ConfigurationError:
    lines = list(faults.values())
    if len(lines) == 1:
        return ConfigurationError(lines[0], faults=lines)
    return ConfigurationError("\n  - ".join([f"{len(lines)} settings are not right:", *lines]), faults=lines)


def _warn(message: str) -> None:
    import warnings

    warnings.warn(message, LambdaDbConnWarning, stacklevel=4)
