"""``mitmproxy-acme watch``: what happens to certificates on all nodes, a line for each event, until Ctrl-C."""

import argparse
import sys
from collections.abc import Iterator

from ...admin.documents import Document, event_details
from ...store.event_log import SHOWN
from .. import terminal
from ..event_sources import open_events
from . import arguments

HELP = "print what happens to certificates on all nodes, as it happens"
_LAST = 10
# Events that were printed. A node that restarts forgets those that it could not store, and older ones come again.
_MOST_KNOWN = 10 * SHOWN


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add its arguments, except the options of the proxies."""
    command.add_argument(
        "--last",
        type=_last,
        default=_LAST,
        metavar="N",
        help=f"begin with the last N events (default: {_LAST}, at most {SHOWN})",
    )
    arguments.add_json(command, "one JSON document a line")


def run(chosen: argparse.Namespace) -> int:
    """Print events until Ctrl-C, or until the reader of the output goes away."""
    events = open_events(arguments.config_of(chosen), arguments.confdir_of(chosen))
    for event in _new_ones(events, chosen.last):
        if chosen.json:
            terminal.say_document(event)
        else:
            terminal.say(line(event))
            sys.stdout.flush()
    return 0


def _new_ones(histories: Iterator[list[Document]], last: int) -> Iterator[Document]:
    """Yield each event once, the oldest first; of the first history the ``last`` ones."""
    known: dict[str, None] | None = None
    for history in histories:
        new = [event for event in reversed(history) if known is None or event["id"] not in known]
        if known is None:
            known, new = {}, new[len(new) - min(last, len(new)) :]
        known |= dict.fromkeys(event["id"] for event in reversed(history))
        for id in list(known)[:-_MOST_KNOWN]:
            del known[id]
        yield from new


def line(event: Document) -> str:
    """Return an event as a line for people."""
    host = f"{event['host']} and {event['more']} more" if event["more"] else event["host"]
    left_out = f"; {event['left_out']} earlier events of this node are not listed" if event["left_out"] else ""
    where = f"node {event['node']}" + (f" on {event['machine']}" if event["machine"] else "")
    return f"{event['at']}  {event['event']:8}  {host}: {event_details(event)} ({where}){left_out}"


def _last(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) <= SHOWN):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {SHOWN}")
    return int(text)
