"""One thread a test process: tiny models gain nothing from more, and sums keep one order. Data lies beside the checkout."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("APPORTION_DATA", str(Path(__file__).resolve().parents[2] / "shared" / "data"))
