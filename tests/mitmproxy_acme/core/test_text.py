"""Untrusted text on one line."""

import pytest

from mitmproxy_acme.core.text import one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("  a \t b\r\nc  ", "a b c"),
        ("a\x1b[2Jb\x07", "a?[2Jb?"),
        ("a\u2028b", "a b"),
        ("a\u202eb\ufeff", "a?b?"),
        ("äöü", "äöü"),
        ("x" * 501, "x" * 500),
        (" " * 1_999 + "x", "x"),
        (" " * 2_000 + "x", ""),
    ],
)
def test_text_is_one_printable_line_of_bounded_length(text: str, line: str) -> None:
    """White space is one space; of a text of megabytes only the beginning is looked at."""
    assert one_line(text) == line


def test_length_can_be_chosen() -> None:
    assert one_line("abcdef", 3) == "abc"
    assert one_line(" " * 11 + "abc", 3) == "a"
    assert one_line(" " * 12 + "abc", 3) == ""
