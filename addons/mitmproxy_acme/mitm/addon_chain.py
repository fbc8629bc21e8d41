"""The position of an addon of ours in mitmproxy's chain of addons, which are called in the order of a list.

This module knows that list; it must not know what an addon does. mitmproxy itself only adds addons at the end, and
scripts in the middle. Each change here makes a new list: mitmproxy may be walking along the old one, and would call an
addon twice.
"""

from mitmproxy import ctx


def others(addon: object) -> list[object]:
    """Return all addons of the chain except this one."""
    return [other for other in ctx.master.addons.chain if other is not addon]


def put_first(addon: object) -> None:
    """Have mitmproxy call the addon before all others."""
    ctx.master.addons.chain = [addon, *others(addon)]


def put_behind(addon: object, name: str) -> None:
    """Have mitmproxy call the addon directly after the one called ``name``; after all others if there is no such."""
    chain = others(addon)
    anchor = ctx.master.addons.get(name)  # type: ignore[no-untyped-call]
    index = chain.index(anchor) + 1 if anchor in chain else len(chain)
    ctx.master.addons.chain = [*chain[:index], addon, *chain[index:]]


def remove(addon: object) -> None:
    """Have mitmproxy call the addon no more; do nothing if it is not in the chain."""
    ctx.master.addons.chain = others(addon)
