"""Time reading all of Natural Instructions: `python benchmarks/loading.py [--json]`.

Cold: read, split, encode and write the cache, into a fresh cache folder, with a byte-level BPE of 4,096 that was trained
and saved beforehand (its training is not counted). Warm: the same call again, in a new process, answered from the cache.
Both are the seconds of `load_encoded` itself, imports and the tokenizer's own loading left out; peak is the largest
resident memory of either process, in GB, its mapped files included.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BLOCK = {"source": "natural_instructions", "path": "${APPORTION_DATA}/natural-instructions", "group_by": "category"}


def child(role: str, cache: str) -> None:
    """Do one role in this process and print what it took."""
    from apportion.tasks import TasksSpec, load_encoded, load_tokenizer_trained

    spec = TasksSpec.model_validate(BLOCK)
    tokenizer = load_tokenizer_trained(spec, "bpe", 4096, Path(cache))
    seconds, examples = 0.0, 0
    if role != "tokenizer":
        start = time.perf_counter()
        encoded = load_encoded(spec, tokenizer, spec.max_length, Path(cache))
        seconds = time.perf_counter() - start
        examples = sum(len(s) for t in encoded for s in (t.train, t.validation, t.test))
    usage = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"seconds": seconds, "examples": examples, "peak_gb": max(usage) * 1024 / 1e9}))


def measure(role: str, cache: str) -> dict[str, float]:
    """Run one role in a process of its own."""
    command = [sys.executable, __file__, "--child", role, "--cache", cache]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one machine-readable line")
    parser.add_argument("--child", choices=["tokenizer", "cold", "warm"], help=argparse.SUPPRESS)
    parser.add_argument("--cache", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.cache)
        return
    with tempfile.TemporaryDirectory() as cache:
        measure("tokenizer", cache)
        cold, warm = measure("cold", cache), measure("warm", cache)
    figures = {
        "cold_seconds": round(cold["seconds"], 2),
        "warm_seconds": round(warm["seconds"], 2),
        "peak_gb": round(max(cold["peak_gb"], warm["peak_gb"]), 3),
    }
    if args.json:
        print(json.dumps(figures))
        return
    print(
        f"{cold['examples']:,} examples: cold {figures['cold_seconds']} s, warm {figures['warm_seconds']} s, ", end=""
    )
    print(f"peak {figures['peak_gb']} GB (tokenizer trained beforehand, not counted)")


if __name__ == "__main__":
    main()
