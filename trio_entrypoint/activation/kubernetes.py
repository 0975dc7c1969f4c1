"""`open_kubernetes_activation`: active while this entrypoint holds a Lease object.

The semantics are those of client-go's leader election (tools/leaderelection), with which it
can share a Lease:

1. Read the Lease. There is none: create it. A record that is new to us counts from the moment
   at which we saw it; the times in it are other machines' clocks and are never compared.
2. Its holder has not renewed it for as long as the record says, or has released it: replace
   it, by an update of exactly the version that was read. Of several, one succeeds.
3. Renew it every `retry_period`. Not renewed for `renew_deadline`: stop being active.
4. On a clean end replace the holder by nobody.

What differs: a watch tells of a release at once, where client-go asks every `retry_period`
(which is done here too, where watching is not allowed); and the deadlines count from before
a renewal was sent, on a clock that counts suspensions.
"""

import logging
import random
import re
import socket
import uuid
from collections.abc import AsyncGenerator, Awaitable
from contextlib import asynccontextmanager
from math import inf
from os import PathLike
from typing import final

import attrs
import trio

from trio_entrypoint._arguments import check_path
from trio_entrypoint._linux.boottime import BootClock
from trio_entrypoint._remote.http import UnreachableError, open_transport
from trio_entrypoint._remote.kubeconfig import from_kubeconfig, in_cluster
from trio_entrypoint._remote.kubernetes import (
    KubernetesError,
    LeaseApi,
    LeaseObject,
    Spec,
    timestamp,
)
from trio_entrypoint.activation._lease import MARGIN
from trio_entrypoint.activation._leased import LeaseActivation, open_lease_activation

logger: logging.Logger = logging.getLogger(__name__)

_JITTER = 1.2  # client-go's JitterFactor
_RELEASE_WITHIN = 2.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def check_contention(
    namespace: str, name: str, lease_duration: int, renew_deadline: float, retry_period: float
) -> float:
    """Refuse, by `ValueError`, what makes no sense; give the seconds of a Lease to use."""
    for field, value, longest in (("namespace", namespace, 63), ("name", name, 253)):
        if not _NAME.fullmatch(value) or len(value) > longest:
            raise ValueError(
                f"{field}: expected lower-case letters, digits, '-' and '.', not {value!r}"
            )
    if lease_duration != int(lease_duration):
        raise ValueError(f"lease_duration: expected whole seconds, not {lease_duration}")
    usable = lease_duration * (1 - MARGIN)
    if not usable > renew_deadline > _JITTER * retry_period > 0:
        raise ValueError(
            f"lease_duration, renew_deadline, retry_period: expected {lease_duration} less 5 %"
            f" > {renew_deadline} > {_JITTER} x {retry_period} > 0"
        )
    return usable


@asynccontextmanager
async def open_kubernetes_activation(
    namespace: str,
    name: str,
    *,
    lease_duration: int = 15,
    renew_deadline: float = 10.0,
    retry_period: float = 2.0,
    identity: str | None = None,
    kubeconfig: str | PathLike[str] | None = None,
    context: str | None = None,
) -> AsyncGenerator[LeaseActivation]:
    """Be active while this entrypoint holds a Lease of `coordination.k8s.io/v1`.

    Nothing is waited for at entry: an API server that cannot be reached, or that refuses,
    means 'inactive', and is logged. Leaving the block releases the Lease. Cancellation is held
    back from the Lease until the block's body has ended: the body stops its process under a
    Lease that is still renewed.

    The service account needs `get`, `create` and `update` on the Lease, and `watch` to take a
    released one over at once.

    The Lease promises that at most one contender is active, as long as its application is
    gone when `ActivationChanged.deadline` has come (the supervisor sees to that, by SIGKILL
    in the end): the application has `lease_duration` less 5 % less `renew_deadline` to stop.
    It promises nothing for an application that runs on while its entrypoint is frozen, nor
    when somebody edits or deletes the Lease by hand: what must not suffer from that has to
    check the fencing token, which is the Lease's `resourceVersion` at the activation. It
    grows even when the Lease is deleted and created again, which `leaseTransitions` does not.

    Args:
        namespace: The Lease's namespace.
        name: The Lease's name. The object is created when it does not exist.
        lease_duration: How long others wait for a holder that vanished, in whole seconds.
        renew_deadline: How long activity goes on without a renewal, in seconds.
        retry_period: The time between renewals, and between tries, in seconds.
        identity: The holder's name in the Lease, for people; the host's name by default. A
            random part is added: two contenders of one name would both be the holder.
        kubeconfig: A kubeconfig file; None for the pod's service account.
        context: The kubeconfig's context; None for its current one.

    Raises:
        ValueError: An argument, or the kubeconfig, makes no sense; the field is named.
        RuntimeError: There is no kubeconfig, and this is no pod.
        OSError: A file cannot be read.

    Example::

        async with open_kubernetes_activation("billing", "billing-active") as activation:
            ...
    """
    usable = check_contention(namespace, name, lease_duration, renew_deadline, retry_period)
    if kubeconfig is not None:
        check_path("kubeconfig", kubeconfig)
    access = in_cluster() if kubeconfig is None else from_kubeconfig(kubeconfig, context)
    label = socket.gethostname() if identity is None else identity
    async with open_transport(access.context, access.server_name) as transport:
        contender = KubernetesContender(
            LeaseApi(transport, access, namespace, name, renew_deadline / 4),
            f"{label}_{uuid.uuid4()}",
            int(lease_duration),
            retry_period,
        )
        try:
            async with open_lease_activation(
                BootClock(), usable - renew_deadline, contender.contend
            ) as activation:
                yield activation
        finally:  # the body has ended, and with it what was active
            with trio.move_on_after(_RELEASE_WITHIN, shield=True):
                await contender.release()


