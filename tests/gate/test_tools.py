#!/usr/bin/env python3
"""The measured parts of docs/benchmarks.md, tools/perf's reading of stacks, what the serving benchmark compares and takes for valid,
its --nginx-vod, and what tools/test-count makes of logs. TAP; measures nothing."""
import argparse
import contextlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench" / "perf"), str(ROOT / "bench" / "serve")]
import stacks  # noqa: E402
import versions  # noqa: E402
import vod  # noqa: E402

results = []


def check(name, ok, detail=""):
    results.append(bool(ok))
    print(f"{'ok' if ok else 'not ok'} {len(results)} - {name}" + ("" if ok else f"\n  # {detail}"))


# ---- bench/page
CLAIM = dict(name="promise one", value=1.5, bound=2.0, unit="x", holds=True, peer="cp")
DOCS = {
    "kernels": dict(benchmarks=[dict(name=f"cbc/A/vaes512/iterations:1/repeats:3/manual_time{s}", run_name="cbc/A/vaes512/iterations:1/repeats:3/manual_time",
                                     run_type=t, **{"GB/s": g, "cycles/byte": 0.25}) for s, t, g in (("", "iteration", 7.0), ("", "iteration", 9.0),
                                                                                                      ("", "iteration", 8.25), ("_mean", "aggregate", 99.0))],
                    claims=[CLAIM], not_measured=[dict(name="promise three", bound=0.55, unit="x", peer="limit/zmm", why="limit/zmm: this processor cannot run it")]),
    "core": dict(benchmarks=[dict(name="encrypt/cp", run_type="iteration", cpu_time=2e7), dict(name="encrypt/sluice cbcs", run_type="iteration", cpu_time=3e7),
                             dict(name="render/cbcs/32K/hot", run_type="iteration", cpu_time=4000, bytes_per_second=7.5e9),
                             dict(name="plan_init/128k_30min", run_type="iteration", cpu_time=10000, per_item=1.1e-8)],
                 claims=[dict(CLAIM, name="promise two", holds=False)]),
    "serve": dict(benchmarks=[dict(name="serve/sluice/cbcs/fresh/32K/bbr/64", run_type="aggregate", aggregate_name="median", cpu_time=12.5, cpu_s_per_gb=0.345,
                                   req_per_s=40000.0, p50_us=500, p99_us=900, ratio=1.23),
                              dict(name="serve/sluice/cbcs/hot/32K/bbr/256", run_type="aggregate", aggregate_name="median", cpu_time=11, cpu_s_per_gb=0.3,
                                   req_per_s=50000.0, p50_us=400, p99_us=800, ratio=0.75, ratio_of="cpu_s_per_gb", hot_share=0.9987),
                              dict(name="serve/sluice/cbcs/head/189K/bbr/64", run_type="aggregate", aggregate_name="median", cpu_time=7, cpu_s_per_gb=9.5,
                                   req_per_s=90000.0, p50_us=40, p99_us=90, ratio=0.8, ratio_of="us_per_request"),
                              dict(name="serve/sluice/cbcs/pipelined/1K/bbr/64", run_type="aggregate", aggregate_name="median", cpu_time=7, cpu_s_per_gb=6,
                                   req_per_s=130000.0, p50_us=None, p99_us=None, ratio=0.9, ratio_of="us_per_request"),
                              dict(name="serve/first byte, cold: with a sidecar", run_type="aggregate", aggregate_name="median", value=1994.2, unit="us")],
                  claims=[], text=["sluice: nothing lost"],
                  context=dict(versions={"sluice": "abc123", "wrk": "4.1"}, rounds=3, seconds=1.0, discarded=2, nginx_settings="NGINX in servers.py")),
    "load": dict(benchmarks=[dict(name="load/rate", run_type="iteration", cpu_time=1, client_us_per_request=13.25)]),
}


def page_of(text, *pairs):
    with tempfile.TemporaryDirectory() as tmp:
        page = Path(tmp) / "page.md"
        page.write_text(text)
        for suite in DOCS:
            (Path(tmp) / f"{suite}.json").write_text(json.dumps(DOCS[suite]))
        r = subprocess.run([sys.executable, str(ROOT / "bench/page"), str(page), *[p.replace("{tmp}", tmp) for p in pairs]], capture_output=True, text=True)
        return r.returncode, page.read_text(), r.stderr


BEFORE = "# Title\n\nby hand 1\n\n" + "".join(f"<!-- measured: {s} -->\nold {s}\n<!-- end of {s} -->\nafter {s}\n\n" for s in DOCS)
code, page, err = page_of(BEFORE, *[f"{s}={{tmp}}/{s}.json" for s in DOCS])
check("all four suites are written", code == 0 and not any(f"old {s}" in page for s in DOCS), err)
check("what people wrote stays", page.startswith("# Title\n\nby hand 1\n") and all(f"<!-- end of {s} -->\nafter {s}\n" in page for s in DOCS), page)
check("kernels: the median of the repetitions, aggregates left out", "| vaes512 | 8.25 (0.2500) |" in page, page)
check("core: ratio to cp, GB/s, time a call", "| sluice cbcs | 0.030 | 1.50 |" in page and "| cbcs 32K | 7.5 |" in page and "10.00 us | 11.0 ns" in page, page)
check("serve: a row with its ratio", "| sluice/cbcs/fresh/32K/bbr/64 | 0.345 | 1.23 | 12.5 | 40000 | 500 | 900 |" in page, page)
check("serve: rows of 256 connections, figures, what was said, what else the ratio is of", "| sluice/cbcs/hot/32K/bbr/256 | 0.300 | 0.75 |" in page
      and "| first byte, cold: with a sidecar | 1,994 us |" in page and "- sluice: nothing lost" in page and "CPU time a request for head, pipelined." in page
      and "| sluice/cbcs/pipelined/1K/bbr/64 | 6.000 | 0.90 | 7.0 | 130000 | - | - |" in page
      and "at least 99.87 %" in page, page)
