"""What a notebook shows: well-formed, complete in itself, escaped, with the numbers of the run folders."""

import json
import re
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from apportion._errors import ApportionError
from apportion.plans.compare import Comparison
from apportion.plans.run import Run
from apportion.reports.drawing import scoped
from apportion.reports.notebook import fragment, plot
from apportion.runs import read_run, summarise
from tests.reports.synthetic import write_comparison, write_run
from tests.reports.test_browser import FLAGS, browser

EMPTY = {"br"}


class Whole(HTMLParser):
    """Refuses tags that are left open or closed out of turn; keeps the text, the tags and the attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert tag not in EMPTY and self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.text.append(data)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    root = write_comparison(tmp_path_factory.mktemp("nb") / "cmp")
    return Comparison(root, summarise(root))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nb") / "run"
    write_run(folder, "adapt")
    return Run(folder, json.loads((folder / "summary.json").read_text("utf-8")))


def test_a_comparison_is_its_verdict_its_arms_and_its_curves(comparison):
    page = Whole(comparison._repr_html_())
    text = " ".join(page.text)
    for name, arm in comparison.summary["arms"].items():
        assert name in text and f"{arm['final']['macro']['mean']:.3f} ± {arm['se']['macro']:.3f}" in text
    assert "adapt reached uniform’s best macro loss with" in text and "adapt: share of draws" in text
    # The frame of the curves is one drawing inside another.
    assert page.tags.count("table") == 1 and page.tags.count("svg") == 3 + len(comparison.summary["arms"])
    assert not {"script", "link", "img", "iframe"} & set(page.tags)


def test_a_run_is_its_accounts_and_its_curves(run):
    text = " ".join(Whole(run._repr_html_()).text)
    for account, spent in run.summary["spent"].items():
        assert account in text and f"{spent['supervised']:,}" in text and f"{spent['processed']:,}" in text
    assert f"{run.summary['final']['macro']:.3f}" in text


def test_names_are_escaped_and_shown_as_they_are(tmp_path):
    for arm in ("<script>alert(1)</script>".replace("/", ""), "uniform"):
        write_run(tmp_path / "cmp" / arm / "seed-0", "uniform")
    page = Whole(fragment(tmp_path / "cmp"))
    assert "script" not in page.tags and "<script>alert(1)<script>" in page.text


def test_a_run_without_curves_is_still_shown(tmp_path):
    write_run(tmp_path / "blind", "adapt", validated=False, records=1)
    Whole(fragment(tmp_path / "blind"))
    write_run(tmp_path / "begun", "adapt", stop=0.0)
    assert "unfinished after 1 records" in repr(read_run(tmp_path / "begun"))
    Whole(fragment(tmp_path / "begun"))


def test_it_prints_in_a_line_and_a_comparison_as_a_table(comparison, run):
    final = run.summary["final"]
    ended = f"adapt, seed 0, macro loss {final['macro']:.3f} ± {final['macro_se']:.3f}, 60,000 supervised tokens"
    assert ended in repr(run) and ended in repr(read_run(run.path)) and "\n" not in repr(run)
    means = {name: arm["final"]["macro"]["mean"] for name, arm in comparison.summary["arms"].items()}
    assert repr(comparison).endswith(
        ": " + ", ".join(f"{n} {m:.3f}" for n, m in sorted(means.items(), key=lambda x: x[1])) + ")"
    )
    lines = str(comparison).splitlines()
    assert all(len(line) <= 80 for line in lines) and any("tokens to" in line for line in lines)


def test_a_picture_is_shown_and_saved(comparison, run, tmp_path):
    for shown, charts in ((comparison.plot(), 2), (run.plot(), 2)):
        file = shown.save(tmp_path / "p.svg")
        drawn = ElementTree.fromstring(file.read_text("utf-8"))
        assert len(drawn.findall("{http://www.w3.org/2000/svg}svg")) == charts
        Whole(shown._repr_html_())
        assert shown._repr_svg_().startswith("<svg") and repr(shown).startswith("Picture('adapt")
    with pytest.raises(ApportionError, match=r"\.svg"):
        shown.save(tmp_path / "p.png")


def test_a_run_that_only_drew_has_its_mixture_alone(tmp_path):
    write_run(tmp_path / "blind", "adapt", validated=False)
    drawn = ElementTree.fromstring(plot(tmp_path / "blind").svg)
    assert len(drawn.findall("{http://www.w3.org/2000/svg}svg")) == 1
    write_run(tmp_path / "nothing", "adapt", validated=False, stop=0.0)
    with pytest.raises(ApportionError, match="nothing to draw"):
        plot(tmp_path / "nothing")


def test_outputs_on_one_page_share_no_name_and_no_style(comparison, run):
    shown = [comparison._repr_html_(), run._repr_html_(), comparison.plot()._repr_html_(), run.plot()._repr_svg_()]
    for text in shown:
        assert Whole(text).ids == [] and "url(#" not in text
        (css,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
        rules = re.findall(r"([^{}]+)\{[^{}]*\}", css.replace("<![CDATA[", "").replace("]]>", ""))
        assert len(rules) > 20
        assert all(re.match(r"(div)?\.apportion\b", part.strip()) for rule in rules for part in rule.split(","))


def test_rules_are_narrowed_within_media_too():
    css = "/* a, b */ :root { --x: 1 }\n@media (prefers-color-scheme: dark) { :root { --x: 2 } a, b:hover { y: z } }"
    narrowed = " ".join(scoped(css, ".k").split())
    assert narrowed == ".k { --x: 1 } @media (prefers-color-scheme: dark) {.k { --x: 2 } .k a, .k b:hover { y: z } }"


SEEN = """<pre id="seen"></pre><script>
const card = document.querySelector("div.apportion"), style = getComputedStyle(card);
const wide = [...card.querySelectorAll("*")].filter((e) => e.getBoundingClientRect().right > innerWidth + 1);
const text = [...card.querySelectorAll("svg text")].map((e) => getComputedStyle(e).fill);
document.querySelector("#seen").textContent = JSON.stringify({
  card: style.backgroundColor, ink: style.color, texts: [...new Set(text)], wide: wide.length,
  around: getComputedStyle(document.querySelector("h1")).color, fetched: performance.getEntriesByType("resource").length,
});
</script>"""


def light(colour):
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3


@pytest.mark.parametrize("dark", [False, True])
def test_it_can_be_read_in_light_and_in_dark(comparison, tmp_path, dark):
    page = tmp_path / "page.html"
    page.write_text(
        f"<!doctype html><meta charset=utf-8><h1 style='color:#abc'>x</h1>{comparison._repr_html_()}{SEEN}", "utf-8"
    )
    scheme = [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [browser(), *FLAGS, *scheme, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    seen = json.loads(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)[1])
    assert (light(seen["card"]) < 60) == dark and (light(seen["ink"]) > 200) == dark
    # Names of tasks stand on their own colours, in white or near-black; all other words on the card.
    on_card = set(seen["texts"]) - {"rgb(255, 255, 255)", "rgb(20, 23, 26)"}
    assert on_card and min(abs(light(seen["card"]) - light(colour)) for colour in on_card) > 70
    assert seen["around"] == "rgb(170, 187, 204)" and seen["wide"] == seen["fetched"] == 0
