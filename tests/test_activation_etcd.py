"""Elections in a real etcd: one active, handed over, lost, and never two."""

import trio
from etcd_cluster import Cluster

from trio_entrypoint import ActivationChanged, open_etcd_activation


async def test_the_only_contender_is_elected_with_a_token(etcd: Cluster) -> None:
    async with open_etcd_activation(etcd.endpoints, "/one", identity="me") as activation:
        assert await activation.events.receive() == ActivationChanged(active=False)
        with trio.fail_after(5):
            event = await activation.events.receive()
        assert event.active
        assert activation.active
        assert int(event.token or "") > 0
        assert list(etcd.keys("/one/").values()) == ["me"]
    assert etcd.keys("/one/") == {}