check("serve: versions, rounds, settings", "sluice abc123, wrk 4.1; 3 rounds of 1 s, 2 measurements thrown away; nginx's settings: `NGINX` in servers.py" in page, page)
check("load: the figures that its rows have", "client us per request" in page and "13.25" in page, page)
check("promises say whether they hold", "| promise one | cp | 1.5 x | 2 | yes |" in page and "| promise two | cp | 1.5 x | 2 | **no** |" in page, page)
check("promises that could not be measured say why", "| promise three | limit/zmm | not measured | 0.55 | limit/zmm: this processor cannot run it |" in page, page)
code, page, err = page_of(BEFORE, "serve={tmp}/serve.json")
check("a suite that did not run keeps its tables", code == 0 and "old kernels" in page and "old serve" not in page, page)
code, page, err = page_of(BEFORE, "serve={tmp}/serve.json", "--command", "tools/bench {suite} --rows 'x{1}$'")
check("the command as it was given", "`tools/bench serve --rows 'x{1}$'`, " in page, page + err)
for what, pair in (("is not there", "kernels={tmp}/none.json"), ("is no JSON", "kernels={tmp}/page.md")):
    code, page, err = page_of(BEFORE, pair)
    check(f"a result that {what}: named, and the page left alone", code == 1 and page == BEFORE and err.startswith("bench/page: /") and "Traceback" not in err, err)
code, page, err = page_of("# nothing marked\n", "serve={tmp}/serve.json")
check("a page without the place is refused and left alone", code != 0 and page == "# nothing marked\n" and "measured: serve" in err, err)
real = (ROOT / "docs/benchmarks.md").read_text()
check("docs/benchmarks.md has a place for each", all(real.count(f"<!-- measured: {s} -->") == 1 and real.count(f"<!-- end of {s} -->") == 1 for s in DOCS))

# ---- tools/bench --page: the command that was run
with tempfile.TemporaryDirectory() as tmp:
    copy = """while [ "$1" != --json ]; do shift; done; cp "$0.json" "$2" """
    for path, text in (("tools/install", f"echo install $* >>{tmp}/asked"), ("tools/npm", f"echo npm $* >>{tmp}/asked"), ("tools/build", f"echo {tmp}/build-release/src/cli/sluice"),
                       ("bench/core/run", copy), ("bench/serve/run", copy), ("path/ninja", "exit 0")):
        program = Path(tmp) / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    for suite in ("core", "serve"):
        Path(tmp, f"bench/{suite}/run.json").write_text(json.dumps(DOCS[suite]))
    Path(tmp, "docs").mkdir()
    Path(tmp, "docs/benchmarks.md").write_text(BEFORE)
    Path(tmp, "bench/pictures").mkdir()
    for path in ("bench/page", "bench/pictures/charts.py", "tools/bench"):
        shutil.copy(ROOT / path, f"{tmp}/{path}")
    r = subprocess.run([f"{tmp}/tools/bench", "core", "--rounds", "3", "--page", "--rows", "(a|b){2}$"], capture_output=True, text=True)
    page, asked = Path(tmp, "docs/benchmarks.md").read_text(), Path(tmp, "asked").read_text()
    away = Path(tmp) / "away"
    away.mkdir()
    for argv in (["core", "--json", "o.json"], ["--json=o.json", "core"], ["--json", "o.json", "core", "--rounds", "3"]):
        done = subprocess.run([f"{tmp}/tools/bench", *argv], capture_output=True, text=True, cwd=away)
        got = json.loads((away / "o.json").read_text())["claims"] if (away / "o.json").exists() else None
        check(f"tools/bench {argv}: the file is where the command was given", done.returncode == 0 and got == DOCS["core"]["claims"], f"{got} {done.stderr}")
        (away / "o.json").unlink(missing_ok=True)
    done = subprocess.run([f"{tmp}/tools/bench", "serve", "--page", "--json", "o.json"], capture_output=True, text=True, cwd=away,
                          env=dict(os.environ, PATH=f"{tmp}/path:{os.environ['PATH']}"))
    check("tools/bench --page draws, and has written the JSON where it cannot", done.returncode == 1 and "pictures are drawn by ECharts" in done.stderr
          and (away / "o.json").exists() and json.loads((away / "o.json").read_text())["benchmarks"] == DOCS["serve"]["benchmarks"], done.stderr)
    for place in ("none/o.json", "."):
        done = subprocess.run([f"{tmp}/tools/bench", "core", "--json", place], capture_output=True, text=True, cwd=away)
        check(f"tools/bench --json {place}: refused at once", done.returncode == 2 and "cannot be written" in done.stderr, done.stderr)
    check("tools/bench installs what draws pictures when there is a page to write, and not else", asked == "install bench pictures\nnpm pictures\n"
          and Path(tmp, "asked").read_text() == asked + "install bench\n" * 3 + asked, Path(tmp, "asked").read_text())
    check("tools/bench --page writes its own command with the options", r.returncode == 0 and "`tools/bench core --rounds 3 --rows '(a|b){2}$'`, " in page, page + r.stderr)

# ---- benches without a build, and what they say they measured
for program, option in (("serve", "--sluice"), ("kernels", "--program")):
    r = subprocess.run([str(ROOT / f"bench/{program}/run"), option, "/no/such/program"], capture_output=True, text=True)
    check(f"bench/{program}: a program that is not there names tools/build", r.returncode == 2 and "/no/such/program is not there: run tools/build" in r.stderr, r.stderr)
r = subprocess.run([str(ROOT / "bench/kernels/run"), "--rounds", "1"], capture_output=True, text=True)
check("bench/kernels: one round has no quartiles", r.returncode == 2 and "at least 2" in r.stderr, r.stderr)
check("programs of this tree are the default", versions.built("src/cli/sluice") == ROOT / "build-release/src/cli/sluice")
said = versions.of("/no/such/program")
check("versions: none of a tree for a program from elsewhere", "sluice" not in said and said["boring-sys (BoringSSL)"] and said["Linux"], said)

