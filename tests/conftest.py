"""What goes for all tests: a failed one shows the ends of its servers' logs, and none is timed."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import base

# Six processes share two cores: how long an example takes says nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect without the garbage collector, which then leaves alone what is there until the end.

    Each process keeps all tests: with the collector, gathering them took half as long again, and so did each of the
    collector's later looks (measured).
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


# They wait longest, and so begin first: at the end no process is to be left with one of them.
_SLOW = (
    "tests/end_to_end/test_idle.py",
    "tests/end_to_end/test_renewal.py",
    "tests/end_to_end/test_storage_down.py",
    "tests/end_to_end/test_cluster.py",
    "tests/simulation/",
    "tests/test_bench.py",
    "tests/servers/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the slow files first."""
    items.sort(key=lambda item: next((n for n, path in enumerate(_SLOW) if item.nodeid.startswith(path)), len(_SLOW)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Add the logs of those that are still running."""
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        for server in sorted(base.running(), key=lambda server: server.name):
            item.add_report_section(call.when, f"log of {server.name}", server.tail(150))
    return (yield)


@pytest.fixture(scope="session", autouse=True)
def _logs_of_closed_servers() -> Iterator[None]:
    """Print the others' where pytest captures it, and shows it if the test failed."""
    close = base.Server.close

    def print_and_close(server: base.Server) -> None:
        server.stop()
        print(f"--- the end of the log of {server.name}:\n{server.tail(150)}")
        close(server)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base.Server, "close", print_and_close)
        yield
