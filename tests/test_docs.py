"""The documentation says what the code does: links, options, command lines, calls, events, files.

``tests/end_to_end/test_docs.py`` runs its commands. The tables of options and metrics are compared with the code beside
the tests of those.
"""

import ast
import dataclasses
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
from cryptography.fernet import Fernet
from mitmproxy.proxy.mode_specs import ProxyMode
from ruamel.yaml import YAML

import hatch_build
import mitmproxy_acme
from mitmproxy_acme.admin.api import openapi, schemas
from mitmproxy_acme.ca.known_cas import ALIASES
from mitmproxy_acme.cli import main as main_module
from mitmproxy_acme.cli.commands import run
from mitmproxy_acme.cli.main import COMMANDS, main
from mitmproxy_acme.cli.mitmproxy_options import read_settings
from mitmproxy_acme.cli.serve_settings import serve_settings
from mitmproxy_acme.config.config import CHALLENGES, Config

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
CONFIGS = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if not path.stem.endswith(".compose"))
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def blocks(kind: str) -> Iterator[tuple[str, str]]:
    """Yield the fenced blocks of this kind, each with its page's name."""
    for path in PAGES:
        for found, text in _BLOCK.findall(path.read_text()):
            if found == kind:
                yield str(path.relative_to(ROOT)), text


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Yield the words of each command in the pages, with its page's name."""
    for name, text in [*blocks("sh"), *blocks("console")]:
        if "<<" in text:
            text = text.partition("<<")[0]
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield name, words


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables that begins with code."""
    for line in text.splitlines():
        if line.startswith(("| `", "| [`")):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# Pages


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Each relative link names a file, and each anchor a heading of it."""
    text = _INLINE.sub("", _BLOCK.sub("", path.read_text()))
    broken = []
    for link in _LINK.findall(text):
        if link.startswith(("http://", "https://")):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def anchors(path: Path) -> list[str]:
    """Return the anchors of the headings, as forges make them; of the plain headings that we write, mkdocs' too."""
    headings = re.findall(r"^#+ (.*)$", _BLOCK.sub("", path.read_text()), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_readme_on_a_package_index_has_no_relative_link() -> None:
    """There they would lead nowhere; with the repository's URL they are absolute."""
    text = (ROOT / "README.md").read_text()
    assert [link for link in _LINK.findall(text) if not link.startswith("https://")]
    alone = hatch_build.without_relative_links(text, "")
    assert [link for link in _LINK.findall(alone) if not link.startswith("https://")] == []
    assert "(`docs/how-to/deploy.md`)" in alone
    linked = hatch_build.without_relative_links(text, "https://forge.example/project/")
    assert "](https://forge.example/project/blob/HEAD/docs/how-to/deploy.md)" in linked


def test_files_that_contributors_are_told_of_exist() -> None:
    names = re.findall(
        r"`((?:addons|storage|tests|scripts|docs|examples)/[\w/.-]+)`", (ROOT / "CONTRIBUTING.md").read_text()
    )
    assert len(names) > 30
    assert [name for name in names if not (ROOT / name).exists()] == []


# Options


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A file for whatever secret the documentation names by its path."""
    path = tmp_path / "secret.key"
    path.write_text(Fernet.generate_key().decode())
    return path


def checked(settings: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> Config:
    """Read options as the addon does, with a secret in each variable that they refer to."""
    ours = {name: value for name, value in settings.items() if name.startswith("acme_")}
    for name in re.findall(r"env:([A-Z_]+)", str(ours)):
        monkeypatch.setenv(name, Fernet.generate_key().decode())
    for mode in settings.get("mode", ()):  # type: ignore[attr-defined]  # a list in every configuration
        ProxyMode.parse(mode)
    return Config.from_options(ours)


def at_home(text: str, key: Path) -> str:
    """Put files of this machine in the place of those that are named."""
    text = re.sub(r"(?<=;ca_bundle=)[^;\s]+", certifi.where(), text)
    text = re.sub(r"(?<=acme_deploy_hook: )\S+", sys.executable, text)
    return re.sub(r"(?<==)file:/[\w/.-]+key(?=\s|$|')", f"file:{key}", text)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in blocks("yaml")])
def test_configuration_in_a_page_is_right(
    text: str, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.yaml").write_text(at_home(text, key))
    checked(read_settings(tmp_path, []), monkeypatch)


def test_pages_say_the_same_as_the_examples(tmp_path: Path) -> None:
    """So what is tested of the examples holds for the pages, and the first deployment is one in all of them."""

    def settings(name: str, number: int = 0) -> dict[str, object]:
        text = (ROOT / name).read_text()
        if name.endswith(".md"):
            text = [body for kind, body in _BLOCK.findall(text) if kind == "yaml"][number]
        return dict(YAML(typ="safe", pure=True).load(text))

    first = "mitmproxy-acme serve www.example.com --to 127.0.0.1:8000"
    assert all(first in page(name) for name in ("../README.md", "tutorial/first-certificate.md", "how-to/deploy.md"))
    redis, vault = settings("examples/redis-cluster.yaml"), settings("examples/vault-approle.yaml")
    assert settings("docs/tutorial/cluster.md").items() <= redis.items()
    assert settings("docs/how-to/redis.md").items() <= redis.items()
    assert settings("docs/how-to/vault.md").items() <= vault.items()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.name))
def test_example_is_right(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(path.read_text())
    assert checked(read_settings(tmp_path, []), monkeypatch).active


def served(words: list[str], confdir: Path, given: list[str]) -> dict[str, object]:
    """Return the options that a line with ``serve`` means."""
    meant = serve_settings(run.parse(main_module._parser(), words[1:]), {})
    return meant.defaults | meant.chosen | read_settings(confdir, given) | {"acme_tos_accepted": True}


def test_options_on_command_lines_are_right(key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 0
    for _, words in command_lines():
        given = [at_home(word, key) for before, word in itertools.pairwise(words) if before == "--set"]
        modes = [word for before, word in itertools.pairwise(words) if before == "--mode"]
        if words[:2] == ["mitmproxy-acme", "serve"]:
            checked(served(words, tmp_path, given), monkeypatch)
        elif given or modes:
            checked(read_settings(tmp_path, given) | {"mode": modes}, monkeypatch)
            count += 1
    assert count > 5


def test_reference_has_each_challenge_and_each_known_ca() -> None:
    challenges, _, cas = page("reference/challenges.md").partition("\n## Known CAs\n")
    assert [code(row[0]) for row in rows(challenges)] == [[name] for name in CHALLENGES]
    assert [code(row[0]) for row in rows(cas)] == [[alias] for alias in ALIASES]


# The command line


def test_commands_in_the_pages_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their arguments are ones that the command takes."""
    for command in COMMANDS.values():
        monkeypatch.setattr(command, "run", lambda _: 0)
    named = set()
    for name, words in command_lines():
        if words[0] == "mitmproxy-acme" and not words[1].isupper():
            assert main(words[1:]) == 0, (name, words)
            named.add(words[1])
    assert named >= COMMANDS.keys() - {"completion", "rotate-storage-key"}  # within other commands, or in a sentence


@pytest.mark.parametrize("name", COMMANDS)
def test_reference_has_each_flag_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In the command's own section, and no flag that it does not take."""
    text = page("reference/cli.md")
    general, _, _ = text.partition("\n## Exit codes")
    section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    with pytest.raises(SystemExit):
        main([name, "--help"])
    help = capsys.readouterr().out
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", help)) - {"--help", "--set", "--confdir"}
    told = " ".join(code(_BLOCK.sub("", section)))
    assert flags - set(re.findall(r"--[a-z-]+", told)) == set()
    of_mitmdump = {"--mode"}
    assert set(re.findall(r"--[a-z][a-z-]*", told)) - flags - of_mitmdump == set()
    assert f"[`{name}`](#{name})" in general
    for choices in re.findall(r"\{([a-zA-Z,0-9]+)\}", help):
        assert set(choices.split(",")) - set(re.findall(r"\w+", told)) == set()


# The admin API


def test_reference_has_each_call_of_the_api() -> None:
    operations = {
        (method.upper(), path)
        for path, item in openapi.document(token=True)["paths"].items()
        for method in item
        if method != "parameters"
    }
    calls = {tuple(code(first)[0].partition("?")[0].split()) for first, *_ in rows(page("reference/admin-api.md"))}
    assert {call for call in calls if call[0] in {"GET", "POST", "PATCH", "DELETE"}} == operations | {("GET", "/")}


@pytest.mark.parametrize("what", ["certificate", "event"])
def test_reference_has_each_field_of_a_document(what: str) -> None:
    section = page("reference/admin-api.md").partition(f"\n## The {what} document\n")[2].partition("\n## ")[0]
    fields = [name for first, *_ in rows(section) for name in code(first)]
    assert sorted(fields) == sorted(schemas.SCHEMAS[what.capitalize()]["properties"])


def test_calls_by_curl_are_ones_of_the_api() -> None:
    paths = [re.sub(r"\\{host\\}", "[^/]+", re.escape(path)) for path in openapi.document(token=True)["paths"]]
    for _, words in command_lines():
        for word in words:
            if call := re.fullmatch(r"http://(?:127\.0\.0\.1:8008|localhost)(/[^?]*).*", word):
                assert any(re.fullmatch(path, call[1]) for path in paths), word


# Storage


def test_reference_has_each_prefix_of_a_storage_key() -> None:
    table = page("reference/storage-urls.md").partition("\n## What is stored\n")[2]
    source = (ROOT / "addons" / "mitmproxy_acme" / "store" / "keys.py").read_text()
    prefixes = {*re.findall(r'"([a-z-]+/)', source), "probes/"}  # of self-tests, which write it themselves
    assert {name for first, *_ in rows(table) for name in code(first)} == prefixes


def test_rights_of_a_data_node_are_told_of_each_prefix() -> None:
    told = re.findall(r"`([a-z-]+/)`", page("how-to/data-nodes.md"))
    stored = re.findall(r"`([a-z-]+/)`", page("reference/storage-urls.md"))
    assert sorted(told) == sorted(stored)


# Events


def test_reference_has_each_event_of_the_log() -> None:
    """Those that the code names where it logs, and no other."""
    documented = {
        name
        for first, *_ in rows(page("reference/log-events.md").partition("\n## Events\n")[2])
        for name in code(first)
    }
    texts, logged = set(), set()
    for path in (ROOT / "addons" / "mitmproxy_acme").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func).endswith("fields"):
                logged |= strings(node.args[0])
            texts |= strings(node)
    assert logged
    assert logged - documented == set()
    assert documented - texts == set()