# ---- bench/serve: rows and their peers, what makes a measurement invalid
loader = importlib.machinery.SourceFileLoader("serve_run", str(ROOT / "bench/serve/run"))
serve_run = importlib.util.module_from_spec(importlib.util.spec_from_loader("serve_run", loader))
loader.exec_module(serve_run)
todo = serve_run.rows(argparse.Namespace(rows="", nginx_vod=None))
names = {r["name"] for r in todo}
peers = {r["name"]: serve_run.peer_name(r) for r in todo}
check("every row has a peer that is measured, nginx's are their own", not set(peers.values()) - names and all(peers[n] == n for n in names if n.startswith("nginx")),
      {n: p for n, p in peers.items() if p not in names})
check("rows of cenc have files of cenc's bytes beside them", all(("cenc-bytes" in p) == ("/cenc" in n) for n, p in peers.items()), peers)
check("what is no whole segment is compared by the request", all((r["by"] == "us_per_request") == (r["mode"] in serve_run.servers.CORNERS or r["mode"] == "tiny") for r in todo))


class Counted:
    address, admin = ("127.0.0.1", 1), ("127.0.0.1", 2)

    def __init__(self, cpu, hits, misses):
        self.cpu, self.lookups = iter(cpu), iter([(100, 100), (100 + hits, 100 + misses)])

    def cpu_s(self):
        return next(self.cpu)


def measured(mode, busy, cpu=(0, 1), hits=0, misses=0, apart=(3400, 3500), **res):
    srv, busy, apart, at = Counted(cpu, hits, misses), iter(busy), iter(apart), serve_run.servers
    res = dict(dict(requests=1000, bytes=10**9, seconds=1, errors=0, statuses=0, p50_us=1, p99_us=2), **res)
    with mock.patch.object(at, "core_busy_s", lambda core: next(busy)), mock.patch.object(at, "hot_lookups", lambda admin: next(srv.lookups)), \
            mock.patch.object(serve_run.machine, "apart_ns", lambda: next(apart)), mock.patch.object(serve_run.client, "wrk", lambda *_, **__: res), mock.patch.object(serve_run.client, "heads", lambda *_, **__: res):
        return serve_run.measure(dict(mode=mode, name=mode, conns=64, tls=False), srv, ["/x"], 1)


check("a measurement with its core for itself is valid", measured("fresh", (0, 1.1))["valid"])
m = measured("fresh", (0, 1.5))
check("one beside others is not, and says why", not m["valid"] and "1.50 s, the server for 1.00 s" in m["why"], m)
m = measured("fresh", (0, 0.6))
check("nor is one whose time was stolen", not m["valid"] and "0.60 s, the server for 1.00 s" in m["why"], m)
check("ticks that miss a server which mostly sleeps", measured("fresh", (0, 0.05), (0, 0.17))["valid"] and not measured("fresh", (0, 0.25), (0, 0.17))["valid"])
m = measured("fresh", (0, 1), apart=(3400, 14000))
check("the cores apart, before or behind: the further", m["apart_ns"] == 14000 and measured("fresh", (0, 1), apart=(9000, 3000))["apart_ns"] == 9000, m)
check("twice as far apart as at their nearest is not valid, and says why", serve_run.far(m, 3400) and not m["valid"] and "14.0 us, 3.4" in m["why"], m)
check("less than that is", not serve_run.far(measured("fresh", (0, 1), apart=(3400, 6700)), 3400))
check("nor is one that copies nothing, whether a distance is known or not", not serve_run.far(measured("hot", (0, 1), hits=1), 3400) and not serve_run.far(measured("hot", (0, 1), hits=1), None))
check("what hands pages on copies none", "apart_ns" not in measured("hot", (0, 1), hits=1) and not any(map(serve_run.copies, (r for r in todo if r["mode"] in ("sendfile", "hot")))))
m = measured("hot", (0, 1), hits=951, misses=49)
check("a hot row that was hot", m["valid"] and m["hot_share"] == 0.951, m)
m = measured("hot", (0, 1), hits=949, misses=51)
check("a hot row under 95 % is not valid, and says why", not m["valid"] and "94.9 %" in m["why"], m)
m = measured("pipelined", (0, 1))
check("requests that are sent ahead have no latencies", m["valid"] and m["p50_us"] is None and m["p99_us"] is None, m)
ahead = next(r for r in todo if r["server"] == "sluice" and r["mode"] == "pipelined")
check("answers of 404 are what a storm of them is about", measured("not-found", (0, 1), errors=1000, statuses=1000)["valid"])
try:
    refused = measured("fresh", (0, 1), errors=1, statuses=1)
except SystemExit as e:
    refused = str(e)
check("elsewhere they end the run", "1 of 1000 responses failed" in str(refused), refused)
check("a request with headers for wrk", serve_run.client.lua(serve_run.client.asked("/a", 2, If_None_Match='"x"')) == '{path="/a",times=2,headers={["If-None-Match"]="\\"x\\""}}')
with mock.patch.object(serve_run.servers, "get", lambda *_: (200, b"", b'# TYPE a\na{worker="0",b="c"} 2\na{worker="1",b="c"} 3\nx{worker="0"} 1\nx{worker="1"} 4\n')):
    check("metrics are summed over the workers", serve_run.servers.metrics(("", 0)) == {'a{b="c"}': 5, "x": 5}, serve_run.servers.metrics(("", 0)))

row = next(r for r in todo if r["server"] == "sluice" and r["scheme"] == "cbcs" and r["mode"] == "fresh" and r["conns"] == 64)
took = dict(cpu_s_per_gb=0.3, us_per_request=10, req_per_s=1, p50_us=1, p99_us=1, round=0, valid=True)
enough = [row] + [dict(r, name=r["name"] + f" {i}" * bool(i)) for i in range(3) for r in todo if r["name"] == peers[row["name"]]]


