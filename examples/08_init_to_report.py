"""From a folder of JSON Lines files to a report by four commands, and what they leave, read back in Python."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import apportion as ap

TASKS = {
    "double": [{"prompt": f"Double {n}.", "completion": str(2 * n)} for n in range(300)],
    "spell": [{"prompt": f"Spell {n} backwards.", "completion": str(n)[::-1]} for n in range(100, 250)],
    "parity": [
        {"instruction": "Odd or even?", "input": str(n), "output": "odd" if n % 2 else "even"} for n in range(80)
    ],
}


def apportion(*arguments: str) -> str:
    """Run the command, as a terminal would, in the folder of this example."""
    command = [str(Path(sys.executable).with_name("apportion")), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


with tempfile.TemporaryDirectory() as folder:
    data = Path(folder) / "my-tasks"
    data.mkdir()
    for task, rows in TASKS.items():
        (data / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    # A look at the data: what is there, and a recipe that says in comments why each of its lines is as it is.
    print(apportion("init", "my-tasks", "--target", "parity"))
    print("\n".join((Path(folder) / "recipe.yaml").read_text("utf-8").splitlines()[:6]), "\n...\n")

    # What each arm of the recipe would cost. A small budget is enough for an example.
    plan = json.loads(apportion("plan", "recipe.yaml", "--set", "budget=400", "--json"))
    for arm, its in plan["arms"].items():
        print(
            f"{arm:<13} {its['steps']} steps, {sum(account['flops'] for account in its['accounts'].values()):.2g} FLOPs"
        )

    # All arms under that budget; the table, the verdict and where the report is.
    print(apportion("compare", "recipe.yaml", "--set", "budget=400", "--out", "runs"))

    # The same folders in Python: a run in a line, and any of them as a page of its own.
    for path in sorted((Path(folder) / "runs").glob("*/seed-0")):
        run = ap.read_run(path)
        print(f"{run.method:<13} target loss {run.final['target']:.3f}, other tasks {run.final['others']:.3f}")
    page = ap.write_report(Path(folder) / "runs" / "adapt" / "seed-0")
    print("report of one run:", page.name, f"({len(page.read_text('utf-8')) // 1000} kB)")
