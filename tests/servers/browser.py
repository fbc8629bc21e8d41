"""Chromium, driven by playwright, and everything that a page of it complained of.

Knows the browser's command line and its events; must not know any page.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, sync_playwright

from tests.servers.binaries import find, need

_TIMEOUT = 15_000  # milliseconds for whatever a test waits for
# Fonts that were unpacked, not installed: a machine without any shows boxes.
_FONTS = """<?xml version="1.0"?><fontconfig><dir>{fonts}</dir><cachedir>{cache}</cachedir></fontconfig>"""


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """Start the browser; without it the calling test is skipped. ``folder`` is for its font settings.

    Only one at a time, and nothing of asyncio beside it in this thread: playwright's own loop runs meanwhile.
    """
    need("chromium-headless-shell")
    program = find("chromium-headless-shell")
    environment: dict[str, str | float | bool] = {
        **os.environ,
        **program.environment,
        **_fonts(Path(program.path), folder),
    }
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program.path, args=arguments, env=environment)
        try:
            yield browser
        finally:
            browser.close()


def _fonts(program: Path, folder: Path) -> dict[str, str]:
    unpacked = [fonts for usr in program.parents if (fonts := usr / "share" / "fonts").is_dir()]
    if Path("/etc/fonts/fonts.conf").exists() or not unpacked:
        return {}
    settings = folder / "fonts.conf"
    settings.write_text(_FONTS.format(fonts=unpacked[0], cache=folder / "font-cache"))
    return {"FONTCONFIG_FILE": str(settings)}


class Tab:
    """One page in a context of its own; ``complaints`` is every error, warning, dialog and violation so far."""

    def __init__(
        self,
        browser: Browser,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
        motion: Literal["reduce", "no-preference"] = "reduce",
    ) -> None:
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion=motion
        )
        self._context.set_default_timeout(_TIMEOUT)
        self.page: Page = self._context.new_page()
        self.complaints: list[str] = []
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("dialog", self._asked)
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('CSP: ' + e.violatedDirective))"
        )

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _asked(self, dialog: Dialog) -> None:
        self.complaints.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    def complaints_but(self, expected: Sequence[str]) -> list[str]:
        """Return the complaints that contain none of these texts."""
        return [text for text in self.complaints if not any(part in text for part in expected)]

    def close(self) -> None:
        self._context.close()
