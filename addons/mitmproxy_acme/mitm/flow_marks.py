"""Marks challenges in mitmproxy's flow list, or hides them from it.

This module knows mitmproxy's flows; it must not know what was asked, or how it was answered.
"""

from mitmproxy.flow import Flow

_MARKER = ":closed_lock_with_key:"  # one of mitmproxy.utils.emoji
_HIDDEN = "acme_hidden"


def mark(flow: Flow, comment: str, *, hide: bool = False) -> None:
    """Comment and mark a flow; with ``hide``, have our hooks keep it from the addons behind ours."""
    flow.comment, flow.marked = comment, _MARKER
    if hide:
        flow.metadata[_HIDDEN] = True


def is_hidden(flow: Flow) -> bool:
    """Say whether a flow is kept from the flow list, the log of flows and the file of saved flows."""
    return bool(flow.metadata.get(_HIDDEN))
