"""The sections of a service that say what it waits for: its activation and its configuration."""

from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import ge, gt, lt, min_len, optional

from trio_entrypoint.cli.values import Words, command, exactly_one, is_mode, mode_bits
from trio_entrypoint.commands import Command
from trio_entrypoint.handlers import ActivationHandler, ConfigurationHandler, UpdateResult

if TYPE_CHECKING:
    from trio_entrypoint._remote.etcd import EtcdAuth
    from trio_entrypoint._remote.http import Tls
    from trio_entrypoint.configuration.source import Source

__all__ = [
    "ActivationSettings",
    "ConfigurationSettings",
    "EtcdSettings",
    "KeysSettings",
    "KubernetesSettings",
    "MergedSettings",
    "TlsSettings",
]


@attrs.frozen(kw_only=True)
class TlsSettings:
    """How etcd proves who it is, and how we do; the files are PEM."""

    ca: str | None = None
    """The authorities that may sign etcd's certificate; without it, those of the system."""

    certificate: str | None = None
    """Our certificate, with its chain."""

    key: str | None = None
    """The private key of `certificate`, if it is not in the same file."""

    server_name: str | None = None
    """The name in etcd's certificate, where it is not the address that is connected to."""

    def __attrs_post_init__(self) -> None:
        self.make()

    def make(self) -> "Tls":
        """Make what is meant."""
        from trio_entrypoint._remote.http import Tls

        return Tls(**attrs.asdict(self))


@attrs.frozen(kw_only=True)
class _EtcdSettings:
    """How etcd is reached; needs `trio-entrypoint[etcd]`."""

    endpoints: tuple[str, ...] = attrs.field(validator=min_len(1))
    """Addresses of the members: `http://host:port` or `https://host:port`."""

    tls: TlsSettings | None = None
    """Certificates, for `https` endpoints."""

    user: str | None = None
    """The user to log in as, where etcd has authentication enabled."""

    password_file: str | None = None
    """A file with the user's password on its first line."""

    def __attrs_post_init__(self) -> None:
        from trio_entrypoint._remote.etcd import check_endpoints

        check_endpoints(self.endpoints, tls=self.tls is not None)
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together")

    def access(self) -> "tuple[Tls | None, EtcdAuth | None]":
        """Make what the connections are made with."""
        from trio_entrypoint._remote.etcd import EtcdAuth

        auth = None
        if self.user is not None and self.password_file is not None:
            auth = EtcdAuth(self.user, self.password_file)
        return self.tls.make() if self.tls else None, auth


@attrs.frozen(kw_only=True)
class KeysSettings(_EtcdSettings):
    """The keys under a prefix in etcd, as files; needs `trio-entrypoint[etcd]`."""

    prefix: str = attrs.field(validator=min_len(1))
    """What the keys' names begin with, up to a `/`; the rest of a name is a file's path."""

    def __attrs_post_init__(self) -> None:
        from trio_entrypoint.configuration.etcd import check_prefix

        super().__attrs_post_init__()
        check_prefix(self.prefix)


@attrs.frozen(kw_only=True)
class EtcdSettings(_EtcdSettings):
    """Active while elected in etcd; needs `trio-entrypoint[etcd]`."""

    name: str = attrs.field(validator=min_len(1))
    """What is contended for; each contender has a key under it."""

    ttl: int = attrs.field(default=15, validator=ge(2))
    """Seconds that a holder that vanished keeps others waiting."""

    stop_within: float = attrs.field(default=5.0, validator=gt(0))
    """Seconds that the application may take to be gone; more than its `grace_period`."""

    identity: str | None = None
    """This contender's name, for people; by default the host's."""

    def __attrs_post_init__(self) -> None:
        from trio_entrypoint.activation.etcd import check_contention

        super().__attrs_post_init__()
        check_contention(self.name, self.ttl, self.stop_within)

    def open(self) -> AbstractAsyncContextManager[ActivationHandler]:
        """Make what opens the activation."""
        from trio_entrypoint.activation.etcd import open_etcd_activation

        tls, auth = self.access()
        return open_etcd_activation(
            self.endpoints,
            self.name,
            ttl=self.ttl,
            stop_within=self.stop_within,
            identity=self.identity,
            tls=tls,
            auth=auth,
        )


