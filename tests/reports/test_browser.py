"""The report in a real browser: no errors, nothing fetched, no sideways scroll on a desk or on a phone."""

import json
import os
import re
import shutil
import subprocess

import pytest

from apportion.reports import write_report
from tests.reports.synthetic import TASKS, selection, write_comparison, write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--virtual-time-budget=3000",
    "--window-size=1320,900",
    "--dump-dom",
]

# Twelve arms, six of which end alike and cost alike, so that their marks lie on each other.
MANY = ("uniform", "proportional", "temperature", "adapt", "loss", "random-20")
MANY += ("upsample", "probes", "progress", "adapt-paper", "fixed", "a-name-of-18-chars")

# The report stands in a frame of the width asked for, since a window cannot be as narrow as a phone.
FRAME = """<!doctype html><body style="margin:0"><iframe src="report.html" style="width:%dpx;height:900px;border:0"></iframe>
<pre id="seen"></pre><script>
const frame = document.querySelector("iframe");
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const wide = [...page.querySelectorAll("main *")]
    .filter((e) => e.getBoundingClientRect().right > view.innerWidth + 1 && !e.closest(".scroll, pre, svg, .sr"))
    .map((e) => e.outerHTML.slice(0, 90));
  const small = [...page.querySelectorAll("svg.chart text")].filter((e) => e.getClientRects().length)
    .map((e) => parseFloat(view.getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a);
  const chart = page.querySelector("svg[data-hover]"), box = chart.getBoundingClientRect();
  chart.dispatchEvent(new view.PointerEvent("pointermove", {clientX: box.left + box.width * 0.7, clientY: box.top + 50}));
  const names = [...page.querySelectorAll("#front text.name")].map((e) => [e.textContent, e.getBoundingClientRect()]);
  const over = ([, a], [, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const drawing = page.querySelector("#front svg.chart")?.getBoundingClientRect();
  const tables = [...page.querySelectorAll(".scroll")].filter((e) => e.getClientRects().length);
  const cued = (e) => e.previousElementSibling?.matches(".cue") && e.previousElementSibling.getClientRects().length > 0;
  document.querySelector("#seen").textContent = JSON.stringify({
    scroll: page.documentElement.scrollWidth, inner: view.innerWidth, wide, smallest: Math.min(...small),
    named: names.length, out: names.filter(([, a]) => a.left < drawing.left || a.right > drawing.right).map(([n]) => n),
    overlaps: names.flatMap((a, i) => names.slice(0, i).filter((b) => over(a, b)).map((b) => `${a[0]} and ${b[0]}`)),
    tip: page.querySelector("#tip").innerText, shown: getComputedStyle(page.querySelector("#tip")).display,
    panels: [...page.querySelectorAll(".panel")].map((e) => getComputedStyle(e).display),
    sections: [...page.querySelectorAll("section")].filter((e) => e.getBoundingClientRect().height > 40).map((e) => e.id),
    uncued: tables.filter((e) => e.scrollWidth > e.clientWidth + 1 && !cued(e)).map((e) => e.ariaLabel),
    needless: tables.filter((e) => e.scrollWidth <= e.clientWidth + 1 && cued(e)).map((e) => e.ariaLabel),
    cut: tables.filter((e) => e.scrollHeight > e.clientHeight + 20).map((e) => e.ariaLabel),
    names: [...page.querySelectorAll("#methods tbody tr:first-child td")]
      .filter((e) => e.getBoundingClientRect().right <= view.innerWidth).length,
    rows: [...page.querySelectorAll("#tokens tbody tr")].filter((e) => e.getClientRects().length).length,
    fetched: view.performance.getEntriesByType("resource").length,
  });
};
</script></body>"""


def browser():
    """The browser; without one a test fails where it must have one, and is skipped elsewhere."""
    if BROWSER is None:
        if os.environ.get("CI") == "true":
            pytest.fail("There is no chromium to open the report in.")
        pytest.skip("there is no chromium on this machine")
    return BROWSER


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    browser()
    root = tmp_path_factory.mktemp("pages")
    write_comparison(root / "comparison")
    write_comparison(root / "many", arms=MANY, seeds=(0,), records=20)
    write_run(root / "single", "adapt")
    arms, goals = ("uniform", "upsample", "adapt"), {"legal": 4.0, "medical": 1.0}
    write_comparison(root / "targets", arms=arms, targets=goals, selection=selection(TASKS))
    for name in ("comparison", "many", "single", "targets"):
        write_report(root / name)
    return root


def opened(folder, width, profile):
    (folder / "frame.html").write_text(FRAME % width)
    command = [
        BROWSER,
        *FLAGS,
        f"--user-data-dir={profile}",
        "--enable-logging=stderr",
        (folder / "frame.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    found = re.search(r'<pre id="seen">(\{.*?\})</pre>', done.stdout, re.S)
    assert found, f"the page did not load: {done.stdout[:500]} {done.stderr[-500:]}"
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")), console


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["comparison", "many", "single", "targets"])
def test_the_page_fits_and_works(pages, tmp_path, name, width):
    seen, console = opened(pages / name, width, tmp_path / "profile")
    assert console == []
    assert seen["inner"] == width
    assert seen["scroll"] <= width and seen["wide"] == []
    assert seen["smallest"] >= 8.5, "text in a chart is too small to read"
    assert {"asked", "methods", "curves", "mixture", "tokens", "tasks", "ledger", "findings", "recipes"} <= set(
        seen["sections"]
    )
    assert sorted(seen["panels"]) == ["grid", "none", "none"] + ["none", "none"] * (name == "targets")
    assert all((section in seen["sections"]) == (name == "targets") for section in ("targets", "selection"))
    assert ("front" in seen["sections"]) == (name != "single")
    assert seen["shown"] == "block" and "adapt" in seen["tip"]
    assert seen["fetched"] == 0


@pytest.mark.parametrize("width", [1280, 390])
def test_twelve_arms_have_their_names_apart_at_the_front(pages, tmp_path, width):
    seen, _ = opened(pages / "many", width, tmp_path / "profile")
    assert seen["named"] == len(MANY) and seen["overlaps"] == seen["out"] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["comparison", "many", "single", "targets"])
def test_no_column_and_no_row_is_hidden_without_a_cue(pages, tmp_path, name, width):
    seen, _ = opened(pages / name, width, tmp_path / "profile")
    assert seen["uncued"] == seen["needless"] == seen["cut"] == []
    assert seen["names"] == (6 if name == "single" else 8), "a number of the methods table lies outside the page"
    assert seen["rows"] == 20
