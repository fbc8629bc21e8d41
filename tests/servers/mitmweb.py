"""mitmweb with the addon: mitmdump's ports, and mitmproxy's web interface with its commands, flows and events.

Knows mitmweb's API; must not import the addon.
"""

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.base import free_port
from tests.servers.binaries import Program
from tests.servers.mitmdump import Mitmdump, Option


class Mitmweb(Mitmdump):
    name = "mitmweb"

    def __init__(self, upstream: str, options: Mapping[str, Option], *, http_port: int | None = None) -> None:
        super().__init__(upstream, options, http_port=http_port)
        self.web_port = free_port()
        self._password = "for-tests-only"
        self.extra_arguments += ["--no-web-open-browser", "--web-host", "127.0.0.1", "--web-port", str(self.web_port)]
        self.extra_arguments += ["--set", f"web_password={self._password}"]

    def program(self) -> Program:
        return Program(str(Path(sys.executable).with_name("mitmweb")), {})

    def command(self, name: str, *arguments: str) -> Any:
        """Run a command as the command bar does; return its value, or ``{"error": …}`` as it is shown."""
        reply = self._call(f"/commands/{name}", {"arguments": arguments})
        return reply.get("value", reply)

    def change(self, **options: Option) -> tuple[int, str]:
        """Change options as the web interface does; return the status and the body."""
        try:
            return 200, self._send("/options", options, "PUT")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def flows(self) -> list[Any]:
        """What the flow list shows."""
        flows: list[Any] = self._call("/flows")
        return flows

    def events(self) -> list[str]:
        """The messages of the event log."""
        return [event["message"] for event in self._call("/events")]

    def _call(self, path: str, body: object = None) -> Any:
        return json.loads(self._send(path, body))

    def _send(self, path: str, body: object, method: str | None = None) -> str:
        """Return the body of the reply; raises ``urllib.error.HTTPError`` for another status than 200."""
        headers = {"Authorization": f"Bearer {self._password}", "Content-Type": "application/json"}
        headers |= {"Cookie": "_mitmproxy_xsrf=x", "X-XSRFToken": "x"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.web_port}{path}", data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as reply:
            return str(reply.read(), "utf-8")
