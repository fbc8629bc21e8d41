"""The admin API as a person calls it: with the real curl."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end.conftest import Ca, StartProxy
from tests.servers.base import free_port
from tests.servers.mitmdump import Mitmdump, Option

TOKEN = "a-token-that-is-hard-to-guess"


@dataclass(frozen=True)
class Answer:
    """What curl got: a status, the header lines as they came, and the body."""

    status: int
    headers: str
    text: str

    @property
    def document(self) -> Any:
        return json.loads(self.text)

    @property
    def message(self) -> str:
        return str(self.document["message"])


def curl(*arguments: str, timeout: float = 60) -> Answer:
    """Call the real curl; any status will do, but an answer must come."""
    command = ["curl", "-q", "-sS", "-i", "--noproxy", "*", "--max-time", str(timeout), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout + 5, check=True)
    head, _, body = done.stdout.partition("\n\n")
    while head.startswith("HTTP/1.1 100"):
        head, _, body = body.partition("\n\n")
    return Answer(int(head.split()[1]), head, body)


@dataclass(frozen=True)
class Api:
    """The admin API of one proxy. Calls carry the token, unless ``token`` is empty."""

    port: int
    token: str = TOKEN

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __call__(self, method: str, path: str, *arguments: str, json_body: object = None) -> Answer:
        words = [*arguments, "-H", f"Authorization: Bearer {self.token}"] if self.token else list(arguments)
        if json_body is not None:
            words += ["-H", "Content-Type: application/json", "-d", json.dumps(json_body)]
        how = ["-I"] if method == "HEAD" else ["-X", method]
        return curl(*how, *words, self.url + path)

    def create(self, host: str, **fields: object) -> Answer:
        return self("POST", "/acme", json_body={"host": host, **fields})

    def show(self, host: str) -> Any:
        """Return the certificate's document; it must be there."""
        answer = self("GET", f"/acme/certificates/{host}")
        assert answer.status == 200, answer
        return answer.document["data"]


def with_api(
    proxy: StartProxy,
    *,
    token: str = TOKEN,
    ca: Ca | None = None,
    storage: Path | None = None,
    start: bool = True,
    **options: Option,
) -> tuple[Mitmdump, Api]:
    """Make a proxy that has the admin API, and start it."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    running = proxy(
        ca=ca,
        storage=storage,
        start=False,
        http_port=None,
        https_port=None,
        dns_port=None,
        acme_admin_listen=address,
        **options,
    )
    if token:
        running.environment["ADMIN_TOKEN"] = token
        running.options["acme_admin_token"] = "env:ADMIN_TOKEN"
    if start:
        running.start()
    return running, Api(port, token)
