"""Marks: how a challenge shows in mitmproxy's flow list, or that it does not.

This module knows mitmproxy's flows; it must not know what was asked, nor how it was answered.
"""

from mitmproxy.flow import Flow

_MARKER = ":closed_lock_with_key:"  # one of mitmproxy.utils.emoji
_HIDDEN = "acme_hidden"


def mark(flow: Flow, comment: str, *, hide: bool = False) -> None:
    """Say what a flow is; with ``hide``, that nobody behind our addon is to see it."""
    flow.comment, flow.marked = comment, _MARKER
    if hide:
        flow.metadata[_HIDDEN] = True


def is_hidden(flow: Flow) -> bool:
    """Say whether it is to be kept from the flow list, from the log of flows and from where they are saved."""
    return bool(flow.metadata.get(_HIDDEN))
