"""What is started, as another process reads it."""

import json

from mitmproxy_acme.mitm.launch import Launch, ServedSite, Tool


def test_launch_is_read_back_from_json() -> None:
    """All of it, as the worker processes get it."""
    site = ServedSite("https://a.test/", "http://127.0.0.1:1", "a.test", managed=True)
    launch = Launch(["-q"], Tool.WEB, ["acme_email=me@a.test"], [site], "serve")
    assert Launch.from_json(json.loads(json.dumps(launch.to_json()))) == launch
    assert Launch.from_json(Launch([]).to_json()) == Launch([], sites=[])