def reported(mine, its=None):
    """The exit status and what the JSON says of promises, of a run of that row and its peer, with rows enough that one lost is no noisy machine."""
    with tempfile.TemporaryDirectory() as tmp, mock.patch("builtins.print"), mock.patch.object(serve_run.versions, "of", lambda _: {}):
        out, status = Path(tmp) / "o.json", 0
        results = {r["name"]: [mine if r is row else dict(took, cpu_s_per_gb=0.9)] for r in enough} | ({peers[row["name"]]: [its]} if its else {})
        try:
            serve_run.report(argparse.Namespace(json=out, rounds=1, seconds=1, seed=1, sluice=""), enough, results, {}, None)
        except SystemExit as e:
            status = e.code
        doc = json.loads(out.read_text())
        return status, [c["holds"] for c in doc["claims"]], [c["why"] for c in doc["not_measured"]]


with tempfile.TemporaryDirectory() as tmp, mock.patch("builtins.print") as said, mock.patch.object(serve_run.versions, "of", lambda _: {}):
    with contextlib.suppress(SystemExit):
        serve_run.report(argparse.Namespace(json=Path(tmp) / "o.json", rounds=1, seconds=1, seed=1, sluice=""), [ahead],
                         {ahead["name"]: [dict(took, p50_us=None, p99_us=None)]}, {}, None)
check("bench serve: nor has their row", any(str(c.args[0]).startswith(ahead["name"]) and c.args[0].split()[-3:-1] == ["-", "-"] for c in said.call_args_list), said.call_args_list)
lost = dict(took, valid=False, why="others")
check("bench serve: promises that hold, and one that does not", (reported(took), reported(dict(took, cpu_s_per_gb=2.0))) == ((0, [True] * 3, []), (1, [False, True, True], [])), reported(took))
check("bench serve: promises that could not be measured are none that hold", reported(lost) == (3, [], ["no valid round"] * 3), reported(lost))
check("bench serve: nor are those of a row whose peer could not", reported(took, lost) == (3, [], ["its peer has no valid round"] * 3), reported(took, lost))
other = reported(took, dict(took, round=1))
check("bench serve: nor those whose peer was measured in other rounds", other == (3, [], ["no round in which its peer is valid as well"] * 3), other)

with tempfile.TemporaryDirectory() as tmp, mock.patch.object(serve_run.machine, "path_of", lambda name: Path(tmp) / name):
    for name in ("a.b", "c.d"):
        Path(tmp, name).write_text("0\n")
    with serve_run.machine.settings(["a.b=20", "a.b=30"]):
        during = [Path(tmp, name).read_text() for name in ("a.b", "c.d")]
    check("bench serve: settings of the kernel last as long as a run", (during, Path(tmp, "a.b").read_text()) == (["30", "0\n"], "0\n"), during)
    try:
        with serve_run.machine.settings(["c.d=1", "none=1"]):
            refused = "not"
    except SystemExit as e:
        refused = str(e)
    check("bench serve: one that is not there is named, and the others are restored", "--sysctl none=1: " in refused and Path(tmp, "c.d").read_text() == "0\n", refused)

# ---- bench/load: what counts as a measurement, and what is asked beyond a limit
loader = importlib.machinery.SourceFileLoader("load_run", str(ROOT / "bench/load/run"))
load_run = importlib.util.module_from_spec(importlib.util.spec_from_loader("load_run", loader))
loader.exec_module(load_run)


def generator(code, **totals):
    """Bench.load() of a run that ends with `code`."""
    with tempfile.TemporaryDirectory() as tmp:
        bench = object.__new__(load_run.Bench)
        bench.args, bench.run, bench.scenario, bench.url = argparse.Namespace(sluice="sluice"), Path(tmp), "s.yaml", "http://x"
        t = dict(dict(requests=10, elapsed_s=1, errors=0, unanswered=0), **totals)
        doc = dict(totals=t, seconds=[], lag=dict(percentiles_us=[[99, 5]]))

        def client(argv):
            Path(argv[argv.index("--json") + 1]).write_text(json.dumps(doc))
            return f"bench: 10 requests, {t['errors']} failed, {t['unanswered']} unanswered", "", code, 1.0, 10
        with mock.patch.object(load_run, "run_client", client):
            try:
                return bench.load("32K", 1)["errors"]
            except SystemExit as e:
                return str(e)


check("bench load: a run, and one that is asked for more than there is", (generator(0), generator(1, errors=7, unanswered=7)) == (0, 7))
check("bench load: answers that fail are no measurement", "7 failed, 0 unanswered" in str(generator(1, errors=7)), generator(1, errors=7))
near = [tuple(dict(zeros_of, req_per_s=v) for v in (100, 100 + i)) for zeros_of in [dict(cpu_us=1, sleeps=1, server_us=1, server_share=1)] for i in range(6)]
check("bench load: an interval of fewer than six rounds is none", [load_run.compared("x", near[:n], [])[2] for n in (5, 6)] == [False, True])
bench, got, told = object.__new__(load_run.Bench), iter([50, 90, 70, 80]), []
bench.args, bench.lost = argparse.Namespace(rounds=2), 0
zeros = dict(cpu_us=1, sleeps=1, server_us=1, server_share=1)
bench.wrk, bench.measure = lambda size: dict(zeros, req_per_s=next(got)), lambda what: what()
with mock.patch.object(load_run.random, "sample", lambda names, n: ["wrk", "ours"]):
    bench.beside_wrk("32K", lambda best: told.append(best) or dict(zeros, req_per_s=1), 60)
check("bench load: what is asked for follows the best that wrk got so far", told == [60, 60, 90, 90], told)

