"""A report that is served: it follows its folders, serves nothing else, and outlives whatever a folder holds."""

import http.client
import re
import subprocess
import threading
from contextlib import contextmanager

import pytest

from apportion._errors import ApportionError
from apportion.reports import watch, write_report
from tests.reports.synthetic import write_run
from tests.reports.test_browser import FLAGS, browser


@contextmanager
def serving(*paths):
    with watch.server(paths, 0) as found:
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield found.server_port
        finally:
            found.shutdown()
            thread.join()


def get(port, path="/", host=None):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("GET", path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_it_waits_for_the_first_run_and_then_shows_it(tmp_path):
    with serving(tmp_path / "runs") as port:
        status, waiting = get(port)
        assert status == 200 and "Waiting for the first run" in waiting and "is not a folder" in waiting
        _, before = get(port, "/version")
        write_run(tmp_path / "runs" / "adapt" / "seed-0", "adapt", stop=0.3)
        _, after = get(port, "/version")
        assert before in waiting and after != before
        _, page = get(port)
        assert after in page and "A run of adapt" in page
        (tmp_path / "runs" / "adapt" / "seed-0" / "report.html").write_text("not what it reads")
        assert get(port, "/version")[1] == after


def test_the_page_is_the_report_and_the_script_that_loads_it_again(tmp_path):
    write_run(tmp_path / "run", "adapt")
    written = write_report(tmp_path / "run", tmp_path / "page.html").read_text("utf-8")
    with serving(tmp_path / "run") as port:
        _, page = get(port)
    head, _, tail = written.rpartition("</body>")
    assert page.startswith(head) and page.endswith(tail) and "location.reload" in page[len(head) :]
    assert "location.reload" not in written


def test_it_is_drawn_once_for_each_state_of_the_folders(tmp_path, monkeypatch):
    write_run(tmp_path / "run", "adapt", stop=0.5)
    drawn = []
    monkeypatch.setattr(watch, "render", lambda views, folder: drawn.append(views) or "<body></body>")
    with serving(tmp_path / "run") as port:
        assert len([get(port) for _ in range(3)]) == 3 and len(drawn) == 1
        with (tmp_path / "run" / "history.jsonl").open("a") as file:
            file.write((tmp_path / "run" / "history.jsonl").read_text().splitlines()[-1] + "\n")
        get(port)
        assert len(drawn) == 2


@pytest.mark.parametrize("name", ["history.jsonl", "recipe.yaml", "summary.json", "ledger.json", "mixture.json"])
@pytest.mark.parametrize("content", ["", "{", '{"schema": 1}\n', '{"schema": 1, "mixture": 3, "spent": {}}\n', "\0\n"])
def test_a_broken_folder_is_a_sentence_and_the_server_goes_on(tmp_path, name, content):
    write_run(tmp_path / "run", "adapt")
    whole = (tmp_path / "run" / name).read_bytes()
    with serving(tmp_path / "run") as port:
        (tmp_path / "run" / name).write_text(content)
        status, page = get(port)
        assert status == 200 and "location.reload" in page
        (tmp_path / "run" / name).write_bytes(whole)
        assert "A run of adapt" in get(port)[1]


def test_what_is_said_of_a_folder_is_escaped(tmp_path):
    with serving(tmp_path / "<script>x") as port:
        page = get(port)[1]
    assert "<script>x" not in page and "&lt;script&gt;x" in page


@pytest.mark.parametrize(
    "path",
    [
        "/history.jsonl",
        "/../secret.json",
        "/run/secret.json",
        "/run/../secret.json",
        "/run/checkpoints/step-1/state.json",
        "//etc/passwd",
        "/%2e%2e/secret.json",
        "/./",
        "/version/",
        "",
    ],
)
def test_nothing_else_of_the_disk_is_served(tmp_path, path):
    write_run(tmp_path / "run", "adapt", stop=0.2)
    (tmp_path / "secret.json").write_text("secret")
    with serving(tmp_path / "run") as port:
        status, text = get(port, path or "x")
        assert status in (400, 404) and "secret" not in text and "mixture" not in text


def test_the_files_that_the_page_links_to_are_served_and_no_others(tmp_path):
    write_run(tmp_path / "run", "adapt")
    (tmp_path / "run" / "secret.json").write_text("secret")
    with serving(tmp_path / "run") as port:
        assert get(port, "/run/summary.json")[0] == 404  # nobody was told of it yet
        page = get(port)[1]
        links = [link for link in re.findall(r'href="([^"#]+)"', page) if not link.startswith("data:")]
        assert len(links) >= 4
        for link in links:
            status, text = get(port, f"/{link}")
            assert status == 200 and text == (tmp_path / link).read_text()
        assert get(port, "/run/secret.json")[0] == 404


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1:1", 200), ("localhost", 200), ("elsewhere.example", 404)])
def test_a_page_of_elsewhere_that_points_its_name_here_is_not_answered(tmp_path, host, status):
    with serving(tmp_path) as port:
        assert get(port, host=host)[0] == status


def test_a_port_that_is_in_use_or_none_is_a_sentence(tmp_path):
    with serving(tmp_path) as port, pytest.raises(ApportionError, match=f"Port {port} cannot be used: address already"):
        watch.server([tmp_path], port)
    with pytest.raises(ApportionError, match="from 0 to 65,535"):
        watch.server([tmp_path], 65536)


# Opens a fold, chooses a tab and scrolls, once; and writes down how the page stands after it was loaded again.
READER = """<script>
const fold = [...document.querySelectorAll("#recipes details")].find((e) => e.textContent.includes("recipe of adapt"));
if (!sessionStorage.getItem("reader")) {
  sessionStorage.setItem("reader", "was here");
  fold.open = true;
  document.querySelector("#tab-worst").checked = true;
  scrollTo(0, 700);
} else document.body.insertAdjacentHTML("beforeend", `<pre id="seen">${JSON.stringify({
  top: Math.round(scrollY), open: fold.open,
  worst: document.querySelector("#tab-worst").checked,
})}</pre>`);
</script></body>"""


def test_a_browser_sees_the_run_go_on_and_stays_where_it_was(tmp_path, monkeypatch):
    program = browser()
    write_run(tmp_path / "run" / "adapt" / "seed-0", "adapt", stop=0.3)
    look, served, asked = watch.version_of, watch._served, []

    def grown(paths):
        # The page itself asks first; the browser's clock stands still while it waits for its own question's answer.
        asked.append(paths)
        if len(asked) == 2:
            write_run(tmp_path / "run" / "uniform" / "seed-0", "uniform")
        return look(paths)

    monkeypatch.setattr(watch, "version_of", grown)
    monkeypatch.setattr(watch, "_served", lambda page, version: served(page, version).replace("</body>", READER))
    with serving(tmp_path / "run") as port:
        flags = [flag for flag in FLAGS if "virtual-time" not in flag]
        command = [program, *flags, "--virtual-time-budget=9000", f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, timeout=120, check=True
        )
    assert "2 methods under one budget" in done.stdout or "2 methods, not under" in done.stdout
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)
    assert seen and seen[1] == '{"top":700,"open":true,"worst":true}', done.stdout[-800:]
