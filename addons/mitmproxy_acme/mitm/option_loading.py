"""Tells mitmproxy of our options, and reads what was set for them before it knew them.

This module knows mitmproxy's option manager; it must not know what an option means.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence

from mitmproxy import exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.optmanager import OptManager

from ..config.options import Option

logger = logging.getLogger(__name__)

_TYPES_IN_WORDS: dict[object, str] = {
    bool: "true or false",
    int: "one whole number",
    str: "one text",
    Sequence[str]: "a list of texts",
}


def add_options(loader: Loader, options: Sequence[Option]) -> None:
    """Tell mitmproxy of the options, and read the values that were set for them before. Log which of these are wrong.

    mitmproxy reads such values itself, after all options are known; one of a wrong type makes it drop the whole script
    without a word then (seen with acme_handshake_wait=x).
    """
    manager: OptManager = loader.master.options
    with _one_notification(manager, {option.name for option in options}):
        for option in options:
            default = list(option.default) if isinstance(option.default, tuple) else option.default
            loader.add_option(option.name, option.type, default, option.help, option.choices or None)  # type: ignore[arg-type]
    try:
        manager.process_deferred()
    except (exceptions.OptionsError, TypeError):
        _read_one_by_one(manager, options)


@contextlib.contextmanager
def _one_notification(manager: OptManager, names: set[str]) -> Iterator[None]:
    """Say once that these options are new.

    mitmproxy says it for each, to each of its fifty addons: half of the CPU of a start, imports aside (measured).
    """
    receivers, manager.changed.receivers = manager.changed.receivers, []
    try:
        yield
    finally:
        manager.changed.receivers = receivers
    manager.changed.send(updated=names)


def _read_one_by_one(manager: OptManager, options: Iterable[Option]) -> None:
    """Read the values that were set before; log and forget those that are wrong."""
    waiting = dict(manager.deferred)
    manager.deferred.clear()
    for option in options:
        if option.name in waiting:
            manager.deferred[option.name] = waiting.pop(option.name)
            _read(manager, option)
    manager.deferred.update(waiting)


def _read(manager: OptManager, option: Option) -> None:
    """Read the only value that is deferred."""
    try:
        manager.process_deferred()
    except exceptions.OptionsError as error:
        del manager.deferred[option.name]
        problem = str(error).rpartition(f"{option.name}: ")[2]
        logger.error("%s: %s; write %s", option.name, problem, _TYPES_IN_WORDS[option.type])
    except TypeError:  # its text is for programmers; and the value is not logged, because it may be a secret
        given = type(manager.deferred.pop(option.name)).__name__
        logger.error("%s: the value is a %s; write %s", option.name, given, _TYPES_IN_WORDS[option.type])
