"""Pages in a browser, where there is one."""

import html
import re
import shutil
import subprocess

import pytest
from PIL import Image

from results import CASES, HOSTILE, page_of
from toys import CLASSES

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


def browse(folder, *options: str) -> str:
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={folder / 'profile'}",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [1200, 390])
def test_pages_show_in_a_browser(tmp_path, width):
    (tmp_path / "report.html").write_text(page_of("repair", [HOSTILE] * CLASSES), encoding="utf-8")
    shot = tmp_path / "shot.png"
    file = (tmp_path / "report.html").as_uri()
    browse(tmp_path, f"--screenshot={shot}", f"--window-size={width},2000", file)
    picture = Image.open(shot).convert("L")
    assert picture.size == (width, 2000)
    assert len(picture.getcolors()) > 50


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
@pytest.mark.parametrize("width", [1200, 390])
def test_pages_fit_a_screen_and_a_phone(tmp_path, width):
    """Every case in a frame of that width, details unfolded: what stands out at the right?"""
    names = ["W" * 40, "a longer name of a class", *map(str, range(2, 200))]
    files = [{"name": "x" * 200, "bytes": 10, "sha256": "ab" * 32, "modified": "2026-01-02T03:04Z"}]
    about = {"weights": "x" * 200, "notes": ["n" * 300], "command": "c" * 300}
    pages = [
        page_of(case, names, **about, files=files * (1 + i % 2)).replace(
            "<details", "<details open"
        )
        for i, case in enumerate(CASES)
    ]
    frames = [
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(p)}"></iframe>' for p in pages
    ]
    script = (
        "<script>onload = () => { document.title = 'widths ' + [...document.querySelectorAll("
        "'iframe')].map(f => f.contentDocument.documentElement.scrollWidth).join(' ') }</script>"
    )
    file = tmp_path / "frames.html"
    file.write_text("<!doctype html>" + "".join(frames) + script, encoding="utf-8")
    found = browse(tmp_path, "--dump-dom", "--virtual-time-budget=5000", file.as_uri())
    widths = re.search(r"<title>widths ([\d ]+)</title>", found)
    assert widths
    fits = [int(wide) <= width for wide in widths[1].split()]
    assert dict(zip(CASES, fits, strict=True)) == dict.fromkeys(CASES, True)
