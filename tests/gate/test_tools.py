#!/usr/bin/env python3
"""The measured parts of docs/benchmarks.md, tools/perf's reading of stacks, and --nginx-vod of the serving benchmark. TAP; measures
nothing."""
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench" / "perf"), str(ROOT / "bench" / "serve")]
import stacks  # noqa: E402
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
                    claims=[CLAIM]),
    "core": dict(benchmarks=[dict(name="encrypt/cp", run_type="iteration", cpu_time=2e7), dict(name="encrypt/sluice cbcs", run_type="iteration", cpu_time=3e7),
                             dict(name="render/cbcs/32K/hot", run_type="iteration", cpu_time=4000, bytes_per_second=7.5e9),
                             dict(name="plan_init/128k_30min", run_type="iteration", cpu_time=10000, per_item=1.1e-8)],
                 claims=[dict(CLAIM, name="promise two", holds=False)]),
    "serve": dict(benchmarks=[dict(name="serve/sluice/cbcs/fresh/32K/bbr/64", run_type="aggregate", aggregate_name="median", cpu_time=12.5, cpu_s_per_gb=0.345,
                                   req_per_s=40000.0, p50_us=500, p99_us=900, ratio=1.23)], claims=[]),
    "load": dict(benchmarks=[dict(name="load/rate", run_type="iteration", cpu_time=1, client_us_per_request=13.25)]),
}


def page_of(text, *pairs):
    with tempfile.TemporaryDirectory() as tmp:
        page = Path(tmp) / "page.md"
        page.write_text(text)
        for suite in DOCS:
            (Path(tmp) / f"{suite}.json").write_text(json.dumps(DOCS[suite]))
        r = subprocess.run([sys.executable, str(ROOT / "bench/page"), str(page), *[p.format(tmp=tmp) for p in pairs]], capture_output=True, text=True)
        return r.returncode, page.read_text(), r.stderr


BEFORE = "# Title\n\nby hand 1\n\n" + "".join(f"<!-- measured: {s} -->\nold {s}\n<!-- end of {s} -->\nafter {s}\n\n" for s in DOCS)
code, page, err = page_of(BEFORE, *[f"{s}={{tmp}}/{s}.json" for s in DOCS])
check("all four suites are written", code == 0 and not any(f"old {s}" in page for s in DOCS), err)
check("what people wrote stays", page.startswith("# Title\n\nby hand 1\n") and all(f"<!-- end of {s} -->\nafter {s}\n" in page for s in DOCS), page)
check("kernels: the median of the repetitions, aggregates left out", "| vaes512 | 8.25 (0.2500) |" in page, page)
check("core: ratio to cp, GB/s, time a call", "| sluice cbcs | 0.030 | 1.50 |" in page and "| cbcs 32K | 7.5 |" in page and "10.00 us | 11.0 ns" in page, page)
check("serve: a row with its ratio", "| sluice/cbcs/fresh/32K/bbr/64 | 0.345 | 1.23 | 12.5 | 40000 | 500 | 900 |" in page, page)
check("load: the figures that its rows have", "client us per request" in page and "13.25" in page, page)
check("promises say whether they hold", "| promise one | cp | 1.5 x | 2 | yes |" in page and "| promise two | cp | 1.5 x | 2 | **no** |" in page, page)
code, page, err = page_of(BEFORE, "serve={tmp}/serve.json")
check("a suite that did not run keeps its tables", code == 0 and "old kernels" in page and "old serve" not in page, page)
code, page, err = page_of("# nothing marked\n", "serve={tmp}/serve.json")
check("a page without the place is refused and left alone", code != 0 and page == "# nothing marked\n" and "measured: serve" in err, err)
real = (ROOT / "docs/benchmarks.md").read_text()
check("docs/benchmarks.md has a place for each", all(real.count(f"<!-- measured: {s} -->") == 1 and real.count(f"<!-- end of {s} -->") == 1 for s in DOCS))

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
here = stacks.Program(Path(sys.argv[1])) if len(sys.argv) > 1 else None
if here and here.starts and "mp4" in here.layers:
    at = {layer: here.starts[here.layers.index(layer)] for layer in set(here.layers) if layer}
    check("debug information names the layers", {"mp4", "server", "net"} <= set(at) and all(here.place(a) == layer for layer, a in at.items()), set(at))
else:
    check("debug information names the layers # SKIP the program given has none", True)

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
    check("tools/demo: one port twice is wrong usage", r.returncode in (1, 2) and r.stderr.startswith("tools/demo: "), f"{r}")


demo_ports()

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
check("an unknown shape is refused", code != 0 and "serve:cenc/189K" in err, err)
with tempfile.TemporaryDirectory() as tmp:
    (Path(tmp) / "tools").mkdir()
    (Path(tmp) / "bench").symlink_to(ROOT / "bench")
    shutil.copy(ROOT / "tools/perf", f"{tmp}/tools/perf")
    (Path(tmp) / "tools/install").write_text("#!/bin/sh\necho building >&2\nexit 9\n")
    (Path(tmp) / "tools/install").chmod(0o755)
    wrong, right = (subprocess.run([f"{tmp}/tools/perf", what], capture_output=True, text=True) for what in ("serve:cbcs/9K", "serve"))
    check("a wrong argument is refused before anything is built", wrong.returncode == 1 and "building" not in wrong.stderr, wrong.stderr)
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
