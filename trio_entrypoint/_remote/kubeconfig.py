"""Where the Kubernetes API is, and who we are there: a pod's service account, or a kubeconfig.

Sources: Kubernetes' documentation, 'Accessing the API from a Pod' and 'Organizing Cluster
Access Using kubeconfig Files'.
"""

import os
import ssl
from base64 import b64decode
from collections.abc import Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import cast, final
from urllib.parse import urlsplit

import attrs

from trio_entrypoint._arguments import is_http_url
from trio_entrypoint._remote.http import AccessError, Tls

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

_MAX_FILE = 1024 * 1024


@final
class NoPodError(RuntimeError):
    """The service account of this pod was asked for, and this is no pod."""

    exit_code = 1


@final
@attrs.frozen
class Access:
    """How to reach one API server. The token's file is read again and again: it is rotated."""

    server: str
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    token_file: Path | None = None

    def current_token(self) -> str | None:
        """The bearer token as it is now.

        Raises:
            OSError: Its file cannot be read.
            AccessError: What is in the file can be no token.
        """
        if self.token_file is None:
            return self.token
        token = _read(self.token_file).strip().decode("latin-1")
        if not token or not _fits_header(token):
            raise AccessError(f"{self.token_file}: expected a token")
        return token


def in_cluster(environ: Mapping[str, str] = os.environ) -> Access:
    """Read what every pod is given.

    Raises:
        NoPodError: This is no pod.
        OSError: It has no service account.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise NoPodError(
            "not in a Kubernetes pod (KUBERNETES_SERVICE_HOST and _PORT are not set):"
            " name a kubeconfig"
        )
    host = f"[{host}]" if ":" in host else host
    access = Access(
        server=f"https://{host}:{port}",
        context=Tls(ca=SERVICE_ACCOUNT / "ca.crt").context(),
        token_file=SERVICE_ACCOUNT / "token",
    )
    access.current_token()
    return access


def from_kubeconfig(path: str | PathLike[str], context: str | None = None) -> Access:
    """Read one context of a kubeconfig: certificates, a token or its file.

    Plugins that fetch credentials (`exec`, `auth-provider`) are not run: the entrypoint would
    have to start foreign programs before it has started its own.

    Args:
        path: The file.
        context: The context's name; None for the file's current one.

    Raises:
        OSError: A file cannot be read.
        AccessError: Something in it is missing or not as expected; file and field are named.
    """
    file = Path(path)
    config = _Section.load(file)
    name = context or config.text("current-context")
    if not name:
        raise AccessError(f"{file}: current-context: expected a name, or name a context")
    chosen = config.named("contexts", name, "context")
    cluster = config.named("clusters", chosen.text("cluster"), "cluster")
    user_name = chosen.text("user")
    user = config.named("users", user_name, "user") if user_name else _Section(file, "user", {})
    for plugin in ("exec", "auth-provider"):
        if plugin in user.fields:
            raise AccessError(
                f"{user.where}: {plugin} is not supported: use a token, its file or a certificate"
            )
    server = cluster.text("server").rstrip("/")
    if not is_http_url(server):
        raise AccessError(f"{cluster.where}: server: expected http(s)://host:port, not {server!r}")
    token = user.text("token").strip()
    if not _fits_header(token):
        raise AccessError(f"{user.where}: token: expected a token")
    return Access(
        server=server,
        context=_tls_context(cluster, user) if urlsplit(server).scheme == "https" else None,
        server_name=cluster.text("tls-server-name") or None,
        token=token or None,
        token_file=user.path("tokenFile"),
    )


def _tls_context(cluster: "_Section", user: "_Section") -> ssl.SSLContext:
    with ExitStack() as stack:
        in_memory: dict[str, str] = {}
        certificate = user.file("client-certificate", stack, in_memory)
        key = user.file("client-key", stack, in_memory)
        if key is not None and certificate is None:
            raise AccessError(f"{user.where}: client-key: expected a client-certificate, too")
        ca = cluster.file("certificate-authority", stack, in_memory)
        try:
            context = Tls(ca=ca, certificate=certificate, key=key).context()
        except OSError as error:
            named = str(error.filename).split(", ")
            places = ", ".join(in_memory.get(path, path) for path in named)
            raise OSError(error.errno, error.strerror, places) from error.__cause__
    if cluster.fields.get("insecure-skip-tls-verify") is True:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@final
class _Section:
    """One mapping of the file, whose getters name what is not as expected."""

    def __init__(self, file: Path, where: str, fields: dict[str, object]) -> None:
        self._file = file
        self.where = where
        self.fields = fields

    @classmethod
    def load(cls, file: Path) -> "_Section":
        try:
            import yaml
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a kubeconfig needs pyyaml: install 'trio-entrypoint[kubernetes]'", name="yaml"
            ) from error
        try:
            value = yaml.safe_load(_read(file))
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise AccessError(f"{file}: expected YAML: {' '.join(str(error).split())}") from None
        return cls._of(file, str(file), value)

    @classmethod
    def _of(cls, file: Path, where: str, value: object) -> "_Section":
        if not isinstance(value, dict):
            raise AccessError(f"{where}: expected a mapping, got {value!r:.80}")
        return cls(file, where, cast("dict[str, object]", value))

    def named(self, field: str, name: str, inner: str) -> "_Section":
        """The entry of a list that has this name."""
        where = f"{self.where}: {field}"
        entries: object = self.fields.get(field) or []
        if not isinstance(entries, list):
            raise AccessError(f"{where}: expected a list, got {entries!r:.80}")
        for entry in cast("list[object]", entries):
            section = self._of(self._file, where, entry)
            if section.fields.get("name") == name:
                return self._of(self._file, f"{where}: {name}", section.fields.get(inner))
        raise AccessError(f"{where}: expected an entry named {name!r}")

    def text(self, field: str) -> str:
        value = self.fields.get(field) or ""
        if not isinstance(value, str) or "\0" in value:
            raise AccessError(f"{self.where}: {field}: expected a string, got {value!r:.80}")
        return value

    def path(self, field: str) -> Path | None:
        """A path, which counts from the file's own directory."""
        value = self.text(field)
        return self._file.parent / value if value else None

    def file(self, field: str, stack: ExitStack, in_memory: dict[str, str]) -> Path | None:
        """A file that is named, or that is there itself as FIELD-data.

        The ssl module reads such data only as a file: it is one, in memory, until `stack` ends,
        and `in_memory` gets to know what it stands for.
        """
        encoded = self.text(f"{field}-data")
        if not encoded:
            return self.path(field)
        try:
            data = b64decode(encoded, validate=True)
        except ValueError:
            raise AccessError(f"{self.where}: {field}-data: expected base64") from None
        fd = os.memfd_create("kubeconfig", os.MFD_CLOEXEC)
        stack.callback(os.close, fd)
        os.write(fd, data)
        path = f"/proc/self/fd/{fd}"
        in_memory[path] = f"{self.where}: {field}-data"
        return Path(path)


def _fits_header(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _read(path: Path) -> bytes:
    with open(path, "rb") as file:
        data = file.read(_MAX_FILE + 1)
    if len(data) > _MAX_FILE:
        raise AccessError(f"{path}: expected at most {_MAX_FILE} bytes")
    return data
