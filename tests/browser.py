"""Where Chromium is, and how tests start it."""

import os
import shutil

import pytest

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/usr/bin/chromium",
    "/usr/lib/chromium/chromium",
    "/snap/bin/chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def browser_path() -> str:
    """Chromium: ``OFA_CHROMIUM``, or where it usually is; skips where there is none."""
    found = [
        path
        for path in map(shutil.which, filter(None, [os.environ.get("OFA_CHROMIUM"), *BROWSERS]))
        if path
    ]
    if not found:
        pytest.skip("no Chromium found: install it, or name it by OFA_CHROMIUM")
    return found[0]