@attrs.frozen(kw_only=True)
class KubernetesSettings:
    """Active while holding a Lease; needs `trio-entrypoint[kubernetes]`."""

    namespace: str = attrs.field(validator=min_len(1))
    """The Lease's namespace."""

    name: str = attrs.field(validator=min_len(1))
    """The Lease's name."""

    lease_duration: int = attrs.field(default=15, validator=ge(1))
    """Seconds that others wait for a holder that vanished."""

    renew_deadline: float = attrs.field(default=10.0, validator=gt(0))
    """Seconds that activity goes on without a renewal."""

    retry_period: float = attrs.field(default=2.0, validator=gt(0))
    """Seconds between renewals, and between tries."""

    identity: str | None = None
    """The holder's name in the Lease, for people; by default the host's."""

    kubeconfig: str | None = None
    """A kubeconfig file; without it, the pod's service account."""

    context: str | None = None
    """The kubeconfig's context; without it, the current one."""

    def __attrs_post_init__(self) -> None:
        from trio_entrypoint.activation.kubernetes import check_contention

        check_contention(
            self.namespace, self.name, self.lease_duration, self.renew_deadline, self.retry_period
        )

    def open(self) -> AbstractAsyncContextManager[ActivationHandler]:
        """Make what opens the activation."""
        from trio_entrypoint.activation.kubernetes import open_kubernetes_activation

        return open_kubernetes_activation(**attrs.asdict(self))


@attrs.frozen(kw_only=True)
class ActivationSettings:
    """When this entrypoint is the active one; exactly one key."""

    file: str | None = None
    """Active while this file exists."""

    etcd: EtcdSettings | None = None
    """Active while elected in etcd."""

    kubernetes: KubernetesSettings | None = None
    """Active while holding a Lease."""

    all: "tuple[ActivationSettings, ...] | None" = None
    """Active while all of these are."""

    any: "tuple[ActivationSettings, ...] | None" = None
    """Active while one of these is."""

    def __attrs_post_init__(self) -> None:
        exactly_one(self, ("file", "etcd", "kubernetes", "all", "any"))
        if self.all == () or self.any == ():
            raise ValueError("there has to be something to combine")

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[ActivationHandler]:
        """Open the activation."""
        async with AsyncExitStack() as stack:
            if self.file is not None:
                from trio_entrypoint.activation.file import open_file_activation

                yield await stack.enter_async_context(open_file_activation(self.file))
            elif self.etcd is not None:
                yield await stack.enter_async_context(self.etcd.open())
            elif self.kubernetes is not None:
                yield await stack.enter_async_context(self.kubernetes.open())
            else:
                from trio_entrypoint.activation.combined import (
                    open_all_activation,
                    open_any_activation,
                )

                combine = open_any_activation if self.all is None else open_all_activation
                handlers = [
                    await stack.enter_async_context(inner.open())
                    for inner in self.all or self.any or ()
                ]
                yield await stack.enter_async_context(combine(*handlers))


@attrs.frozen(kw_only=True)
class MergedSettings:
    """One of several sources: exactly one of the first three keys."""

    tar: str | None = None
    """An archive."""

    directory: str | None = None
    """A directory."""

    file: str | None = None
    """A file, which gets a `name` in the target."""

    name: str | None = None
    """The path of the file in the target."""

    mode: str | None = attrs.field(default=None, validator=optional(is_mode))
    """The permission bits of the file, in octal; by default the source's."""

    def __attrs_post_init__(self) -> None:
        exactly_one(self, ("tar", "directory", "file"))
        if (self.file is None) != (self.name is None):
            raise ValueError("file and name belong together")

    def make(self) -> "Source":
        """Make the source that is meant."""
        from trio_entrypoint.configuration.directory import DirectorySource
        from trio_entrypoint.configuration.file import FileSource
        from trio_entrypoint.configuration.tar import TarSource

        if self.tar is not None:
            return TarSource(self.tar)
        if self.directory is not None:
            return DirectorySource(self.directory)
        assert self.file is not None
        assert self.name is not None
        return FileSource(self.file, self.name, mode=mode_bits(self.mode))


SOURCES = ("file", "tar", "directory", "merged", "etcd")