# ---- bench/serve: what is no row
extras = serve_run.more
calls = extras.calls_of('sendto(9, ""..., 65000, MSG_NOSIGNAL, NULL, 0) = 65000\nfutex(0x7f, FUTEX_WAIT_PRIVATE, 2, NULL) = 0\nfutex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1\n'
                        'sendto(9, ""..., 65000, MSG_NOSIGNAL, NULL, 0) = -1 EAGAIN (Resource temporarily unavailable)\n+++ exited with 0 +++\n')
check("a trace: calls by name, a futex by what is done with it", calls == {"sendto": 2, "futex wait": 1, "futex wake": 1}, calls)
with tempfile.TemporaryDirectory() as tmp, mock.patch.object(extras, "DELAYS", Path(tmp, "task_delayacct")):
    with extras.DelaysCounted() as counted:
        check("a kernel that does not count delays", not counted and not extras.DELAYS.exists())
    extras.DELAYS.write_text("0\n")
    with extras.DelaysCounted() as counted:
        during = extras.DELAYS.read_text()
    check("delays are counted for the run, and the setting is put back", counted and (during, extras.DELAYS.read_text()) == ("1", "0"))


def stalls(unfinished, held, last=((100, 10),) * 9):
    """Rounds of readers that a server does or does not feel."""
    srv, clock, order = Counted((), 0, 0), iter(range(10_000)), []
    rates = iter([r for end in last for r in ((100, 10), (80, 12), (90, 10), (99, 10), end)])
    with mock.patch.object(extras, "rate", lambda *_: next(rates)), mock.patch.object(extras, "settled", lambda _: None), \
            mock.patch.object(extras.client, "Stalled", lambda *_: mock.MagicMock(__enter__=lambda _: order.append("in"), __exit__=lambda *_: order.append("out"))), \
            mock.patch.object(extras, "buffers", lambda _: held if len(order) % 2 else 0), mock.patch.object(extras.time, "sleep", lambda _: None), \
            mock.patch.object(extras.time, "monotonic", lambda: next(clock)):
        try:
            return extras.stall_rounds(srv, ["/x"], ["/whole"], 1, lambda _: unfinished if len(order) % 2 else 0)
        except SystemExit as e:
            return str(e), [], 0


rounds, held, disturbed = stalls(extras.STALLED, 192)
check("stalled readers: free, held, held, late, free", len(rounds) == extras.STALL_ROUNDS and max(held) == 192 and
      [round(extras.beside_free(rounds, which, at), 9) for which, at in ((0, (1, 2)), (1, (1, 2)), (0, (3,)))] == [0.85, 1.1, 0.99], rounds)
uneven = [((100, 1), (a, 1), (a, 1), (a, 1), (100, 1)) for a in (90, 50, 96)]
check("stalled readers: the median of the rounds", extras.beside_free(uneven, 0, (1, 2)) == 0.9)
rounds, _, disturbed = stalls(extras.STALLED, 192, ((90, 12), (100, 10), (99, 11), (100, 10)))
check("stalled readers: a round whose free ends differ is thrown away", disturbed == 1 and [r[-1] for r in rounds] == [(100, 10), (99, 11), (100, 10)], rounds)
rounds, _, disturbed = stalls(extras.STALLED, 192, ((90, 12),) * 9)
check("stalled readers: not for ever", disturbed == extras.STALL_ROUNDS and not rounds, rounds)
check("readers that stall nothing end the run", "0 responses are unfinished, not 300" in stalls(0, 0)[0], stalls(0, 0))

# ---- stacks
TEXT = """sluice  123/124  [000] 1.000: 500000 cpu-clock:
\t    55d0 vaes512_cbc+0x1f (/x/sluice)
\t    55d1 plan_render (/x/sluice)
\t    55d2 pump.part.0 (/x/sluice)

sluice  123/124  [000] 1.001: 500000 cpu-clock:
\tffffffff81 copy_from_iter+0x10 ([kernel.kallsyms])
\tffffffff82 tcp_sendmsg ([kernel.kallsyms])
\t    55d2 pump.part.0 (/x/sluice)

"""
found = stacks.parse(TEXT)
check("stacks: two samples, innermost first, offsets cut off", [s[0][0] for s in found] == ["vaes512_cbc", "copy_from_iter"] and len(found[0]) == 3, found)


class Program:  # stands for debug information
    name = "sluice"
    place = staticmethod({0x55d0: "simd", 0x55d2: "server"}.get)


text = stacks.summary(found, Program)
places, itself, total = text.split("\n\n")
check("summary: by layer", "50.0 %  simd" in places and "50.0 %  kernel" in places and "server" not in places, places)
check("summary: with what they call, and where they belong", "100.0 %  pump.part.0  (server)" in total, total)

check("the event is the one that was counted", stacks.event(TEXT) == "cpu-clock", stacks.event(TEXT))
check("what the flame graph is drawn from reads the same and names no path", [[f[0] for f in s] for s in stacks.parse(stacks.plain(found))]
      == [[f[0] for f in s] for s in found] and "/x/" not in stacks.plain(found))
check("what the renderer draws becomes XML", stacks.well_formed('<svg><g onmouseover="a && b(1)"><title>x &lt; y</title></g></svg>')
      == '<svg><g onmouseover="a &amp;&amp; b(1)"><title>x &lt; y</title></g></svg>')
lines = ("/a/sluice/src/mp4/box.c:1", "/src/sluice/build/../src/server/pump.c:162", "/a/bench/sluice/src/net/tls.c:7 (discriminator 2)",
         "/usr/src/sluice/bench/kernels/cenc.cc:9", "/usr/share/llhttp/llhttp.c:3", "/usr/src/glibc/string.c:5", "??:?")
check("a line is of a layer wherever the clone lies", (at := list(map(stacks.Program.layer, lines)))
      == ["mp4", "server", "net", "bench", "llhttp", "glibc", None], at)
