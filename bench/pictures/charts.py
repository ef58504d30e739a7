"""Pictures of a suite's figures, for bench/page: what is drawn stands here, ECharts draws it (draw.mjs)."""
import json
import re
import shutil
import subprocess
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
INK, SOFT, GRID, PAPER, OURS, THEIRS, MISSED = LIGHT = ("#10242e", "#38505a", "#dbe5e8", "#ffffff", "#0d9488", "#93a9b1", "#d97706")
DARK = ("#e8eef0", "#a9bcc3", "#2b3a42", "#0d1117", "#14b8a6", "#657c86", "#f59e0b")
WIDTH, BAR = 800, 18  # pixels
NOT = "not measured"

LIBRARIES = ("openssl-evp", "boringssl", "ipsec-mb")
KERNELS = ("aesni", "aesni-vex", "vaes256", "vaes512", "vaes512-x2")
WORKLOADS = {"A": "94 samples of about 371 bytes", "B": "94 samples of about 743 bytes", "C": "22 samples of 8 to 12 KB"}
ALT = {"kernels": "CBC and CTR in GB/s: sluice's kernels beside OpenSSL, BoringSSL and ipsec-mb, with the AES limit as a line",
       "serve": "CPU time of sluice's responses, nginx's of the same bytes = 1, with what is promised of each"}


class Failed(Exception):
    """No picture, and why."""


class Chart:
    """One ECharts option, put together from plots at fixed places: its texts cannot come to lie on each other."""

    def __init__(self, title, caption, height):
        self.option = dict(width=WIDTH, height=height, backgroundColor=PAPER, textStyle=dict(fontFamily="system-ui, 'DejaVu Sans', sans-serif"),
                           title=[], legend=[], grid=[], xAxis=[], yAxis=[], series=[])
        self.text(title, 16, 10, fontSize=17, fontWeight="bold")
        self.text(caption, 16, 36, color=SOFT)
        self.desc = []

    def text(self, text, left, top, align="left", **style):
        self.option["title"].append(dict(text=text, left=left, top=top, padding=0, textAlign=align, textStyle=dict(dict(fontSize=12, fontWeight="normal", color=INK), **style)))

    def legend(self, names, left, marks=()):
        self.option["legend"].append(dict(data=[dict(name=n, icon="rect") for n in names] + [dict(name=n, icon="path://M0 0h3v14h-3z") for n in marks], left=left, top=54, padding=0,
                                          itemWidth=14, itemHeight=12, itemGap=30, textStyle=dict(color=INK, fontSize=12), selectedMode=False))

    def plot(self, what, rows, *, left, width, top, high, lines, names=True, axis=True):
        """Bars of `rows`: (name, value or None, words at the right, kind as (name, colour), bound or None). `lines`: values that a line stands at."""
        n = len(self.option["grid"])
        place = dict(gridIndex=n, type="category", inverse=True, axisTick=dict(show=False))
        texts = dict(color=INK, fontSize=12, interval=0)
        self.option["grid"].append(dict(left=left, top=top, width=width, height=BAR * len(rows)))
        self.option["xAxis"].append(dict(gridIndex=n, type="value", min=0, max=high, splitLine=dict(showMaxLine=False, lineStyle=dict(color=GRID)),
                                         axisLabel=dict(show=axis, color=SOFT, fontSize=12, showMaxLabel=False)))
        self.option["yAxis"] += [dict(place, data=[r[0] for r in rows], axisLine=dict(lineStyle=dict(color=SOFT)), axisLabel=dict(texts, show=names)),
                                 dict(place, data=[r[2] for r in rows], position="right", axisLine=dict(show=False), axisLabel=texts)]
        common = dict(xAxisIndex=n, yAxisIndex=2 * n, silent=True, emphasis=dict(disabled=True))
        word = dict(show=True, formatter=NOT, position="right", color=SOFT, fontSize=12, fontStyle="italic")
        kinds = dict.fromkeys(r[3] for r in rows)
        for k, (kind, colour) in enumerate(kinds):
            bars = [None if r[3] != (kind, colour) else r[1] if r[1] is not None else dict(value=0, label=word) for r in rows]
            self.option["series"].append(dict(common, type="bar", name=kind, stack=str(n), barWidth=BAR - 5, itemStyle=dict(color=colour), data=bars))
            if not k:
                self.option["series"][-1]["markLine"] = dict(silent=True, symbol="none", label=dict(show=False), lineStyle=dict(color=INK, width=1.2, type=[5, 3]),
                                                             data=[dict(xAxis=v) for v in lines])
        self.option["series"].append(dict(common, type="scatter", name="promised at most", symbol="rect", symbolSize=[3, BAR - 2], z=5, itemStyle=dict(color=INK, opacity=1),
                                          data=[[r[4], i] for i, r in enumerate(rows) if r[4] is not None]))
        self.desc += [f"{what}, {r[0]}: {NOT if r[1] is None else r[2]}." for r in rows]

    def draw(self):
        if not (HERE / "node_modules/echarts").is_dir() or not shutil.which("node"):
            raise Failed("pictures are drawn by ECharts in Node.js, which is not here: run `tools/install pictures` and `tools/npm pictures`")
        r = subprocess.run(["node", str(HERE / "draw.mjs")], input=json.dumps(self.option), capture_output=True, text=True)
        if r.returncode:
            raise Failed(f"node {HERE / 'draw.mjs'} ended with {r.returncode}: {r.stderr.strip()[-600:]}")
        title = self.option["title"][0]["text"]
        dark = "".join(f'[fill="{a}"]{{fill:{b}}}[stroke="{a}"]{{stroke:{b}}}' for a, b in zip(LIGHT, DARK))
        head = f"<title>{escape(title)}</title><desc>{escape(' '.join(self.desc))}</desc>\n<style>@media(prefers-color-scheme:dark){{{dark}}}</style>"
        return re.sub(r"(<svg [^>]*>)", lambda m: m[1] + head, r.stdout, count=1) + "\n"


