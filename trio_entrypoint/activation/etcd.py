"""`open_etcd_activation`: active while elected in etcd, by a lease and the order of creation.

The protocol is that of etcd's own election recipe (clientv3/concurrency), so `etcdctl elect
--listen NAME` shows who is active:

1. Grant a lease, and create the key NAME/LEASE attached to it.
2. Look for the newest key under NAME/ that was created before ours. There is none: we are
   elected. The revision at which our key was created is the fencing token.
3. Else watch that one key until it is deleted, and go to 2. Nobody else is woken by it.
4. Meanwhile, and while active, renew the lease. Watch our own key while active.

A renewal counts only when a quorum has confirmed it: a leader that was cut off and does not
know it yet renews leases that its successor lets expire (etcd #15247, before 3.4.28 and
3.5.10). So our key is read linearizably afterwards, and both answers must be of one raft term.
"""

import logging
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, final

import trio

from trio_entrypoint._linux.boottime import BootClock
from trio_entrypoint._remote.etcd import Etcd, EtcdAuth, check_endpoints, open_etcd
from trio_entrypoint._remote.etcd_messages import EtcdError, LeaseNotFoundError, prefix_end
from trio_entrypoint._remote.http import Tls, UnreachableError
from trio_entrypoint._remote.pauses import LONGEST, Pauses
from trio_entrypoint.activation._lease import MARGIN
from trio_entrypoint.activation._leased import LeaseActivation, open_lease_activation

logger: logging.Logger = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_ATTEMPT = 5.0


def check_contention(name: str, ttl: int, stop_within: float) -> float:
    """Refuse, by `ValueError`, what makes no sense; give the seconds of activity of a renewal."""
    if not name.strip("/"):
        raise ValueError(f"name: expected a name to contend for, not {name!r}")
    if ttl < 2:
        raise ValueError(f"ttl: expected at least 2 seconds, not {ttl}: etcd grants no less")
    usable = ttl * (1 - MARGIN) - stop_within
    if stop_within < 0 or usable < ttl / 10:
        raise ValueError(
            f"stop_within: expected 0 to {ttl * (0.9 - MARGIN):.1f} seconds with a ttl of {ttl},"
            f" not {stop_within}: deactivation comes that long before the lease ends"
        )
    return usable


@asynccontextmanager
async def open_etcd_activation(
    endpoints: Sequence[str],
    name: str,
    *,
    ttl: int = 15,
    stop_within: float = 5.0,
    identity: str | None = None,
    tls: Tls | None = None,
    auth: EtcdAuth | None = None,
) -> AsyncGenerator[LeaseActivation]:
    """Be active while elected among all that contend for one name in an etcd cluster.

    Nothing is waited for at entry: an unreachable cluster means 'inactive', and is logged.
    Leaving the block releases the lease, so that the next one becomes active at once.
    Cancellation is held back from the lease until the block's body has ended: the body stops
    its process under a lease that is still kept.

    The lease promises that at most one contender is active, as long as its application is
    gone when `ActivationChanged.deadline` has come (the supervisor sees to that, by SIGKILL
    in the end). It promises nothing for an application that runs on while its entrypoint is
    frozen, nor when somebody deletes keys or revokes leases by hand: what must not suffer
    from that has to check the fencing token.

    Args:
        endpoints: Client addresses of the members: `http://host:port` or `https://host:port`.
        name: What is contended for. Each contender has a key under `NAME/` in etcd.
        ttl: Time to live of the lease in seconds: how long a holder that vanished keeps
            others waiting.
        stop_within: How long the application may take to be gone, in seconds; more than its
            grace period. Deactivation comes that long before others may become active.
        identity: The value of this contender's key, for people; the host's name by default.
        tls: Files for `https` addresses; None for the system's authorities.
        auth: The user to log in as, where the cluster has authentication enabled.

    Raises:
        ValueError: An argument, or the password's file, makes no sense; it is named.
        OSError: A file of `tls` or `auth` cannot be read.

    Example::

        async with open_etcd_activation(
            ["https://etcd-0:2379", "https://etcd-1:2379", "https://etcd-2:2379"],
            "/services/billing",
            tls=Tls(ca="/etc/etcd/ca.pem"),
        ) as activation:
            ...
    """
    checked = check_endpoints(endpoints)
    usable = check_contention(name, ttl, stop_within)
    # Within two thirds of the usable time, each member can be asked twice.
    attempt_timeout = min(_LONGEST_ATTEMPT, usable / (3 * len(checked)))
    async with open_etcd(checked, tls=tls, auth=auth, attempt_timeout=attempt_timeout) as etcd:
        contender = EtcdContender(
            etcd, name, ttl, socket.gethostname() if identity is None else identity
        )
        try:
            async with open_lease_activation(
                BootClock(), stop_within, contender.contend
            ) as activation:
                yield activation
        finally:  # the body has ended, and with it what was active
            with trio.move_on_after(LONGEST, shield=True):
                await contender.release()