here = stacks.Program(Path(sys.argv[1])) if len(sys.argv) > 1 else None
if here and here.starts and "mp4" in here.layers:
    at = {layer: here.starts[here.layers.index(layer)] for layer in set(here.layers) if layer}
    check("debug information names the layers", {"mp4", "server", "net"} <= set(at) and all(here.place(a) == layer for layer, a in at.items()), set(at))
else:
    check("debug information names the layers # SKIP the program given has none", True)

# ---- tools/test-count
FINE = """<?xml version='1.0' encoding='utf-8'?>
<testsuites><testsuite name="p.p:unit / one"><testcase name="1 - a"/><testcase name="2 - b"><skipped/><system-out>no b here</system-out></testcase>
<system-out>1..2 MORE</system-out></testsuite><testsuite name="p"><testcase name="p:unit / two"/></testsuite></testsuites>"""
BAD = FINE.replace('<testcase name="1 - a"/>', '<testcase name="1 - a"><failure/></testcase>')


def counted(xml, one="OK", two="OK", status=0, skips=None, log=True, stdout=""):
    """The last line, everything, and the exit status for logs of two programs: `one` prints TAP, `two` nothing."""
    with tempfile.TemporaryDirectory() as tmp:
        if xml is not None:
            Path(tmp, "testlog.junit.xml").write_text(xml)
        if log:
            Path(tmp, "testlog.json").write_text("".join(json.dumps(dict(name=f"p:unit / {name}", result=result, duration=1, returncode=0, stdout=stdout)) + "\n"
                                                         for name, result in (("one", one), ("two", two)) if result))
        if skips is not None:
            Path(tmp, "skips").write_text("# a comment\n\n" + skips)
        r = subprocess.run([ROOT / "tools/test-count", tmp, str(status), *(["--skips", f"{tmp}/skips"] if skips is not None else [])], capture_output=True, text=True)
        return r.stdout.splitlines()[-1], r.stdout + r.stderr, r.returncode


for name, want, said, args in (
        ("all good", "2 passed, 0 failed", "skipped: one: b: no b here", dict(xml=FINE)),
        ("a failed case is not counted twice", "1 passed, 1 failed", "failed: one: a", dict(xml=BAD, one="ERROR", status=1)),
        ("what a failed case noted is told", "1 passed, 1 failed", "failed: one: a\n  # got 1\n  # 2\n  # 3\n  # 4\nskipped: ",
         dict(xml=BAD, one="ERROR", status=1, stdout="# begins\nok 1 - b\nnot ok 2 - a\n# got 1\n# 2\n# 3\n# 4\n# 5\nok 3 - c\n# no\n")),
        ("a crash behind good cases", "2 passed, 1 failed", "failed: one: ERROR", dict(xml=FINE, one="ERROR", status=1)),
        ("a hung program without a case", "1 passed, 1 failed", "failed: two: TIMEOUT", dict(xml=FINE, two="TIMEOUT", status=1)),
        ("the same beside another failure", "0 passed, 2 failed", "failed: two: TIMEOUT", dict(xml=BAD, one="ERROR", two="TIMEOUT", status=2)),
        ("a program that failed a case and then hung", "1 passed, 2 failed", "failed: one: TIMEOUT", dict(xml=BAD, one="TIMEOUT", status=1)),
        ("one that was interrupted", "1 passed, 1 failed", "failed: two: INTERRUPT", dict(xml=FINE, two="INTERRUPT", status=1)),
        ("a program that is in one log only", "2 passed, 1 failed", "failed: one: not in testlog.json", dict(xml=FINE, one=None)),
        ("meson failed for a reason of its own", "2 passed, 1 failed", "meson's exit status is 1", dict(xml=FINE, status=1)),
        ("control characters in the XML", "2 passed, 0 failed", "no b here", dict(xml=FINE.replace("MORE", "\x1b[1m\0\x7f\ufffe\n\t"))),
        ("XML that ends early", "0 passed, 1 failed", "ParseError", dict(xml=FINE[:200])),
        ("no XML", "0 passed, 1 failed", "no test ran", dict(xml=None)),
        ("no JSON", "0 passed, 1 failed", "testlog.json", dict(xml=FINE, log=False)),
        ("no test", "0 passed, 1 failed", "no test ran", dict(xml="<testsuites/>", one=None, two=None)),
        ("a skip that is allowed", "2 passed, 0 failed", "skipped: one: b: no b here", dict(xml=FINE, skips="^one: .*: no b")),
        ("one that is not", "2 passed, 1 failed", "failed: one: b: no b here: this may not be skipped here", dict(xml=FINE, skips="^two: "))):
    last, text, code = counted(**args)
    check(f"tools/test-count: {name}", last == want and said in text and code == (0 if " 0 failed" in want else 1), f"{code} {text}")
check("what .ci/run lets be skipped are regular expressions", [re.compile(line) for line in Path(ROOT, ".ci/skips").read_text().splitlines()])

# ---- every command of tools/ that users call

def helps():
    for tool in ("bench", "bench-gate", "boringssl", "build", "demo", "fuzz", "install", "npm", "perf", "python", "test", "tidy"):
        for asked in ("--help", "-h"):
            r = subprocess.run([ROOT / "tools" / tool, asked], capture_output=True, text=True, timeout=60)
            check(f"tools/{tool} {asked}: what it does, status 0", r.returncode == 0 and f"tools/{tool}" in r.stdout and not r.stderr, f"{r}")
    for argv in (["build", "rel"], ["build", "debug", "asan"], ["fuzz"], ["fuzz", "box"], ["fuzz", "box", "soon"], ["fuzz", "box", "9", "--kepe"],
                 ["install"], ["install", "rust"], ["npm", "x"], ["python", "x"], ["boringssl", "x"], ["test", "x"], ["tidy", "x"], ["demo", "--port", "x"],
                 ["bench", "x"], ["bench", "kernels", "--json"], ["perf"]):
        r = subprocess.run([ROOT / "tools" / argv[0], *argv[1:]], capture_output=True, text=True, timeout=60)
        check(f"tools/{' '.join(argv)}: wrong usage is status 2, and said", r.returncode == 2 and r.stderr and not r.stdout, f"{r}")