def kernels(rows, caption):
    """`rows`: {name: GB/s} of `tools/bench kernels`."""
    limits = {}
    for name, value in sorted(rows.items()):
        if name.startswith("limit/"):
            limits.setdefault(round(value, 2), []).append(name.split("/")[1])
    high = max(rows.values(), default=1) * 1.04
    plots, top = [(126, 270, "CBC", True), (476, 270, "CTR", False)], 100 + 15 * len(limits)
    shown = [n for n in LIBRARIES + KERNELS if n != "vaes512-x2" or f"cbc/A/{n}" in rows]  # younger than some tables
    step = BAR * len(shown) + 30
    chart = Chart("Encryption on one core, GB/s (longer is better)", caption, top + 3 * step + 40)
    chart.legend(["sluice's kernels", "other libraries"], 16)
    for left, width, op, names in plots:
        for n, (value, registers) in enumerate(sorted(limits.items())):
            x = left + width * value / high
            chart.text(f"AES limit with {', '.join(registers)}: {value:.2f}", x, top - 20 - 15 * (len(limits) - n), "right" if value > high / 2 else "left", color=SOFT)
        for n, (workload, what) in enumerate(WORKLOADS.items()):
            chart.text(f"{op}, {workload}: {what}", left, top + step * n - 4, fontWeight="bold")
            bars = []
            for name in shown:
                value = rows.get(f"{op.lower()}/{workload}/{name}")
                kind = ("sluice's kernels", OURS) if name in KERNELS else ("other libraries", THEIRS)
                bars.append(("sluice " * (name in KERNELS) + name, value, "" if value is None else f"{value:.2f}", kind, None))
            chart.plot(f"{op} {workload}", bars, left=left, width=width, top=top + step * n + 14, high=high, lines=sorted(limits), names=names, axis=n == 2)
    chart.text("The AES limit counts ten rounds a block; CTR does nine of them", 16, top + 3 * step + 14, color=SOFT)
    chart.desc += [f"AES limit, {', '.join(registers)}: {value:.2f}." for value, registers in sorted(limits.items())]
    return chart.draw()


PROTECTED = [(f"{scheme} {mode}", f"sluice/{scheme}/{mode}/") for mode in ("fresh", "hot") for scheme in ("cbcs", "cenc")]
PLACES = [(f"{size} KB, {cc}", f"{size}K/{cc}/64", PROTECTED) for size in (189, 32) for cc in ("bbr", "cubic")]
PLACES += [(f"{size} KB, bbr, TLS", f"{size}K/bbr/64/tls", PROTECTED[:2]) for size in (189, 32)]
PLACES.append(("1 KB, bbr", "1K/bbr/64", [("clear", "sluice/clear/tiny/")]))
KINDS = {True: ("promise held", OURS), False: ("promise missed", MISSED), None: ("nothing promised", THEIRS)}


def serve(ratios, claims, caption):
    """`ratios`: {row: CPU time beside nginx's, None where there was nothing to compare with}; `claims`: those of the JSON, by row."""
    plots = []
    for what, place, rows in PLACES:
        bars = []
        for label, row in rows:
            value, claim = ratios.get(row + place), claims.get(row + place) or claims.get(row + place + " us per request", {})
            words = "" if value is None else f"{value:.2f}" + (f", promised {claim['bound']:.2f}: {'held' if claim['holds'] else 'missed'}" if claim else "")
            bars.append((label, value, words, KINDS[claim.get("holds")], claim.get("bound")))
        if any(row + place in ratios for _, row in rows):
            plots.append((what, bars))
    values = [v for _, bars in plots for b in bars for v in (b[1], b[4]) if v is not None]
    high, left, width, top, gap = max([1.0, *values]) * 1.04, 220, 385, 96, 12
    chart = Chart("CPU time of a response, nginx's = 1 (shorter is better)", f"{caption}; 64 connections", top + sum(BAR * len(bars) + gap for _, bars in plots) + 44)
    chart.legend([KINDS[k][0] for k in KINDS if any(b[1] is not None and b[3] == KINDS[k] for _, bars in plots for b in bars)], 16, ["promised at most"])
    chart.text("nginx with the same bytes", left + width / high, top - 17, "center", color=SOFT)
    for n, (what, bars) in enumerate(plots):
        chart.text(what, 16, top + 3, fontWeight="bold")
        chart.plot(what, bars, left=left, width=width, top=top, high=high, lines=[1], axis=n == len(plots) - 1)
        top += BAR * len(bars) + gap
    chart.text("CPU time per GB, for 1 KB per request. fresh: encrypted for the request; hot: from the cache of encrypted segments", 16, top + 18, color=SOFT)
    return chart.draw()
