"""No name from outside gets through a page as markup, and a browser finds nothing in it to load or to run."""

from __future__ import annotations

import dataclasses
import http.server
import re
import shutil
import subprocess
import threading
from collections import Counter

import pytest
from report_pages import Elements, about, make_data
from reports import make_finding, make_histogram

from bre.inputs import open_dataset
from bre.report import ClassRow

EVIL = "http://evil.test/x"
NASTY = (
    f"<script>console.error(1)</script><img src={EVIL} onerror=alert(1)>",
    f'"><link rel=stylesheet href={EVIL}><style>*{{background:url({EVIL})}}</style>',
    "' onmouseover='alert(1) {{ 7 * 7 }} {% raw %}",
    "\x1b]0;x\x07\u202e\udcff</style></title></iframe>",
)


@pytest.fixture
def data():
    return make_data()


# ---- nothing from outside gets through


def nasty(data):
    report = about(data)
    finding = make_finding(histogram=make_histogram())
    return dataclasses.replace(
        report,
        dataset=dataclasses.replace(report.dataset, class_names=NASTY, source=NASTY[0]),
        classes=tuple(ClassRow(k, name, 5, True, 1 + k, None, 0.5, note=name) for k, name in enumerate(NASTY)),
        versions={NASTY[1]: NASTY[2]},
        backend=NASTY[3],
        cost=dataclasses.replace(report.cost, seconds={NASTY[1]: 1.0}),
        findings=(finding,),
    )


@pytest.fixture
def nasty_page(data, monkeypatch):
    dataset = open_dataset(data)
    monkeypatch.setattr(dataset, "describe", lambda index: NASTY[index % 2])
    return nasty(data).page(dataset)


def test_names_from_outside_stay_text(data, nasty_page):
    nice, page = Elements(about(data).page(data)), Elements(nasty_page)
    ours = {"html", "head", "meta", "title", "link", "style", "body", "img"} | {tag for tag, _ in nice.found}
    assert {tag for tag, _ in page.found} <= ours | {"tr", "th", "td", "dt", "dd"}
    assert not page.all("script")
    assert len(page.all("link")) == len(page.all("style")) == 1
    for tag, attrs in page.found:
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        for name in ("src", "href", "srcset", "action"):
            assert attrs.get(name, "data:").startswith("data:")
    assert not set("\x1b\x07\u202e\udcff") & set(nasty_page)
    assert "{{ 7 * 7 }}" in nasty_page.replace("&#39;", "'")
    nasty_page.encode("utf-8")


def test_one_element_per_image_even_so(data, nasty_page):
    counts = [Counter(tag for tag, _ in Elements(page).found) for page in (about(data).page(data), nasty_page)]
    assert counts[0]["img"] == counts[1]["img"]


# ---- in a browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    *("--virtual-time-budget=2000", "--dump-dom"),
]
BROWSERS_OWN = re.compile(r"(http://)?([\w-]+\.)*(google|googleapis|gvt1)\.com\b")


def visit(page, profile):
    """(URLs asked for, console lines, the DOM) of a page in Chromium, which reaches nothing but this function."""
    asked = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            known = self.path == "http://report.test/"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode() if known else b"")

        def do_CONNECT(self):
            asked.append(self.path)
            self.send_error(502)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            proxy = [f"--proxy-server=127.0.0.1:{server.server_port}", "--proxy-bypass-list=<-loopback>"]
            command = [CHROMIUM, *FLAGS, *proxy, f"--user-data-dir={profile}", "http://report.test/"]
            done = subprocess.run(command, capture_output=True, timeout=120)
        finally:
            server.shutdown()
    console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return [url for url in asked if not BROWSERS_OWN.match(url)], console, done.stdout.decode()


@needs_chromium
def test_a_browser_asks_for_nothing_and_complains_of_nothing(data, nasty_page, tmp_path):
    for number, page in enumerate((about(data).page(data), nasty_page)):
        asked, console, dom = visit(page, tmp_path / str(number))
        assert asked == ["http://report.test/"]
        assert console == []
        assert Counter(tag for tag, _ in Elements(dom).found)["img"] == 10


@needs_chromium
def test_the_test_above_would_notice(data, tmp_path):
    bad = f"<img src={EVIL}><script>console.error('seen')</script>"
    asked, console, _ = visit(bad, tmp_path / "1")
    assert EVIL in asked
    assert any("seen" in line for line in console)
    asked, console, _ = visit(about(data).page(data).replace("</main>", bad), tmp_path / "2")  # even then: the policy
    assert asked == ["http://report.test/"]
    assert any("Content Security Policy" in line for line in console)