@final
@attrs.define
class Observation:
    """The newest record that we saw, and since when it is the same."""

    spec: Spec | None = None
    since: float = -inf

    def observe(self, spec: Spec, now: float) -> None:
        """Take note of a record as it was read."""
        if spec != self.spec:
            self.spec, self.since = spec, now

    def free_at(self, lease_duration: int) -> float:
        """When the Lease may be taken; `lease_duration` is for a record that names none."""
        if self.spec is None or not self.spec.holder:
            return -inf
        return self.since + (self.spec.duration if self.spec.duration > 0 else lease_duration)


@final
class KubernetesContender:
    """The engine's side: wait for the Lease, take it, renew it, until it is lost."""

    def __init__(
        self, api: LeaseApi, identity: str, lease_duration: int, retry_period: float
    ) -> None:
        self._api = api
        self._identity = identity
        self._duration = lease_duration
        self._retry_period = retry_period
        self._observed = Observation()
        self._held: LeaseObject | None = None
        self._in_doubt = False  # the Lease may be ours: an answer was lost
        self._may_watch = True

    async def contend(self, activation: LeaseActivation) -> None:
        """Contend for ever."""
        while True:
            await activation.attempt(lambda: self._attempt(activation))
            await self.release()

    async def release(self) -> None:
        """Let the next one in at once; if that fails, it waits for the Lease's end."""
        held, self._held = self._held, None
        try:
            if held is not None and await self._release(held):
                return
            if held is not None or self._in_doubt:
                newest = await self._api.get()
                if newest is not None and newest.spec.holder == self._identity:
                    await self._release(newest)
            self._in_doubt = False
        except (UnreachableError, KubernetesError) as error:
            logger.warning("the Lease is left to expire: %s", error)

    async def _release(self, held: LeaseObject) -> bool:
        now = timestamp()
        released = Spec("", 1, held.spec.transitions, now, now)
        return await self._api.update(held, released) is not None

    async def _attempt(self, activation: LeaseActivation) -> None:
        while self._held is None:
            try:
                await self._try_to_acquire(activation)
            except (UnreachableError, KubernetesError) as error:
                logger.warning("cannot contend for activation: %s", error)
                await self._pause()
        activation.elect(self._held.resource_version)
        while True:
            await trio.sleep(self._retry_period)
            if not await self._renewed(activation):
                return

    async def _try_to_acquire(self, activation: LeaseActivation) -> None:
        newest = await self._api.get()
        now = timestamp()
        if newest is None:
            first = Spec(self._identity, self._duration, 0, now, now)
            await self._take(activation, self._api.create(first))
            return
        self._observed.observe(newest.spec, activation.clock.now())
        old = newest.spec
        if old.holder == self._identity:  # an update whose answer was lost
            spec = attrs.evolve(old, duration=self._duration, renewed=now)
        elif activation.clock.now() < self._observed.free_at(self._duration):
            await self._wait_until_free(activation, newest.resource_version)
            return
        else:
            spec = Spec(self._identity, self._duration, old.transitions + 1, now, now)
        await self._take(activation, self._api.update(newest, spec))

    async def _take(
        self, activation: LeaseActivation, written: Awaitable[LeaseObject | None]
    ) -> None:
        sent = activation.clock.now()
        self._in_doubt = True
        self._held = await written
        self._in_doubt = False
        if self._held is not None:
            activation.extend(sent, self._duration)

    async def _renewed(self, activation: LeaseActivation) -> bool:
        """Try to renew; return whether the Lease is ours still, as far as is known."""
        assert self._held is not None, "it was acquired"
        try:
            sent = activation.clock.now()
            renewed = await self._api.update(self._held, self._renewal(self._held))
            if renewed is None:  # somebody wrote something: see who holds it
                newest = await self._api.get()
                if newest is None or newest.spec.holder != self._identity:
                    self._held = None
                    return False
                self._held = newest
                sent = activation.clock.now()
                renewed = await self._api.update(newest, self._renewal(newest))
        except (UnreachableError, KubernetesError) as error:
            logger.warning("the Lease could not be renewed: %s", error)
            return True
        if renewed is not None:
            self._held = renewed
            activation.extend(sent, self._duration)
        return True

    def _renewal(self, held: LeaseObject) -> Spec:
        return attrs.evolve(held.spec, duration=self._duration, renewed=timestamp())

    async def _wait_until_free(self, activation: LeaseActivation, version: str) -> None:
        """Wait for the Lease's end, its release, or a reason to read it again."""
        clock = activation.clock
        async with trio.open_nursery() as nursery:

            async def until_it_ends() -> None:
                while clock.now() < self._observed.free_at(self._duration):
                    await clock.sleep_until(self._observed.free_at(self._duration))
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_it_ends)
            if self._may_watch:
                await self._watch(activation, version)
            else:
                await self._pause()
            nursery.cancel_scope.cancel()

    async def _watch(self, activation: LeaseActivation, version: str) -> None:
        try:
            async with self._api.watch(version) as versions:
                async for newest in versions:
                    self._observed.observe(newest.spec, activation.clock.now())
                    if not newest.spec.holder:
                        return
        except KubernetesError as error:
            if error.status == 403:
                logger.warning(
                    "watching is not allowed, asking every %s s instead: %s",
                    self._retry_period,
                    error,
                )
                self._may_watch = False
                return
            logger.info("a watch ended: %s", error)
        except UnreachableError as error:
            logger.info("a watch ended: %s", error)
        await self._pause()

    async def _pause(self) -> None:
        await trio.sleep(self._retry_period * random.uniform(1, _JITTER))  # noqa: S311
