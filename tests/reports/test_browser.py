"""The report in a real browser: no errors, nothing fetched, no sideways scroll on a desk or on a phone."""

import json
import os
import re
import shutil
import subprocess

import pytest

from apportion.reports import write_report
from tests.reports.reinforced import cells, standing, write_arms, write_reinforced
from tests.reports.synthetic import TASKS, evaluate_all, selection, write_comparison, write_run
from tests.reports.test_kv import write_curve
from tests.reports.test_thinking import WIDE, write_thinking

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

# What is too faint to read by WCAG 2, and what the keyboard does not reach or reaches unseen.
PROBE = r"""
function faint(page, view) {
  const colour = (text) => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return [r, g, b, a]; };
  const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const style = (e) => view.getComputedStyle(e);
  const behind = (e) => e ? over(colour(style(e).backgroundColor), behind(e.parentElement)) : [255, 255, 255];
  const contrast = (e) => {
    const back = behind(e), [r, g, b, a] = colour(e.ownerSVGElement ? style(e).fill : style(e).color);
    const [one, two] = [light(over([r, g, b, a * style(e).opacity], back)), light(back)];
    return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
  };
  const large = (e) => parseFloat(style(e).fontSize) >= (style(e).fontWeight >= 700 ? 18.66 : 24);
  // Labels in coloured bands and bars choose their ink by the band, which lies beside them in the page and not around them.
  const spoken = [...page.querySelectorAll("main *")].filter((e) => e.checkVisibility() && e.getClientRects().length
    && !e.closest(".bar, .sr, title") && !/on-(light|dark)/.test(e.getAttribute("class"))
    && [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()));
  const poor = spoken.map((e) => [contrast(e), e]).filter(([ratio, e]) => ratio < (large(e) ? 3 : 4.5));
  return {
    spoken: spoken.length, dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    faint: poor.slice(0, 9).map(([ratio, e]) => `${ratio.toFixed(1)} in ${e.parentElement.className}: ${e.textContent}`),
  };
}
function reached(page, view) {
  const said = (found) => found.map((e) => e.outerHTML.slice(0, 90)).slice(0, 9);
  const all = [...page.querySelectorAll("a[href], summary, input, [tabindex]")].filter((e) => e.checkVisibility());
  const shown = (e) => (e.matches("input") ? e.nextElementSibling : e);
  const tables = [...page.querySelectorAll("table")].map((e) => e.parentElement).filter((e) => e.checkVisibility());
  return {
    reachable: all.length,
    numb: said(all.filter((e) => { e.focus(); return page.activeElement !== e || e.tabIndex > 0; })),
    dull: said(all.filter((e) => { e.focus(); return view.getComputedStyle(shown(e)).outlineStyle === "none"; })),
    shut: said(tables.filter((e) => e.tabIndex !== 0 || e.getAttribute("role") !== "region" || !e.ariaLabel)),
  };
}
"""

# The report stands in a frame of the width asked for, since a window cannot be as narrow as a phone. Nothing may be waited
# for between the frame and the script that listens to it: the frame would have loaded unheard.
FRAME = """<!doctype html><body style="margin:0"><script src="probe.js"></script>
<iframe src="report.html" style="width:%dpx;height:900px;border:0"></iframe>
<pre id="seen"></pre><script>
const frame = document.querySelector("iframe");
const tables_of = (page) => [...page.querySelectorAll(".scroll")].filter((e) => e.getClientRects().length);
frame.onload = () => {
  const page = frame.contentDocument, view = frame.contentWindow;
  const wide = [...page.querySelectorAll("main *")]
    .filter((e) => e.getBoundingClientRect().right > view.innerWidth + 1 && !e.closest(".scroll, pre, svg, .sr"))
    .map((e) => e.outerHTML.slice(0, 90));
  const small = [...page.querySelectorAll("svg.chart text")].filter((e) => e.getClientRects().length)
    .map((e) => parseFloat(view.getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a);
  const chart = page.querySelector("svg[data-hover]"), box = chart.getBoundingClientRect();
  const last = JSON.parse(chart.dataset.hover).series.at(-1).points.at(-1)[0] / chart.viewBox.baseVal.width;
  chart.dispatchEvent(new view.PointerEvent("pointermove", {clientX: box.left + box.width * last, clientY: box.top + 50}));
  const names = [...page.querySelectorAll("#front text.name")].map((e) => [e.textContent, e.getBoundingClientRect()]);
  const over = ([, a], [, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const drawing = page.querySelector("#front svg.chart")?.getBoundingClientRect();
  const tables = tables_of(page);
  const cued = (e) => e.previousElementSibling?.matches(".cue") && e.previousElementSibling.getClientRects().length > 0;
  const seen = {
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
  };
  for (const fold of page.querySelectorAll("details")) fold.open = true;
  Object.assign(seen, faint(page, view), reached(page, view));
  document.querySelector("#seen").textContent = JSON.stringify(seen);
};
</script></body>"""


