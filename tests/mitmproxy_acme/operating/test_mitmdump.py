"""What ``run`` changes about mitmdump, where no process is needed to see it."""

import asyncio

import pytest
from mitmproxy.options import Options

from mitmproxy_acme import options
from mitmproxy_acme.operating import mitmdump


def test_admin_address_is_left_to_the_first_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it stands makes no difference, and nothing else is unset."""
    monkeypatch.setattr(options, "NAMES", options.NAMES | {"acme_admin_listen"})
    opts = Options()
    opts.set("acme_admin_listen=127.0.0.1:8008", "acme_email=me@example.com", defer=True)
    opts.update_defer(acme_admin_listen="127.0.0.1:8009")  # type: ignore[no-untyped-call]

    mitmdump._leave_to_the_first(opts)

    assert opts.deferred.keys() == {"acme_email"}


def test_admin_address_that_nobody_knows_is_reported_by_the_addon(monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is no option it is left alone, like every misspelt one."""
    monkeypatch.setattr(options, "NAMES", options.NAMES - {"acme_admin_listen"})
    opts = Options()
    opts.set("acme_admin_listen=127.0.0.1:8008", defer=True)

    mitmdump._leave_to_the_first(opts)

    assert opts.deferred.keys() == {"acme_admin_listen"}


@pytest.mark.parametrize("how", [{}, {"eager_start": None}, {"eager_start": True}, {"name": "x", "context": None}])
def test_only_an_empty_eager_start_is_kept_from_the_task_factory(how: dict[str, object]) -> None:
    """A factory as that of CPython 3.13.0, which does not know the argument, gets what is meant and nothing else."""
    seen: dict[str, object] = {}

    def factory(*_: object, **given: object) -> asyncio.Task[None]:
        seen.update(given)
        return None  # type: ignore[return-value]  # nobody looks at it

    with asyncio.Runner() as runner:
        mitmdump._create_task(factory, runner.get_loop(), None, **how)  # type: ignore[arg-type]  # nor at what it runs

    assert seen == {name: value for name, value in how.items() if name != "eager_start" or value is not None}


def test_uvloop_of_this_environment_runs_eager_tasks() -> None:
    """The loop that is chosen here is uvloop's, and a task begins before ``create_task`` returns."""
    factory, said = mitmdump._choose_loop()
    assert factory is not None
    assert said.startswith("uvloop ")
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async def see() -> bool:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with asyncio.TaskGroup() as group:
            group.create_task(begin())
            return begun == [1]

    assert asyncio.run(see(), loop_factory=factory)
