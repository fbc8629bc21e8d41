"""The OpenAPI document says what the API is: its routes, its documents, its bounds.

To accept a change of it: python -m tests.mitmproxy_acme.admin.api.test_openapi >docs/reference/openapi.json
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mitmproxy_acme.admin.api import handlers, openapi
from mitmproxy_acme.admin.api.schemas import EXAMPLE_CERTIFICATE, SCHEMAS
from mitmproxy_acme.admin.certificate_rows import CertificateDetails, CertificateRow
from mitmproxy_acme.admin.documents import certificate, describe_history
from mitmproxy_acme.admin.inventory import Inventory
from mitmproxy_acme.admin.metrics import Metrics
from mitmproxy_acme.admin.node_state import NodeStateReader
from mitmproxy_acme.admin.status import describe_status
from mitmproxy_acme.admin.traffic import TrafficHistory
from mitmproxy_acme.config.config import Config
from mitmproxy_acme.core.backoff import Backoff
from mitmproxy_acme.core.names import ServerName
from mitmproxy_acme.store.event_log import EventKind, LoggedEvent
from mitmproxy_acme.store.keys import EventId
from tests.mitmproxy_acme.conftest import MakeManager
from tests.mitmproxy_acme.fakes import EPOCH, Clock, make_certificate

PUBLISHED = Path(__file__).parents[4] / "docs" / "reference" / "openapi.json"
_METHODS = ("get", "post", "patch", "put", "delete")


def _violations(value: Any, schema: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Yield where ``value`` is not as ``schema`` has it; of JSON Schema as much as the document uses."""
    if "$ref" in schema:
        schema = SCHEMAS[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        if all(list(_violations(value, option, at)) for option in schema["anyOf"]):
            yield f"{at}: none of several"
        return
    kinds = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list, "null": type(None)}
    kinds["number"] = float
    named = schema.get("type", [])
    if named and type(value) not in [kinds[kind] for kind in ([named] if isinstance(named, str) else named)]:
        yield f"{at}: {value!r} is no {named}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    elif isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{at}: {value!r} is not as {schema['pattern']}"
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _violations(item, schema["items"], f"{at}[{number}]")
    elif isinstance(value, dict) and "properties" in schema:
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
        if set(value) != set(schema["properties"]):
            yield f"{at}: has {sorted(set(value) ^ set(schema['properties']))} too many or too few"
        for name in set(value) & set(schema["properties"]):
            yield from _violations(value[name], schema["properties"][name], f"{at}.{name}")


def test_document_has_every_route_with_its_methods() -> None:
    """And no other; a route's groups are the path's parameters, by position."""
    routes = {
        re.sub(r"\([^)]*\)", "{host}", path): {m for m in _METHODS if m in vars(resource)}
        for path, resource in handlers.ROUTES
    }
    paths = {
        path: {method for method in _METHODS if method in item}
        for path, item in openapi.document(token=True)["paths"].items()
    }
    assert paths == routes


def test_published_document_is_that_of_the_code() -> None:
    """Programs are written against it: a change of any status, field or bound is read there."""
    current = json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(openapi.document(token=True)))
    assert current, "run: python -m tests.mitmproxy_acme.admin.api.test_openapi >docs/reference/openapi.json"


@pytest.mark.parametrize("token", [True, False])
def test_document_holds_together(token: bool) -> None:
    """It is JSON, each reference leads somewhere, and each operation has an id of its own."""
    document = json.loads(json.dumps(openapi.document(token=token)))

    references = re.findall(r'"\$ref": "#/components/(\w+)/(\w+)"', json.dumps(document))
    assert [name for kind, name in references if name not in document["components"][kind]] == []
    ids = [item[method]["operationId"] for item in document["paths"].values() for method in _METHODS if method in item]
    assert len(ids) == len(set(ids)) == 13
    assert document["security"] == ([{"token": []}] if token else [{}])


def test_public_resources_are_said_to_be() -> None:
    """What needs no token says so, and nothing else does."""
    paths = openapi.document(token=True)["paths"]
    public = {path for path, item in paths.items() if item.get("get", {}).get("security") == [{}]}
    assert public == {path for path, resource in handlers.ROUTES if resource.public}


@pytest.mark.parametrize("key_type", ["readable", "unreadable"])
@pytest.mark.parametrize("failure", [None, Backoff(2, EPOCH + 60, "the CA said no")])
def test_certificate_document_is_as_its_schema(key_type: str, failure: Backoff | None) -> None:
    """Exactly its fields, of the types that it says, whether the record can be read or not."""
    config = Config.from_options({"acme_domains": ("**.example.test",), "acme_tos_accepted": True})
    facts = CertificateDetails.of(make_certificate(["a.example.test"]), EPOCH) if key_type == "readable" else None
    row = CertificateRow(ServerName("a.example.test"), facts, "" if facts else "the record is broken")

    document = certificate(row, config, EPOCH, failure)

    assert list(_violations(document, {"$ref": "/Certificate"})) == []


def test_example_is_as_its_schema() -> None:
    """What the document shows is what it says."""
    assert list(_violations(EXAMPLE_CERTIFICATE, {"$ref": "/Certificate"})) == []


async def test_status_is_as_its_schema(make_manager: MakeManager) -> None:
    """Exactly its fields, of the types that it says."""
    manager = make_manager()

    document = describe_status(await NodeStateReader(manager, Inventory(manager)).read())

    assert list(_violations(document, {"$ref": "/Status"})) == []


@pytest.mark.parametrize("has_all", [True, False])
def test_history_is_as_its_schema(has_all: bool) -> None:
    """Whether an event says everything, or no more than it must."""
    id = EventId(int(EPOCH * 1000), 0, "aa")
    event = LoggedEvent(id, EventKind.REMOVED, "a.example.test")
    if has_all:
        event = LoggedEvent(id, EventKind.FAILED, "a.example.test", "edge-1", "ca", 1.5, "no", EPOCH, 1, 2)
    assert list(_violations(describe_history([event]), {"$ref": "/History"})) == []


def test_traffic_is_as_its_schema() -> None:
    """Exactly its fields, of the types that it says."""
    assert list(_violations(TrafficHistory(Metrics(), Clock()).document(), {"$ref": "/Traffic"})) == []


if __name__ == "__main__":
    print(json.dumps(openapi.document(token=True), indent=1))
