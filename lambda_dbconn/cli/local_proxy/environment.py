"""What a client's environment must hold for `lambda_dbconn.from_env()` to log in at the proxy."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lambda_dbconn.testing.rds_proxy import AwsKey, LocalRdsProxy


@dataclass(kw_only=True)
class ClientEnvironment:
    """Variables, and what is to be said about them.

    Attributes:
        variables: Values by name.
        borrowed: Variables whose value is not shown, by the name of the variable that holds it already.
        remarks: One sentence each.
    """

    variables: dict[str, str]
    borrowed: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, proxy: LocalRdsProxy, *, database: str | None) -> ClientEnvironment:
        """Return what is the same however clients log in; settings that the shell may have besides are overruled."""
        variables = {
            "DB_ENGINE": proxy.engine,
            "DB_HOST": proxy.host,
            "DB_PORT": str(proxy.port),
            "DB_USER": proxy.backend.user,
            "DB_SIGNING_HOST": proxy.signing_host,
            "DB_REGION": proxy.region,
            "DB_SSLMODE": "verify-full",
            "DB_SSLROOTCERT": str(proxy.certificates.ca_path),
            "DB_AUTH": "iam" if proxy.auth == "iam" else "password",
        }
        if database is not None:
            variables["DB_NAME"] = database
        return cls(variables=variables)

    def add_generated_key(self, key: AwsKey) -> None:
        """Tell of a key pair that was made for this proxy."""
        self.variables |= {
            "AWS_ACCESS_KEY_ID": key.access_key_id,
            "AWS_SECRET_ACCESS_KEY": key.secret_access_key,
            "AWS_SESSION_TOKEN": "",  # one of the shell's would be sent with it
        }
        self.remarks.append("The AWS key pair was made here, for this run of this proxy: it is good for nothing else.")

    def add_own_key(self, key: AwsKey) -> None:
        """Tell of the user's key pair, whose secret part is not repeated."""
        self.variables["AWS_ACCESS_KEY_ID"] = key.access_key_id
        names = ["AWS_SECRET_ACCESS_KEY", *(["AWS_SESSION_TOKEN"] if key.session_token is not None else [])]
        self.remarks.append(f"Not shown: {' and '.join(names)}, which clients must have as this command has.")

    def add_private_password(self, password: str) -> None:
        """Tell of the password of a private server."""
        self.variables["DB_PASSWORD"] = password
        self.remarks.append("The password is that of a private, temporary server: it is good for nothing else.")

    def add_own_password(self, variable: str) -> None:
        """Tell where the user has the password, which is not repeated."""
        self.borrowed["DB_PASSWORD"] = variable
        self.remarks.append(f"Not shown: DB_PASSWORD, which is what {variable} holds.")

    def as_sh(self) -> str:
        """Return lines for a shell, remarks included."""
        lines = [f"# {remark}" for remark in self.remarks]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        lines += [f'export {name}="${variable}"' for name, variable in self.borrowed.items()]
        return "\n".join(lines)

    def as_json(self) -> str:
        """Return one line with what can be shown, remarks not included."""
        return json.dumps(self.variables)
