"""What mkdocs does beside mkdocs.yml: files above docs/ become part of the site, and links to them work.

A page links to ../SECURITY.md, which is right where the repository is browsed. In the site docs/ is the top: the file
is put there, and the link loses one step. mkdocs imports this module; it must not know what any page says.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

_TOP = Path(__file__).resolve().parent.parent
_PAGES = ("SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")
_LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages beside README.md, and the examples as files to download."""
    examples = (path for path in sorted((_TOP / "examples").rglob("*")) if path.is_file() and path.suffix != ".pyc")
    for path in (*(_TOP / name for name in _PAGES), *examples):
        files.append(File.generated(config, path.relative_to(_TOP).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that leave docs/, and those that enter it from above, at the same file in the site."""
    source = page.file.src_uri
    above = source in _PAGES
    prefix = "../" * (source.count("/") + 1)

    def moved(link: re.Match[str]) -> str:
        if above:
            return link[0].removeprefix("docs/")
        return link[0].removeprefix("../") if link[0].startswith(prefix) else link[0]

    return _LINK.sub(moved, markdown)
