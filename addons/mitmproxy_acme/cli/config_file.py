"""Options written as mitmproxy's ``config.yaml``.

This module knows YAML and what a reader of the file should know; it must not know how the options came about.
"""

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from ..config.options import NAMES

_START = "mitmproxy's config.yaml. It starts with: mitmproxy-acme run"
_TERMS = "Before that, read the CA's terms of service and add: acme_tos_accepted: true"
_COMMENTS = {
    "mode": "acme_upstreams decides where requests go; the upstream of a mode is not used",
    "block_global": "clients from the internet, and the CA, may connect",
    "onboarding": "no mitm.it page on a public edge",
    "acme_certificates": "held from the start",
    "acme_domains": "obtained when a client first asks for them",
    "acme_tos_accepted": "you have read the CA's terms of service",
    "acme_admin_listen": "the status page",
}


def config_file(settings: Mapping[str, Any]) -> str:
    """Return the file for options by name; empty lists and the confdir, which cannot be in it, are left out."""
    document = CommentedMap(
        (name, _value(name, value)) for name, value in settings.items() if value != [] and name != "confdir"
    )
    document.yaml_set_start_comment(_START if settings.get("acme_tos_accepted") else f"{_START}\n{_TERMS}")
    for name, comment in _COMMENTS.items():
        if name in document:
            document.yaml_set_comment_before_after_key(name, before=comment)
    written = io.StringIO()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 4_096  # mitmproxy would read a wrapped value, but people would not
    yaml.dump(document, written)
    return written.getvalue().rstrip()


def _value(name: str, value: Any) -> Any:
    """Return the value in the type of the option; those of mitmproxy's options that --set gave are texts."""
    return YAML(typ="safe", pure=True).load(value) if isinstance(value, str) and name not in NAMES else value
