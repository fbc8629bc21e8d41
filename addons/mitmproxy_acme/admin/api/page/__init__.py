"""The files of the status page.

This module knows the files and their headers; it must not know what they show.
"""

import functools
from importlib import resources
from typing import Any

from ...context import AdminContext
from ..base_handler import BaseHandler

FILES = (
    ("/", "index.html"),
    *((f"/{name}", name) for name in ("page.css", "plots.css", "page.js", "api.js", "certificates.js", "details.js")),
    *((f"/{name}", name) for name in ("plots.js", "timeline.js", "words.js")),
)
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


class PageHandler(BaseHandler):
    """One file of the page. It reveals nothing and needs no token: the page fetches its data with the token."""

    public = always = True

    def initialize(self, context: AdminContext, name: str = "", **_: Any) -> None:
        super().initialize(context)
        self._name = name

    def get(self) -> None:
        self.set_header("Content-Type", f"{_TYPES[self._name.rpartition('.')[2]]}; charset=utf-8")
        self.finish(_read(self._name))


@functools.cache
def _read(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()
