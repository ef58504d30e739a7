#!/usr/bin/env python3
"""A run of bench/kernels that is as short as can be: test_kernels.py SLUICE KERNELS

KERNELS: the program, or why there is none.

That it ends, has all rows that this processor can have, peers among them, and says of each claim that it was measured or why not; how
fast anything was is not looked at. TAP.
"""
import json
import math
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("openssl-evp", "boringssl", "ipsec-mb", "ipsec-mb-anew")
SIZES = (1024, 1536, 2048, 3072, 4096)
CLAIMS = 24


def expected(best, usable):
    """Names of all rows, by the kernels that `sluice version` calls the best and usable."""
    ops = ("cbc", "cbc-2seg", "cbc-unplanned", "cbc-decrypt", "ctr", "ctr-in-place", "cbc-in-place")
    rows = {f"{op}/{w}/{k}" for op in ops for w in "ABC" for k in usable}
    rows |= {f"{op}/{w}/{p}" for op in ("cbc", "ctr") for w in "ABC" for p in PEERS}
    rows |= {f"cbc/{kind}{n}/{best}" for kind in ("const", "rand") for n in SIZES}
    return rows | {f"limit/{r}" for r, k in (("xmm", None), ("ymm", "vaes256"), ("zmm", "vaes512")) if k is None or k in usable}


def main():
    sluice, kernels = sys.argv[1:3]
    said = subprocess.run([sluice, "version"], capture_output=True, text=True).stdout
    best, usable = re.search(r"^kernel: (\S+) \(usable: ref((?: \S+)*)\)$", said, re.M).groups()
    usable = usable.split()
    cases = ("ends with a JSON of its rows", "every row of this processor, and no other", "every figure is a number", "every claim is measured, or says why not",
             "the page says both")
    print(f"1..{len(cases)}")
    if not Path(kernels).exists() or not usable:
        for n, case in enumerate(cases, 1):
            print(f"ok {n} - {case} # SKIP {kernels if usable else 'this processor has no AES instructions'}")
        return 0
    with tempfile.TemporaryDirectory(prefix="sluice-kernels-") as tmp:
        out, page = Path(tmp) / "out.json", Path(tmp) / "page.md"
        r = subprocess.run([str(ROOT / "bench/kernels/run"), "--program", kernels, "--json", str(out), "--rounds", "2", "--passes", "1"], capture_output=True, text=True)
        doc = json.loads(out.read_text()) if out.exists() else {}
        page.write_text("<!-- measured: kernels -->\n<!-- end of kernels -->\n")
        paged = subprocess.run([str(ROOT / "bench/page"), str(page), f"kernels={out}"], capture_output=True, text=True)
        text = page.read_text()
    rows = {}
    for b in doc.get("benchmarks", []):
        rows.setdefault(b["name"].split("/iterations")[0], []).append(b)
    want = expected(best, usable)
    figures = [b[k] for bs in rows.values() for b in bs for k in ("GB/s", "cycles/byte", "GHz", "wall/cpu")] + [c["value"] for c in doc.get("claims", [])]
    claims = [(c["name"], c["peer"]) for c in doc.get("claims", [])]
    open_claims = [(c["name"], c["peer"]) for c in doc.get("not_measured", [])]
    # A claim is measured exactly where both of its rows are; no peer is missing, so only registers can be.
    measured = all({*c} <= want for c in claims) and not any({*c} <= want for c in open_claims)
    # 1 and 3 are said of figures, which other programs' work decides here.
    results = (r.returncode in (0, 1, 3) and "claims" in doc and "Traceback" not in r.stderr,
               rows.keys() == want and all(len(bs) == 2 for bs in rows.values()),
               bool(figures) and all(isinstance(f, float) and math.isfinite(f) and f > 0 for f in figures),
               len({*claims, *open_claims}) == len(claims) + len(open_claims) == CLAIMS and measured and
               all(c["why"].endswith(": this processor cannot run it") for c in doc.get("not_measured", [])),
               paged.returncode == 0 and all(f"| {name} | {peer} | " in text for name, peer in claims + open_claims) and
               text.count("| not measured |") == r.stdout.count(" not measured: ") == len(open_claims))
    for n, (case, good) in enumerate(zip(cases, results), 1):
        print(f"{'ok' if good else 'not ok'} {n} - {case}")
    if not all(results):
        odd = sorted(want ^ rows.keys())
        print("\n".join("# " + line for line in [f"status {r.returncode}", f"rows too few or too many: {odd}", *r.stdout.splitlines(), *r.stderr.splitlines(),
                                                 *paged.stderr.splitlines()]))
    return not all(results)


if __name__ == "__main__":
    sys.exit(main())
