"""What ``run`` changes in mitmdump, without a process."""

import asyncio

import pytest
from mitmproxy import exceptions, hooks
from mitmproxy.test import taddons

from mitmproxy_acme.mitm import launcher


class Receiver:
    """An addon that receives one event, and may contain others."""

    def __init__(self, name: str, seen: list[str], *addons: object, error: Exception | None = None) -> None:
        self.name, self._seen, self._error = name, seen, error
        if addons:
            self.addons = list(addons)

    async def running(self) -> None:
        self._seen.append(self.name)
        if self._error:
            raise self._error


async def test_events_reach_all_receivers_in_order(caplog: pytest.LogCaptureFixture) -> None:
    """Also added, removed and nested addons. An error stops no other receiver; a halt stops those that follow."""
    seen: list[str] = []
    with taddons.context() as context:  # type: ignore[no-untyped-call]
        addons = launcher._Addons(context.master)  # type: ignore[no-untyped-call]

        async def reached() -> list[str]:
            seen.clear()
            await addons.trigger_event(hooks.RunningHook())  # type: ignore[no-untyped-call]
            return list(seen)

        first, last = Receiver("first", seen, error=ValueError("of the first")), Receiver("last", seen)
        holder = Receiver("holder", seen, Receiver("nested", seen))
        addons.add(first, object(), holder, last)  # type: ignore[no-untyped-call]
        assert await reached() == ["first", "holder", "nested", "last"]
        assert "Addon error: of the first" in caplog.text

        holder.addons.append(Receiver("late", seen))
        assert await reached() == ["first", "holder", "nested", "late", "last"]

        addons.remove(first)  # type: ignore[no-untyped-call]
        addons.add(Receiver("halts", seen, error=exceptions.AddonHalt()), Receiver("added", seen))  # type: ignore[no-untyped-call]
        assert await reached() == ["holder", "nested", "late", "last", "halts"]


@pytest.mark.parametrize("options", [{}, {"eager_start": None}, {"eager_start": True}, {"name": "x", "context": None}])
def test_only_an_empty_eager_start_is_kept_from_the_task_factory(options: dict[str, object]) -> None:
    """The factory of CPython 3.13.0 does not know the argument; every other argument reaches it."""
    seen: dict[str, object] = {}

    def factory(*_: object, **given: object) -> asyncio.Task[None]:
        seen.update(given)
        return None  # type: ignore[return-value]  # not used

    with asyncio.Runner() as runner:
        launcher._create_task(factory, runner.get_loop(), None, **options)  # type: ignore[arg-type]  # not run

    assert seen == {name: value for name, value in options.items() if name != "eager_start" or value is not None}


def test_uvloop_of_this_environment_runs_eager_tasks() -> None:
    """The loop that is chosen here is uvloop's, and a task begins before ``create_task`` returns."""
    factory, name = launcher._choose_loop()
    assert factory is not None
    assert name.startswith("uvloop ")
    begun: list[int] = []

    async def begin() -> None:
        begun.append(1)

    async def see() -> bool:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        async with asyncio.TaskGroup() as group:
            group.create_task(begin())
            return begun == [1]

    assert asyncio.run(see(), loop_factory=factory)
