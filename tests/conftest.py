"""What all tests share: in CI a test that skips is a failure."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from configmap import ConfigMap
from etcd_cluster import Cluster, running_cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} would be skipped, which CI does not allow: {call.excinfo}"
        )
    return report


@pytest.fixture(scope="session")
def etcd() -> Iterator[Cluster]:
    """A cluster of three that tests share: nobody stops its members."""
    with running_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def configmap(tmp_path: Path) -> ConfigMap:
    """A mounted ConfigMap, empty yet."""
    directory = tmp_path / "volume"
    directory.mkdir()
    return ConfigMap(directory)