def strings(node: ast.AST) -> set[str]:
    """Return the text that a node is, or, of a choice between two, both."""
    if isinstance(node, ast.IfExp):
        return strings(node.body) | strings(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


@pytest.mark.parametrize("word", ["obtained", "failed", "expiring", "removed"])
def test_reference_has_each_field_of_an_event(word: str) -> None:
    event = getattr(mitmproxy_acme, f"Certificate{word.capitalize()}")
    row = next(
        row for row in rows(page("reference/commands-and-events.md")) if code(row[0]) == [f"acme_certificate_{word}"]
    )
    fields = {field.name for field in dataclasses.fields(event)}
    assert {name for name in code(row[2]) if name in fields} == fields
    assert [name for name in code(row[2]) if name not in fields] == []


def test_reference_has_each_command_of_the_command_bar() -> None:
    source = (ROOT / "addons" / "mitmproxy_acme" / "mitm" / "command_bar.py").read_text()
    commands = set(re.findall(r'command\("(acme\.[\w.]+)"\)', source))
    assert set(re.findall(r"`(acme\.[a-z.]+)", page("reference/commands-and-events.md"))) == commands


def test_quick_tests_are_there() -> None:
    """``scripts/test --quick`` names files, which may be renamed."""
    quick = (ROOT / "scripts" / "test").read_text(encoding="utf-8").partition("quick=yes")[2].partition("export")[0]
    listed = subprocess.run(
        ["bash", "-c", f"quick() {{ {quick[quick.index('set --') :].strip()}; printf '%s\\n' \"$@\"; }}; quick"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout.split()
    paths = [path.partition("::")[0] for path in listed if path.startswith("tests/")]
    assert len(paths) > 3
    assert [path for path in paths if not (ROOT / path).exists()] == []
