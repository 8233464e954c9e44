"""Make ``docs/report.png``, the picture in the README, from a report.

python docs/picture.py batchlab-results/advise-digits/report.html docs/report.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

SWITCHES = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Take a picture of the first screen."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--browser", default="/usr/bin/chromium")
    options = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.browser, args=list(SWITCHES))
        page = browser.new_page(
            locale=options.language,
            viewport={"width": 1120, "height": 900},
            device_scale_factor=1.5,
        )
        page.goto(options.report.resolve().as_uri())
        page.wait_for_timeout(1000)
        page.locator("main#first").screenshot(path=options.picture)
        browser.close()


if __name__ == "__main__":
    main()