helps()


def demo_ports():
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = str(busy.getsockname()[1])
        for option in ("--port", "--admin", "--page"):
            r = subprocess.run([ROOT / "tools/demo", "--check", option, taken], capture_output=True, text=True, timeout=60)
            # 8080, 9090 or 8000 may be taken here as well, and are then named first
            check(f"tools/demo {option}: a port that is taken ends it before it builds", r.returncode == 1 and "listens on port" in r.stderr
                  and "everything answers" not in r.stdout, f"{r}")
    r = subprocess.run([ROOT / "tools/demo", "--port", "1", "--admin", "1"], capture_output=True, text=True, timeout=60)
    check("tools/demo: one port twice is wrong usage", r.returncode == 2 and r.stderr.startswith("tools/demo: "), f"{r}")
    for option, port in (("--port", "0"), ("--admin", "99999"), ("--page", "65536")):
        r = subprocess.run([ROOT / "tools/demo", "--check", option, port], capture_output=True, text=True, timeout=60)
        check(f"tools/demo {option} {port}: no port, said before anything is installed or built",
              r.returncode == 2 and r.stderr == f"tools/demo: {option} {port}: a port is a number from 1 to 65535\n" and not r.stdout, f"{r}")


demo_ports()

# What the demo builds and starts, played by one script: servers answer everything, the load generator writes $RESULT or nothing.
PART = """#!/usr/bin/env python3
import http.server, os, pathlib, sys, threading, time
class Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
name, args = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
if [name, *args] == os.environ.get("FAILS", "").split():
    time.sleep(0.2)
    sys.exit(9)
elif name in ("build", "npm"):
    print(pathlib.Path(sys.argv[0]).resolve().parent / "sluice")
elif args[:1] == ["load"]:
    if os.environ["RESULT"]:
        pathlib.Path(args[args.index("--json") + 1]).write_text(os.environ["RESULT"])
    sys.exit(1)
elif args[:1] == ["serve"] or name == "serve-page":
    for port in {args[i + 1].split(":")[-1] for i, a in enumerate(args) if a in ("--listen", "--admin", "--port")}:
        threading.Thread(target=http.server.HTTPServer(("127.0.0.1", int(port)), Yes).serve_forever).start()
"""


def demo_check():
    with tempfile.TemporaryDirectory() as tmp:
        root = Path(tmp)
        for folder in ("tools", "demo/synth", ".cache/demo"):
            (root / folder).mkdir(parents=True)
        shutil.copy(ROOT / "tools/demo", root / "tools/demo")
        (root / "demo/synth/a.c").write_text("")
        for part in ("tools/sluice", "tools/install", "tools/build", "tools/npm", "tools/boringssl", "demo/make-catalogue", "demo/serve-page"):
            (root / part).write_text(PART)
            (root / part).chmod(0o755)
        good, wrong = (json.dumps(dict(totals=dict(verified=7, wrong=n))) for n in (0, 1))
        for name, result, code, said in (("all compared", good, 0, "7 segments compared, 0 wrong"), ("a wrong one", wrong, 1, "7 segments compared, 1 wrong"),
                                         ("a load generator that ended early", "", 1, "nothing was compared")):
            (root / ".cache/demo/check.json").write_text(good)  # of an earlier check
            sockets = [socket.socket() for _ in range(3)]
            for s in sockets:
                s.bind(("127.0.0.1", 0))
            ports = [str(s.getsockname()[1]) for s in sockets]
            for s in sockets:
                s.close()
            r = subprocess.run([root / "tools/demo", "--check", "--port", ports[0], "--admin", ports[1], "--page", ports[2]], capture_output=True,
                               text=True, timeout=60, env=dict(os.environ, RESULT=result))
            check(f"tools/demo --check: {name}: status {code}", r.returncode == code and said in r.stdout + r.stderr
                  and ("everything answers" in r.stdout) == (code == 0), f"{r}")
        for step in ("install build", "install demo", "npm demo", "boringssl"):
            r = subprocess.run([root / "tools/demo", "--check", "--port", ports[0], "--admin", ports[1], "--page", ports[2]], capture_output=True,
                               text=True, timeout=60, env=dict(os.environ, RESULT=good, FAILS=step))
            check(f"tools/demo: where {step} fails, also beside another step, it ends with its status", r.returncode == 9 and not r.stdout, f"{r}")


demo_check()

# ---- tools/perf where it cannot work


def perf(*args, fake):
    with tempfile.TemporaryDirectory() as tmp:
        program = Path(tmp) / "perf"
        program.write_text(fake)
        program.chmod(0o755)
        r = subprocess.run([sys.executable, str(ROOT / "bench/perf/run"), *args, "--build", tmp, "--flamegraph", "none", "--out", f"{tmp}/out"],
                           capture_output=True, text=True, env=dict(os.environ, PATH=f"{tmp}:{os.environ['PATH']}"))
        return r.returncode, r.stderr


