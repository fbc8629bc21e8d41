"""Chain: where an addon of ours stands among mitmproxy's addons, which are called in the order of a list.

This module knows that list; it must not know what an addon does. mitmproxy has no call for it: scripts stand in the
middle. Each change makes a new list, for mitmproxy may be walking along the old one, and would call an addon twice.
"""

from mitmproxy import ctx


def others(addon: object) -> list[object]:
    """Return the addons of the chain but for this one."""
    return [other for other in ctx.master.addons.chain if other is not addon]


def put_first(addon: object) -> None:
    """Have mitmproxy call the addon before all others."""
    ctx.master.addons.chain = [addon, *others(addon)]


def put_last(addon: object) -> None:
    """Have mitmproxy call the addon after all others."""
    ctx.master.addons.chain = [*others(addon), addon]


def put_behind(addon: object, name: str) -> None:
    """Have mitmproxy call the addon directly after the one that it calls ``name``; after all others without that."""
    before, behind = others(addon), list[object]()
    anchor = ctx.master.addons.get(name)  # type: ignore[no-untyped-call]
    if anchor in before:
        place = before.index(anchor) + 1
        before, behind = before[:place], before[place:]
    ctx.master.addons.chain = [*before, addon, *behind]


def take_out(addon: object) -> None:
    """Have mitmproxy call the addon no more; nothing where it is not in the chain."""
    ctx.master.addons.chain = others(addon)