@final
class EtcdContender:
    """The engine's side: one attempt after another, each with a lease of its own."""

    def __init__(self, etcd: Etcd, name: str, ttl: int, identity: str) -> None:
        self._etcd = etcd
        self._prefix = name.encode().rstrip(b"/") + b"/"
        self._ttl = ttl
        self._identity = identity.encode()
        self._lease = 0
        self._created = False
        self._pauses = Pauses()

    async def contend(self, activation: LeaseActivation) -> None:
        """Contend for ever, with a lease of its own for each attempt."""
        while True:
            self._lease = 0
            self._created = False
            await activation.attempt(lambda: self._attempt(activation))
            await self.release()
            await self._pauses.pause()  # an attempt can fail at once, each time

    async def release(self) -> None:
        """Let the next contender in at once; if that fails, it waits for the lease's end."""
        if not self._lease:
            return
        try:
            await self._etcd.revoke(self._lease)
        except LeaseNotFoundError:
            pass
        except (UnreachableError, EtcdError) as error:
            logger.warning("the lease is left to expire: %s", error)

    async def _attempt(self, activation: LeaseActivation) -> None:
        async with trio.open_nursery() as nursery:
            try:
                await self._persist(lambda: self._grant(activation))
                key = self._prefix + b"%x" % self._lease
                nursery.start_soon(self._keep_alive, activation, key)
                await self._persist(lambda: self._etcd.create(key, self._identity, self._lease))
                self._created = True
                token = await self._wait_for_predecessors(key)
                if token is not None:
                    activation.elect(str(token))
                    if activation.active:
                        self._pauses = Pauses()
                    await self._until_deleted(key, token, token + 1)
            except LeaseNotFoundError:
                pass
            except EtcdError as error:
                logger.warning("cannot contend for activation: %s", error)
                await trio.sleep(LONGEST)
            nursery.cancel_scope.cancel()

    async def _grant(self, activation: LeaseActivation) -> None:
        sent = activation.clock.now()
        self._lease, granted = await self._etcd.grant(self._ttl)
        activation.extend(sent, granted)

    async def _keep_alive(self, activation: LeaseActivation, key: bytes) -> None:
        pauses, earliest = Pauses(), 0.0
        while True:
            assert activation.tenure is not None, "it was extended by the grant"
            await activation.clock.sleep_until(max(activation.tenure.renew_at, earliest))
            sent = activation.clock.now()
            created = self._created
            try:
                granted, before = await self._etcd.keep_alive(self._lease)
                after = await self._etcd.range(key)
            except LeaseNotFoundError:
                activation.lose()
                return
            except (UnreachableError, EtcdError) as error:
                logger.warning("the lease could not be renewed: %s", error)
                await pauses.pause()
                continue
            if created and not after.keys:
                activation.lose()
                return
            if before.raft_term != after.header.raft_term:
                await pauses.pause()
                continue
            pauses = Pauses()
            activation.extend(sent, granted)
            # Granted for less than was asked for, it would be renewed again and again at once.
            # None that `check_contention` lets through is renewed more often than this.
            earliest = sent + self._ttl / 30

    async def _wait_for_predecessors(self, key: bytes) -> int | None:
        """Wait until our key is the oldest; return its revision, or None when it is gone."""
        mine = await self._persist(lambda: self._etcd.range(key))
        revision = mine.keys[0].create_revision if mine.keys else 0
        while mine.keys:
            older = await self._persist(
                lambda: self._etcd.range(
                    self._prefix, prefix_end(self._prefix), newest_before=revision
                )
            )
            if older.keys:
                predecessor = older.keys[0]
                await self._until_deleted(
                    predecessor.key, predecessor.create_revision, older.header.revision + 1
                )
            # Read after the others: ours was there when they were not.
            mine = await self._persist(lambda: self._etcd.range(key))
            if not older.keys and mine.keys and mine.keys[0].create_revision == revision:
                return revision
        return None

    async def _until_deleted(self, key: bytes, created: int, from_revision: int) -> None:
        """Wait until the key that was created at a revision is gone.

        A watch that fell silent without an error costs one time to live: then it is renewed.
        """
        pauses = Pauses()
        while True:
            with trio.move_on_after(self._ttl):
                try:
                    async with self._etcd.watch(key, from_revision=from_revision) as events:
                        async for event in events:
                            if key in event.deleted:
                                return
                except (UnreachableError, EtcdError) as error:
                    logger.info("a watch ended: %s", error)
                    await pauses.pause()
            try:
                now = await self._etcd.range(key)
            except (UnreachableError, EtcdError) as error:
                logger.info("a key cannot be read: %s", error)
                await pauses.pause()
                continue
            if not now.keys or now.keys[0].create_revision != created:
                return
            from_revision = now.header.revision + 1

    async def _persist(self, operation: Callable[[], Awaitable[T]]) -> T:
        pauses = Pauses()
        while True:
            try:
                return await operation()
            except UnreachableError as error:
                logger.warning("cannot contend for activation yet: %s", error)
            await pauses.pause()
