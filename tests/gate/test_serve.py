#!/usr/bin/env python3
"""A run of bench/serve that is as short as can be, over media of half a minute: test_serve.py SLUICE

That it ends, has its rows in the JSON, and decrypted what it sampled; its figures say nothing here. TAP.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CC = Path("/proc/sys/net/ipv4/tcp_congestion_control")
# Not `fresh` rows: for them it measures how far the cores are from each other, with a program that tools/bench builds.
ROWS = ["nginx/clear/sendfile/32K/cubic/64", "sluice/cbcs/hot/32K/cubic/64", "sluice/cbcs/hls/189K/bbr/64"]
# The same program, with less to encode.
SHORT = "import runpy, sys; sys.path.insert(0, sys.argv[1]); import media; media.SECONDS, media.COPIES = 30, 1; " \
        "del sys.argv[0]; sys.argv[0] += '/run'; runpy.run_path(sys.argv[0], run_name='__main__')"


def why_not():
    """What this machine lacks for it, or nothing."""
    missing = [p for p in ("nginx", "wrk", "ffmpeg", "openssl", "taskset") if not shutil.which(p)]
    if missing:
        return f"{' and '.join(missing)} not installed"
    if len(os.sched_getaffinity(0) & {0, 1}) < 2:
        return "cores 0 and 1 are not both to be had here"
    if not os.access(CC, os.W_OK):
        return f"{CC} cannot be written: only root may choose the congestion control that nginx has"
    offered = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    return None if {"bbr", "cubic"} <= set(offered) else "this kernel has not both bbr and cubic"


def main():
    cases = ("ends with a JSON of its rows", "every row has a measurement", "sampled responses were decrypted", "nothing of it stays")
    print(f"1..{len(cases)}")
    if why := why_not():
        for n, case in enumerate(cases, 1):
            print(f"ok {n} - {case} # SKIP {why}")
        return 0
    before = CC.read_text()
    with tempfile.TemporaryDirectory(prefix="sluice-serve-") as tmp:
        out = Path(tmp) / "out.json"
        pattern = "^(" + "|".join(map(re.escape, ROWS)) + ")$"
        r = subprocess.run([sys.executable, "-c", SHORT, str(ROOT / "bench/serve"), "--sluice", sys.argv[1], "--json", str(out), "--rounds", "1",
                            "--seconds", "0.2", "--rows", pattern, "--skip-extras", "--work", f"{tmp}/work"], capture_output=True, text=True)
        doc = json.loads(out.read_text()) if out.exists() else {}
        measured = {b["name"].removeprefix("serve/"): b["rounds"] for b in doc.get("benchmarks", [])} | doc.get("without_a_valid_round", {})
        # 1 and 3 are said of figures, which other programs' work decides here.
        results = (r.returncode in (0, 1, 3) and not r.stderr and sorted(measured) == sorted(ROWS),
                   len(measured) == len(ROWS) and all(m["req_per_s"] > 0 for ms in measured.values() for m in ms) and all(measured.values()),
                   "checked by decrypting: 3 responses, 3 of them from the cache of encrypted segments\n" in r.stdout,
                   CC.read_text() == before and not list(Path(tmp, "work").glob("run-*")))
    for n, (case, good) in enumerate(zip(cases, results), 1):
        print(f"{'ok' if good else 'not ok'} {n} - {case}")
    if not all(results):
        print("\n".join("# " + line for line in [f"status {r.returncode}", *r.stdout.splitlines(), *r.stderr.splitlines()]))
    return not all(results)


if __name__ == "__main__":
    sys.exit(main())
