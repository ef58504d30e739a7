#!/usr/bin/env python3
"""The pictures of docs/benchmarks.md: what is drawn is what was measured. TAP; measures nothing."""
import json
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "pictures"))
import charts  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"
results = []


def check(name, ok, detail=""):
    results.append(bool(ok))
    print(f"{'ok' if ok else 'not ok'} {len(results)} - {name}" + ("" if ok else f"\n  # {detail}"))


class Picture:
    """An SVG, read by its shapes: `bars` as (left, top, length, colour) from plot to plot, `marks` and `lines` by where they stand, `texts`."""

    def __init__(self, svg):
        self.svg, self.root = svg, ET.fromstring(svg)
        self.bars, self.marks, self.lines = [], [], set()
        for e in self.root.iter(SVG + "path"):
            box = re.match(r"M([\d.]+) ([\d.]+)l([\d.]+) 0l0 ([\d.]+)l", e.get("d"))
            if e.get("ecmeta_ssr_type") != "chart":
                continue
            if e.get("stroke-dasharray"):
                self.lines.add(float(re.match(r"M([\d.]+) ", e.get("d"))[1]))
            elif e.get("fill") == charts.INK:
                self.marks.append(tuple(float(v) for v in e.get("transform").strip("matrix()").split(",")[4:]))
            elif box and float(box[3]):
                self.bars.append((*(float(v) for v in box.groups()[:3]), e.get("fill")))
        self.bars.sort()
        self.marks.sort(key=lambda m: m[1])
        self.texts = ["".join(e.itertext()) for e in self.root.iter(SVG + "text")]
        self.title, self.desc = (self.root.find(SVG + tag).text for tag in ("title", "desc"))


def proportional(lengths, values):
    """Half a pixel is what drawing rounds."""
    scale = sum(lengths) / sum(values)
    return len(lengths) == len(values) and all(abs(a - b * scale) <= 0.5 for a, b in zip(lengths, values))


def kernels():
    names = charts.LIBRARIES + charts.KERNELS
    rows = {f"{op}/{w}/{k}": 1.0 + 9 * n + 3 * j + i for n, op in enumerate(("cbc", "ctr")) for j, w in enumerate("ABC") for i, k in enumerate(names)}
    rows |= {"limit/xmm": 11.8, "limit/ymm": 20.0, "limit/zmm": 20.0}
    p = Picture(charts.kernels(rows, "A & B <c>, 2 cores"))
    values = [v for k, v in rows.items() if not k.startswith("limit/")]
    check("kernels: each bar is as long as its value", proportional([b[2] for b in p.bars], values), [(b[2], v) for b, v in zip(p.bars, values)])
    check("kernels: ours are told from others by colour and by name", [b[3] for b in p.bars] == ([charts.THEIRS] * 3 + [charts.OURS] * 5) * 6
          and p.texts.count("sluice vaes512") == 3 and p.texts.count("ipsec-mb") == 3 and "sluice ipsec-mb" not in p.texts, p.texts)
    left, scale = p.bars[0][0], p.bars[0][2] / values[0]
    check("kernels: a line at each limit, equal ones as one", len(p.lines) == 4 and all(any(abs(left + v * scale - x) < 1.5 for x in p.lines) for v in (11.8, 20))
          and "AES limit with ymm, zmm: 20.00" in p.texts and "AES limit with xmm: 11.80" in p.texts, (p.lines, scale))
    check("kernels: the figures as text, beside the bars and described", p.texts.count("7.00") == 3 and "CBC A, sluice vaes512: 7.00." in p.desc, p.desc)
    check("text of elsewhere is text", "A & B <c>, 2 cores" in p.texts, p.svg)
    del rows["ctr/B/boringssl"]
    q = Picture(charts.kernels(rows, "A & B <c>, 2 cores"))
    gone = {(x, y) for x, y, *_ in p.bars} - {(x, y) for x, y, *_ in q.bars}
    check("kernels: a row that is missing leaves its place, with a word", q.texts.count(charts.NOT) == 1 and len(gone) == 1 and len(q.bars) == len(p.bars) - 1
          and "CTR B, boringssl: not measured." in q.desc, (gone, q.texts))
    check("kernels: a run of nothing is drawn as that", Picture(charts.kernels({}, "x")).texts.count(charts.NOT) == 42)
    check("the same figures give the same bytes", charts.kernels(rows, "x") == charts.kernels(rows, "x"))


