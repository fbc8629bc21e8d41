"""What reaches a terminal: no control characters, aligned columns, an answer that is yes or no."""

import io
from collections.abc import Callable

import pytest

from mitmproxy_acme.cli import terminal


@pytest.mark.parametrize("print_line", [terminal.say, terminal.remark])
def test_no_line_moves_the_cursor(capsys: pytest.CaptureFixture[str], print_line: Callable[[str], None]) -> None:
    """Control characters become question marks, on both streams; letters of any script stay."""
    print_line("a\x1b[2Jb\r\n\x9bc\u202eé")
    said = capsys.readouterr()
    assert said.out + said.err == "a?[2Jb???c?é\n"


def test_document_is_one_line_of_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON escapes what a terminal would obey."""
    terminal.say_document({"host": "a\x1b[2J\nü"})
    assert capsys.readouterr().out == '{"host": "a\\u001b[2J\\n\\u00fc"}\n'


def test_table() -> None:
    """Columns are as wide as their widest cell, and lines have no blanks at their end."""
    lines = list(terminal.table(("host", "state", "names"), [("a.example.test", "valid", ""), ("b", "due", "c, d")]))
    assert lines == ["host            state  names", "a.example.test  valid", "b               due    c, d"]


@pytest.mark.parametrize(
    ("typed", "meant"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_only_yes_is_yes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, meant: bool
) -> None:
    """Anything else, the end of the input too, is no; the question goes to standard error."""
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    assert terminal.confirm("Revoke a\x1b[2J?") is meant
    assert capsys.readouterr() == ("", "Revoke a?[2J? [y/N] ")