@attrs.frozen(kw_only=True)
class ConfigurationSettings:
    """A source that is watched, and the target that it is applied to; exactly one source."""

    file: str | None = None
    """A file that is applied as the file `target`."""

    tar: str | None = None
    """An archive (plain, gzip, bzip2, xz, zstd) that is unpacked as the directory `target`."""

    directory: str | None = None
    """A directory, such as a mounted ConfigMap, that is copied as the directory `target`."""

    merged: tuple[MergedSettings, ...] | None = None
    """Several archives, directories and files in one directory `target`; of the same path the
    later one wins."""

    etcd: KeysSettings | None = None
    """Keys in etcd that become the files of the directory `target`."""

    target: str = attrs.field(validator=min_len(1))
    """Where the application reads it."""

    validate: Words | Command | None = None
    """A command that decides whether a new configuration is taken, before anything changes;
    `{path}` in it is where the new configuration is."""

    keep: int = attrs.field(default=3, validator=ge(1))
    """How many former configurations are kept, for a rollback."""

    durability: Literal["process", "disk"] = "process"
    """Whether it survives a SIGKILL of the entrypoint, or a power loss too."""

    settle: float = attrs.field(default=0.0, validator=[ge(0), lt(inf)])
    """Seconds of quiet before a changed source is looked at."""

    share: Literal["link", "copy"] | None = None
    """Whether unchanged files are shared with former configurations, by default, or copied; not
    for a `file`."""

    layout: Literal["auto", "symlink", "inside"] | None = None
    """Whether the target is a symlink, or a directory of symlinks; by default the latter where it
    cannot be replaced. Not for a `file`."""

    max_members: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """How many members a tar, or entries a directory or all that is merged may have; by default
    100,000. From etcd, how many keys; by default 10,000."""

    max_size: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """How many bytes it may have, unpacked; by default 256 MiB, from etcd 64 MiB."""

    keep_owner: bool | None = None
    """Whether the members of a tar keep their numeric user and group; by default not."""

    keep_time: bool | None = None
    """Whether the members of a tar keep their modification times; by default not."""

    mode: str | None = attrs.field(default=None, validator=optional(is_mode))
    """The permission bits of a file's target, in octal such as "0640"; by default the
    source's. Of the files from etcd; by default 0644."""

    owner: tuple[int, int] | None = None
    """User and group of a file's target, by number; by default those of the entrypoint."""

    def __attrs_post_init__(self) -> None:
        from trio_entrypoint.configuration.options import check_owner

        exactly_one(self, SOURCES)
        if self.merged == ():
            raise ValueError("there has to be something to merge")
        if self.file is None and self.etcd is None and self.mode is not None:
            raise ValueError("mode is for a file, or for etcd")
        if self.file is None and self.owner is not None:
            raise ValueError("owner is for a file")
        if self.owner is not None:
            check_owner(self.owner)
        for name in ("keep_owner", "keep_time"):
            if self.tar is None and getattr(self, name) is not None:
                raise ValueError(f"{name} is for a tar")
        if self.file is not None:
            for name in ("share", "layout", "max_members"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for what becomes a directory")
        self.open()  # it is never entered: the command to validate by is checked

    def open(self) -> AbstractAsyncContextManager[ConfigurationHandler[UpdateResult]]:
        """Make what opens the configuration."""
        from trio_entrypoint.configuration.validation import ValidateCommand

        validate = None
        if self.validate is not None:
            words = command(self.validate)
            validate = ValidateCommand(words.command, timeout=words.timeout)
        options: dict[str, Any] = {
            name: value
            for name in (
                *("keep", "durability", "settle", "share", "layout", "max_members", "max_size"),
                *("owner", "keep_owner", "keep_time"),
            )
            if (value := getattr(self, name)) is not None
        }
        if self.mode is not None:
            options["mode"] = mode_bits(self.mode)
        if self.file is not None:
            from trio_entrypoint.configuration.file import open_file_configuration

            return open_file_configuration(self.file, self.target, validate=validate, **options)
        if self.tar is not None:
            from trio_entrypoint.configuration.tar import open_tar_configuration

            return open_tar_configuration(self.tar, self.target, validate=validate, **options)
        if self.merged is not None:
            from trio_entrypoint.configuration.merged import open_merged_configuration

            sources = [source.make() for source in self.merged]
            return open_merged_configuration(sources, self.target, validate=validate, **options)
        if self.etcd is not None:
            from trio_entrypoint.configuration.etcd import open_etcd_configuration

            tls, auth = self.etcd.access()
            return open_etcd_configuration(
                self.etcd.endpoints,
                self.etcd.prefix,
                self.target,
                tls=tls,
                auth=auth,
                validate=validate,
                **options,
            )
        from trio_entrypoint.configuration.directory import open_directory_configuration

        assert self.directory is not None
        return open_directory_configuration(
            self.directory, self.target, validate=validate, **options
        )