def serve():
    ratios = {"sluice/cbcs/fresh/189K/bbr/64": 1.5, "sluice/cbcs/hot/189K/bbr/64": 0.5, "sluice/cenc/hot/189K/bbr/64": None, "sluice/cenc/fresh/32K/bbr/64/tls": 0.4,
              "sluice/clear/tiny/1K/bbr/64": 0.6, "sluice/cbcs/fresh/189K/bbr/256": 9.0, "nginx/clear/sendfile/189K/bbr/64": 1.0}
    claims = {"sluice/cbcs/fresh/189K/bbr/64": dict(bound=0.8, holds=False), "sluice/cbcs/fresh/189K/bbr/64 p50": dict(bound=1, holds=False),
              "sluice/cbcs/hot/189K/bbr/64": dict(bound=0.6, holds=True), "sluice/cenc/hot/189K/bbr/64": dict(bound=0.7, why="disturbed"),
              "sluice/clear/tiny/1K/bbr/64 us per request": dict(bound=1.0, holds=True)}
    p = Picture(charts.serve(ratios, claims, "today"))
    bars = sorted(p.bars, key=lambda b: b[1])
    left, scale = bars[0][0], bars[0][2] / 1.5
    check("serve: each bar is as long as its ratio, no other rows", proportional([b[2] for b in bars], [1.5, 0.5, 0.4, 0.6]), bars)
    check("serve: nginx's 1 is a line", len(p.lines) == 1 and abs(left + scale - min(p.lines)) < 1.5 and "nginx with the same bytes" in p.texts, (p.lines, scale))
    check("serve: a mark at each bound", len(p.marks) == 4 and all(abs(left + v * scale - x) < 0.5 for v, (x, _) in zip((0.8, 0.6, 0.7, 1.0), p.marks)), p.marks)
    check("serve: held, missed and not promised, in words and colours", [b[3] for b in bars] == [charts.MISSED, charts.OURS, charts.THEIRS, charts.OURS] and all(
          t in p.texts for t in ("1.50, promised 0.80: missed", "0.50, promised 0.60: held", "0.40", "0.60, promised 1.00: held", "promise missed", "nothing promised")), p.texts)
    check("serve: what was not measured is said to be, its promise stays", p.texts.count(charts.NOT) == 3 and "189 KB, bbr, cenc hot: not measured." in p.desc, p.texts)
    check("serve: places that did not run are left out", "32 KB, cubic" not in p.texts and "32 KB, bbr, TLS" in p.texts, p.texts)
    check("a picture runs and fetches nothing, and has a dark side", not re.search(r"<script|\bon\w+=|href=|url\(|@import", p.svg) and "prefers-color-scheme:dark" in p.svg
          and p.title.startswith("CPU time"), p.svg[:2000])


def page():
    """bench/page --pictures, in a copy of what it needs."""
    doc = dict(context=dict(date="2026-01-02T03:04:05", num_cpus=2), claims=[],
               benchmarks=[dict(name="serve/sluice/cbcs/hot/32K/bbr/64", cpu_s_per_gb=0.3, cpu_time=11, req_per_s=5e4, p50_us=4, p99_us=8, ratio=0.75)])
    before = "# Title\n<!-- measured: serve -->\nold\n<!-- end of serve -->\n"
    with tempfile.TemporaryDirectory() as tmp:
        top = Path(tmp)
        for folder in ("bench/pictures", "docs/pictures"):
            (top / folder).mkdir(parents=True)
        for file in ("bench/page", "bench/pictures/charts.py", "bench/pictures/draw.mjs"):
            shutil.copy(ROOT / file, top / file)
        (top / "a.json").write_text(json.dumps(doc))

        def run(*more):
            (top / "docs/page.md").write_text(before)
            r = subprocess.run([sys.executable, "bench/page", "docs/page.md", "serve=a.json", *more], capture_output=True, text=True, cwd=tmp)
            return r, (top / "docs/page.md").read_text(), top / "docs/pictures/bench-serve.svg"

        r, text, picture = run("--pictures", "docs/pictures")
        check("page: without ECharts a line that says what to run, and nothing is written", r.returncode == 1 and "tools/npm pictures" in r.stderr and "Traceback" not in r.stderr
              and text == before and not picture.exists(), r.stderr)
        (top / "bench/pictures/node_modules").symlink_to(charts.HERE / "node_modules")
        r, text, picture = run()
        check("page: no picture unless asked for", r.returncode == 0 and "![" not in text and not picture.exists(), text + r.stderr)
        r, text, picture = run("--pictures", "docs/pictures")
        shown = re.search(r"^`tools/bench serve`, (2026-01-02, .*, 2 cores)\.\n\n!\[.+\]\(pictures/bench-serve\.svg\)\n\n\| row", text, re.M)
        check("page: the picture stands above the tables, of the same date and machine", shown and picture.exists() and f"{shown[1]}; 64 connections" in Picture(picture.read_text()).texts, text + r.stderr)


def committed():
    """The pictures that are in the repository are of the run that the page tells of."""
    text = (ROOT / "docs/benchmarks.md").read_text()
    for suite in charts.ALT:
        block = re.search(rf"<!-- measured: {suite} -->\n(.*?)<!-- end of {suite} -->", text, re.S)[1]
        p = Picture((ROOT / f"docs/pictures/bench-{suite}.svg").read_text())
        run = re.search(r"`, (\d{4}-\d\d-\d\d, .*?, \d+ cores)\.", block)[1]
        cells = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines() if line.startswith("|")]
        if suite == "kernels":
            figures = [v.split(" ")[0] for c in cells if c[0] in charts.LIBRARIES + charts.KERNELS for v in c[1:] if v]
        else:
            drawn = {row + place for _, place, rows in charts.PLACES for _, row in rows}
            figures = [c[2] for c in cells if c[0] in drawn]
        told = re.findall(r": (\d+\.\d\d)[.,]", re.sub(r"AES limit.*", "", p.desc))
        check(f"docs/pictures/bench-{suite}.svg shows the figures of docs/benchmarks.md", f"(pictures/bench-{suite}.svg)" in block and any(t.startswith(run) for t in p.texts)
              and figures and sorted(figures) == sorted(told), (run, sorted(figures), sorted(told)))


def main():
    if not (charts.HERE / "node_modules/echarts").is_dir():
        print("1..0 # SKIP bench/pictures/node_modules is not there: tools/npm pictures")
        return 0
    for part in (kernels, serve, page, committed):
        part()
    print(f"1..{len(results)}")
    return not all(results)


if __name__ == "__main__":
    sys.exit(main())