code, err = perf("core", fake="#!/bin/sh\necho 'Access to performance monitoring is limited' >&2\nexit 255\n")
check("not permitted: says what to do, with perf's words", code == 1 and "perf_event_paranoid" in err and "monitoring is limited" in err, err)
code, err = perf("no-such-thing", fake="#!/bin/sh\nexit 0\n")
check("an unknown scenario: 2, with those that there are", code == 2 and "release-day" in err, err)
code, err = perf("serve:cbcs/9K", fake="#!/bin/sh\nexit 0\n")
check("an unknown shape is refused", code == 2 and "serve:cenc/189K" in err, err)
with tempfile.TemporaryDirectory() as tmp:
    (Path(tmp) / "tools").mkdir()
    (Path(tmp) / "bench").symlink_to(ROOT / "bench")
    shutil.copy(ROOT / "tools/perf", f"{tmp}/tools/perf")
    (Path(tmp) / "tools/install").write_text("#!/bin/sh\necho building >&2\nexit 9\n")
    (Path(tmp) / "tools/install").chmod(0o755)
    wrong, right = (subprocess.run([f"{tmp}/tools/perf", what], capture_output=True, text=True) for what in ("serve:cbcs/9K", "serve"))
    check("a wrong argument is refused before anything is built", wrong.returncode == 2 and "building" not in wrong.stderr, wrong.stderr)
    check("a good one is built for", right.returncode == 9 and "building" in right.stderr, right.stderr)

# ---- bench/serve --nginx-vod: programs that are none, what its nginx is told, what is compared
with tempfile.TemporaryDirectory() as tmp:
    def nginx(arguments, status=0):
        program = Path(tmp) / "nginx"
        program.write_text(f"#!/bin/sh\necho 'nginx version: nginx/1.2.3\nconfigure arguments: {arguments}' >&2\nexit {status}\n")
        program.chmod(0o755)
        return str(program)

    plain = nginx("--with-threads --add-module=../x --prefix=/nginx-vod-module")
    r = subprocess.run([str(ROOT / "bench/serve/run"), "--sluice", "none", "--nginx-vod", plain, "--work", f"{tmp}/work"], capture_output=True, text=True)
    check("an nginx without the module is refused by its path, and nothing made", r.returncode == 2 and f"{plain} lacks nginx-vod-module" in r.stderr
          and not Path(tmp, "work").exists(), r.stderr)
    why = vod.refusal(nginx("--add-module=../x --add-dynamic-module=/s/nginx-vod-module-1.33"))
    check("a dynamic module is refused as one", plain in why and "dynamic" in why, why)
    why = vod.refusal(nginx("--add-module=/s/nginx-vod-module", 127))
    check("a program that fails is refused with its words", why.startswith(f"{plain} cannot be run") and "127: nginx version" in why, why)
    why = [vod.refusal(p) for p in (tmp, f"{tmp}/nothing")]
    check("so are a folder and a path of nothing", all(w.startswith(f"{p} cannot be run: ") for w, p in zip(why, (tmp, f"{tmp}/nothing"))), why)
    check("the module built in is taken", vod.refusal(nginx("--with-threads --add-module=/s/nginx-vod-module-1.33 --with-debug")) is None)
    for name, text in (("install", "exit 0"), ("build", "echo building >&2; exit 9")):
        (Path(tmp) / "tools").mkdir(exist_ok=True)
        (Path(tmp) / "tools" / name).write_text(f"#!/bin/sh\n{text}\n")
        (Path(tmp) / "tools" / name).chmod(0o755)
    shutil.copy(ROOT / "tools/bench", f"{tmp}/tools/bench")
    (Path(tmp) / "bench").symlink_to(ROOT / "bench")
    right, wrong, none = (subprocess.run([f"{tmp}/tools/bench", "serve", "--nginx-vod", *p], capture_output=True, text=True)
                          for p in ([plain], [plain[:-1]], []))
    check("tools/bench refuses before it builds", wrong.returncode == none.returncode == 2 and "building" not in wrong.stderr + none.stderr
          and f"{plain[:-1]} cannot be run" in wrong.stderr, wrong.stderr + none.stderr)
    check("tools/bench builds for one that has it", right.returncode == 9 and "building" in right.stderr, right.stderr)
text = vod.server_block(Path("/w/vod"))
check("its nginx: caches on, no clear segments, key and IV", all(x in text for x in ("vod_metadata_cache ", "vod_response_cache ", "vod_drm_info_cache ",
      "vod_drm_clear_lead_segment_count 0;", '"key": ', '"iv": ')) and text.count("{") == text.count("}"), text)
places = dict(x.strip().removeprefix("location ").split(" ", 1) for x in text.splitlines() if "alias" in x)
check("its nginx: every scheme and size at the rows' segment length", sorted(places) == [f"/{s}/{z}/" for s in ("cbcs", "cenc", "clear") for z in ("189K", "32K")]
      and all(f"vod_segment_duration {6000 if '189K' in k else 2000};" in v and ("vod_drm_enabled on" in v) == ("clear" not in k) for k, v in places.items()), places)
check("the configuration that every nginx gets takes it", text in vod.servers.NGINX.format(dir="d", port=1, root="r", tls="", tls_conf="", user="u", extra=text))
rounds = {f"{who}/cbcs/fresh/32K/bbr/64": {n: dict(cpu_s_per_gb=v) for n, v in enumerate(costs) if v} for who, costs in
          (("sluice", (1, 2, 9, 4)), ("nginx-vod", (2, 4, 0, 2)))}
row = dict(server="sluice", scheme="cbcs", mode="fresh", size="32K", cc="bbr", conns=64, name="sluice/cbcs/fresh/32K/bbr/64")
claim = vod.claims(row, rounds)
check("the claim is the median over the rounds of both", [(c["value"], c["holds"], c["peer"]) for c in claim] == [(0.5, True, "nginx-vod/cbcs/fresh/32K/bbr/64")], claim)
rounds[row["name"]] = {0: dict(cpu_s_per_gb=2.1)}
check("it can fail", [c["holds"] for c in vod.claims(row, rounds)] == [False])
check("no claim for other rows, nor without its", not any(vod.claims(dict(row, name=n), rounds) for n in ("sluice/cbcs/hot/32K/bbr/64", "sluice/cbcs/fresh/32K/bbr/64/tls",
      "nginx-vod/cbcs/fresh/32K/bbr/64")) and not vod.claims(row, {row["name"]: {}}) and not vod.claims(dict(row, cc="cubic"), rounds))
print(f"1..{len(results)}")
sys.exit(not all(results))