def browser():
    """The browser; without one a test fails where it must have one, and is skipped elsewhere."""
    if BROWSER is None:
        if os.environ.get("CI") == "true":
            pytest.fail("There is no chromium to open the report in.")
        pytest.skip("there is no chromium on this machine")
    return BROWSER


THINKING = ("thinking", "reinforced", "arms")


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    browser()
    root = tmp_path_factory.mktemp("pages")
    write_comparison(root / "comparison")
    write_comparison(root / "many", arms=MANY, seeds=(0,), records=20)
    write_run(root / "single", "adapt")
    arms, goals = ("uniform", "upsample", "adapt"), {"legal": 4.0, "medical": 1.0}
    write_comparison(root / "targets", arms=arms, targets=goals, selection=selection(TASKS))
    evaluate_all(write_comparison(root / "downstream", seeds=(0, 1), records=20))
    write_curve(root / "downstream" / "adapt" / "seed-0")
    tasks = [f"task-{i}" for i in range(100)]
    for arm in range(10):
        for seed in range(5):
            name = f"adapt-{arm}" if arm else "uniform"
            write_run(root / "large" / name / f"seed-{seed}", name, seed, tasks=tasks, records=20, plain=not arm)
    evaluate_all(root / "large")
    write_run(root / "thinking", "adapt", records=10)
    crossed = [dict(c, name=n, kv=n) for n in ("quest", "64 tokens") for c in cells("x", standing(0.3, budgets=WIDE))]
    write_thinking(root / "thinking", crossed)
    write_reinforced(root / "reinforced")
    write_arms(root / "arms", steps=20)
    for name in ("comparison", "many", "single", "targets", "downstream", "large", *THINKING):
        write_report(root / name)
    (root / "several").mkdir()
    write_report([root / name for name in ("downstream", "targets", "comparison")], root / "several" / "report.html")
    return root


def opened(folder, width, profile, dark=False):
    (folder / "frame.html").write_text(FRAME % width)
    (folder / "probe.js").write_text(PROBE)
    command = [
        BROWSER,
        *FLAGS,
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
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


NEW = ("downstream", "several", "large")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", NEW)
def test_what_was_added_fits_as_the_rest_does(pages, tmp_path, name, width):
    seen, console = opened(pages / name, width, tmp_path / "profile")
    assert console == [] and seen["fetched"] == 0
    assert seen["inner"] == width and seen["scroll"] <= width and seen["wide"] == []
    assert seen["smallest"] >= 8.5
    assert seen["uncued"] == seen["needless"] == seen["cut"] == []
    first = "c1-" if name == "several" else ""
    added = {f"{first}{section}" for section in ("gains", "downstream", "samples", "runs")}
    assert added <= set(seen["sections"])
    assert (f"{first}kv" in seen["sections"]) == (name != "large")
    assert seen["panels"].count("grid") == (3 if name == "several" else 1)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", THINKING)
def test_answers_against_thinking_fit_and_can_be_reached(pages, tmp_path, name, width):
    seen, console = opened(pages / name, width, tmp_path / "profile")
    assert console == [] and seen["fetched"] == 0
    assert seen["inner"] == width and seen["scroll"] <= width and seen["wide"] == []
    assert seen["smallest"] >= 8.5
    assert seen["uncued"] == seen["needless"] == seen["cut"] == []
    of_rl = {"asked", "answers", "training", "rollouts", "ledger", "runs", "recipes"}
    assert ({"thinking"} if name == "thinking" else of_rl) <= set(seen["sections"])
    assert seen["numb"] == seen["dull"] == seen["shut"] == []
    # The budget stands under the pointer, beside the accuracy.
    assert seen["shown"] == "block" and (name == "thinking" or re.search(r"0\.\d{3} .*(budget|no limit)", seen["tip"]))


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", ["targets", *NEW, *THINKING[1:]])
def test_all_text_stands_out_from_what_is_behind_it(pages, tmp_path, name, dark):
    seen, _ = opened(pages / name, 1280, tmp_path / "profile", dark)
    assert seen["dark"] is dark and seen["spoken"] > 300
    assert seen["faint"] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["targets", *NEW])
def test_the_keyboard_reaches_links_folds_choices_and_tables(pages, tmp_path, name, width):
    seen, _ = opened(pages / name, width, tmp_path / "profile")
    assert seen["reachable"] > 60
    assert seen["numb"] == seen["dull"] == seen["shut"] == []


def test_fifty_runs_of_a_hundred_tasks_stay_below_two_megabytes(pages):
    assert (pages / "large" / "report.html").stat().st_size < 2_000_000
