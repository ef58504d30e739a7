#!/usr/bin/env python3
"""The scenarios that ship, for a shortened time; the search for the capacity; what is wrong usage: scenarios.py SLUICE"""
import json
import pathlib
import re
import resource
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.disturbed import Disturbance  # noqa: E402
from judge.listening import Listening  # noqa: E402
from judge.load import Load, keys_text, media  # noqa: E402
from judge.programs import ROOT, run  # noqa: E402
from judge.server import Server, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSETS = [f"coastline/{s}" for s in ("first-light", "low-tide", "paper-boats")]
SMALL = "catalogue: { assets: [coastline/low-tide] }\n"


def shipped(tap, load, server):
    """Every scenario in bench/scenarios runs against its catalogue. Service levels are for a machine of their own, not for a test."""
    files = sorted((ROOT / "bench" / "scenarios").glob("*.yaml"))
    tap.equal([f.stem for f in files], ["capacity-search", "flash-crowd-cold", "full-house", "idle-herd", "long-tail", "release-day", "skip-happy", "slow-readers"],
              "the scenarios that ship")
    compare = ["--verify", load.folder / "media", "--keys", load.folder / "keys.yaml"]
    started = []

    def start(argv):
        return subprocess.Popen([str(a) for a in argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(p):
        """What it said, and whether it ran without a failed request, or a session that heard nothing."""
        try:
            out = p.communicate(timeout=300)[0]
        finally:
            p.kill()
        asked = re.search(r": (\d+) requests in ([\d.]+) s", out)
        return out, p.returncode == 0 and asked and int(asked[1]) >= 10 and float(asked[2]) < 30
    for f in files:
        text = f.read_text()
        text = re.sub(r"^level:.*$", "level: { errors: 0, lag_p99_ms: 60000 }", text, flags=re.M)
        flags = ["--connections", "100", "--seconds", "5"] if "mode: idle" in text else compare
        if "mode: capacity" in text:
            continue
        path = load.folder / f.name
        path.write_text(text)
        argv = [load.sluice, "load", path, "--target", f"http://127.0.0.1:{server.port}", "--shorten", "0.06", "--json", path.with_suffix(".json"), *flags]
        started.append((f.stem, path.with_suffix(".json"), flags == compare, argv, start(argv)))
    for name, result, compared, argv, (out, good) in [(*rest, end(p)) for *rest, p in started]:
        seen = None
        for _ in range(3):  # what a busy machine cannot do beside the others, and within the scenario's time, is done alone
            if not good and (not seen or seen.late_s > 0.1):
                tap.note(f"{name}: again, alone\n{out}")
                with Disturbance() as seen:
                    out, good = end(start(argv))
        tap.ok(good, f"{name}: runs, without a failed request", out)
        if compared:  # of --verify: every segment of every session, ranges and HEAD beside it
            t = json.loads(result.read_text())["totals"]
            tap.ok(t["verified"] >= t["segments"] > 0 < t["decrypted"] and not t["wrong"], f"{name}: every byte is compared with the clear source", t)


def comparison(tap, load, sluice, folder, server):
    """--verify, --keys, --share: over what the scenario says, relative to the working folder; and they find what is wrong."""
    path, target = folder / "apart" / "day.yaml", f"http://127.0.0.1:{server.port}"
    path.parent.mkdir()
    path.write_text((ROOT / "bench/scenarios/release-day.yaml").read_text().replace("lag_p99_ms: 20", "lag_p99_ms: 60000"))

    def play(*flags, scenario=path):
        out = folder / "compared.json"
        out.unlink(missing_ok=True)
        r = run(sluice, "load", scenario, "--target", target, "--shorten", "0.03", "--json", out, *flags, cwd=folder, timeout=120)
        return r, json.loads(out.read_text())["totals"] if out.exists() else {}
    r, t = play("--verify", "media", "--keys", "keys.yaml", "--share", "25%")
    tap.ok(0 < t["verified"] < 0.6 * t["segments"] and not t["wrong"], "--share: so many of the sessions; paths are relative to the working folder", f"{t} {r}")
    (folder / "other.yaml").write_text(keys_text(ASSETS[::-1]))
    r, t = play("--verify", "media", "--keys", "other.yaml")
    tap.ok(r.code == 1 and t["wrong"] > 0 and t["first_wrong"].startswith("/coastline/"), "--keys of another server: status 1, and where", f"{t} {r}")
    r = run("bash", "-c", 'exec "$@" --keys <(cat keys.yaml)', "bash", sluice, "load", path, "--target", target, "--shorten", "0.03", "--verify", "media", cwd=folder, timeout=120)
    tap.ok(re.search(r"[1-9]\d* segments compared .* 0 wrong", r.out.decode()), "--keys may be a pipe", r)
    swapped = folder / "swapped"
    for asset, other in zip(ASSETS, ASSETS[1:] + ASSETS[:1]):
        (swapped / asset).parent.mkdir(parents=True, exist_ok=True)
        (swapped / asset).symlink_to(folder / "media" / other)
    r, t = play("--verify", "swapped", "--keys", "keys.yaml")
    tap.ok(r.code == 1 and t["wrong"] > 0, "--verify with other music: status 1", f"{t} {r}")
    own = folder / "apart" / "own.yaml"
    own.write_text(path.read_text() + "verify: { share: 100%, media: nowhere, keys: nothing.yaml }\n")
    r, t = play("--verify", "media", "--keys", "keys.yaml", scenario=own)
    tap.ok(t.get("verified", 0) >= t.get("segments", 1) and not t["wrong"], "they go before the scenario's own", f"{t} {r}")
    for name, flags, what in (("no keys", ["--verify", "media"], "--verify and --keys"), ("no media", ["--keys", "keys.yaml"], "need --verify MEDIA"),
                              ("a folder that is not there", ["--verify", "nowhere", "--keys", "keys.yaml"], "nowhere: cannot compare with this media folder: No such file"),
                              ("a file for a folder", ["--verify", "keys.yaml", "--keys", "keys.yaml"], "keys.yaml: cannot compare with this media folder: Not a directory"),
                              ("a share of nothing", ["--share", "50%"], "need --verify MEDIA"),
                              ("an idle herd", ["--verify", "media", "--keys", "keys.yaml", "--mode", "idle", "--seconds", "1"], "mode idle compares nothing")):
        r, _ = play(*flags)
        tap.ok(r.code == 1 and what in r.err and r.err.count("\n") == 1, f"a comparison with {name}: one line says what is missing", r)


def derived(tap, sluice, folder):
    """Keys that are derived from a secret, which may lie wrapped."""
    secret, kek, wrapped = (folder / n for n in ("plain.secret", "kek", "wrapped.secret"))
    for path, content in ((secret, b"s" * 32), (wrapped, b"s" * 32), (kek, b"k" * 32)):
        path.write_bytes(content)
        path.chmod(0o600)
    made = run(sluice, "keys", "rewrap", wrapped, "--new-kek", kek)
    keys, path = folder / "derived.yaml", folder / "derive-run.yaml"
    path.write_text("name: x\narrivals: [{ for: 200ms, rate: 20 }]\ndrain: 200ms\n" + SMALL)
    with Server(sluice, folder / "media", keys=f"derive: {{ secret_file: {secret} }}\n") as server:
        for text, code, says in (("derive: { secret_file: plain.secret }", 0, ""), ("derive: { secret_file: wrapped.secret, kek_file: kek }", 0, ""),
                                 ("derive: { secret_file: wrapped.secret }", 1, "wrapped.secret: the secret is wrapped: derive.kek_file"),
                                 ("epochs: { default: 1 }", 1, "derived.yaml: derive.secret_file is missing")):
            keys.write_text(text + "\n")
            r = run(sluice, "load", path, "--target", f"http://127.0.0.1:{server.port}", "--verify", folder / "media", "--keys", keys, timeout=60)
            tap.ok(made.code == 0 and (r.code == code or (code == 0 and r.code == 3)) and says in r.err and (code or " 0 wrong" in r.out.decode()), f"keys to compare with: {text}", f"{made} {r}")


def elsewhere(tap, sluice, folder):
    """Keys of a CPIX document that the keys file names; and of a key server, whom the generator does not ask."""
    plain, document, keys, path = folder / "plain.yaml", folder / "document.cpix", folder / "elsewhere.yaml", folder / "cpix-run.yaml"
    plain.write_text(keys_text(["coastline/low-tide"]))
    made = run(sluice, "keys", "export", "coastline/low-tide", "--out", document, "--keys", plain)
    path.write_text("name: x\narrivals: [{ for: 200ms, rate: 20 }]\ndrain: 200ms\n" + SMALL)
    with Server(sluice, folder / "media", keys=f"providers: [{{ type: cpix, file: {document} }}]\n") as server:
        for name, text, code, says in (("a document", "providers: [{ type: cpix, file: document.cpix }]", 0, ""),
                                       ("no document", "providers: [{ type: cpix, file: not-there }]", 1, "not-there: No such file"),
                                       ("no CPIX", "providers: [{ type: cpix, file: plain.yaml }]", 1, "plain.yaml: not well-formed XML"),
                                       ("a key server", "providers: [{ type: json, url: 'http://127.0.0.1:9/' }]", 1,
                                        "elsewhere.yaml: coastline/low-tide: its keys come from the key server of line 1: nothing can be compared")):
            keys.write_text(text + "\n")
            r = run(sluice, "load", path, "--target", f"http://127.0.0.1:{server.port}", "--verify", folder / "media", "--keys", keys, timeout=60)
            tap.ok(made.code == 0 and (r.code == code or (code == 0 and r.code == 3)) and says in r.err and r.err.count("\n") == (code != 0)
                   and (code or " 0 wrong" in r.out.decode()), f"keys to compare with: {name}", f"{made} {r}")


def other_catalogue(tap, sluice, folder, server):
    """The first thing that goes wrong with a server of one's own."""
    path = folder / "other.yaml"
    for catalogue, field, first in (("assets: [not/here]", "assets, under this scheme", "/not/here/cbcs/master.m3u8"), ("manifests: [/no.m3u8]", "manifests", "/no.m3u8")):
        path.write_text(f"arrivals: [{{ for: 200ms, rate: 20 }}]\ndrain: 200ms\nplayer: {{ retries: 0 }}\ncatalogue: {{ {catalogue} }}\n")
        r = run(sluice, "load", path, "--target", f"http://127.0.0.1:{server.port}", timeout=60)
        says = rf"^run: \d+ requests .*\nfailed: \d+ 4xx\nnothing was found, or nothing for everybody: does the server have the scenario's catalogue\.{field}\?\n"
        tap.ok(re.search(says, r.out.decode()) and f"first refused: {first}: answered with 404\n" in r.out.decode() and re.search(r"\n\d+ sessions, none of which heard anything", r.out.decode()),
               f"{catalogue}, which the server does not have: what to look at", r)


def capacity(tap, load, server):
    # 16 connections and an answer that takes a while bound what can be asked: a limit of the client's own making.
    text = """name: capacity
seed: 3
mode: capacity
search: { from: 50, to: 200000, probes: 12, spike: 3, spike_for: 300ms }
seconds: 300ms
drain: 300ms
connections: 4
catalogue: { assets: [coastline/low-tide] }
scheme: cbcs
level: { latency_p99_ms: 20, errors: 0, lag_p99_ms: 60000 }
"""
    for level in (20, 200, 1000):  # a machine that does other things has none within 20 ms
        r = load(text.replace("latency_p99_ms: 20", f"latency_p99_ms: {level}"), f"http://127.0.0.1:{server.port}")
        c = r.json["capacity"]
        if c["found"]:
            break
    tap.ok(r.code == 0 and c["found"] and 50 < c["low"] <= c["rate"] <= c["high"] < 200000 and len(c["probes"]) == 12, "capacity: a rate with its interval", f"{c} {r}")
    worst = max([p["rate"] for p in c["probes"] if p["passed"]]), min([p["rate"] for p in c["probes"] if not p["passed"]])
    tap.ok(c["high"] < 60 * c["low"] and any(p["passed"] for p in c["probes"]) and not all(p["passed"] for p in c["probes"]), f"capacity: between passing {worst[0]:.0f} and failing {worst[1]:.0f}", c)
    tap.ok(c["spike_rate"] > 2.5 * c["rate"] and (c["recovery_s"] >= 0 or c["recovery_s"] == -1), "capacity: a spike beyond it, and the recovery", c)
    tap.ok("highest rate within the service level" in r.out.decode() and "requests were" in r.out.decode(), "capacity: in words", r.out.decode())
    r = load(text.replace("to: 200000", "to: 60").replace("probes: 12", "probes: 3").replace("latency_p99_ms: 20,", "latency_p99_ms: 60000,").replace("errors: 0", "errors: 100%"), f"http://127.0.0.1:{server.port}")
    tap.ok(r.code == 1 and not r.json["capacity"]["found"] and "every probe passed" in r.out.decode(), "capacity: a limit beyond the search is none found, status 1", r.out.decode())


def wrong_usage(tap, sluice, folder):
    good = folder / "good.yaml"
    good.write_text("name: x\nmode: rate\nrate: 5\nseconds: 100ms\nlevel: { lag_p99_ms: 60000 }\n" + SMALL)
    target = ["--target", "http://127.0.0.1:9"]
    r = run(sluice, "load", "--help")
    text = r.out.decode()
    options = set(re.findall(r"^  (--[a-z-]+)", text, re.M))
    tap.ok(r.code == 0 and not r.err and "Exit status:" in text, "load --help", r)
    known = set(re.findall(r'\{"([a-z-]+)", 0, (?:true|false)\}', (ROOT / "src/cli/load.c").read_text()))
    tap.equal({o[2:] for o in options}, known, "load --help names every option")
    secret = "00112233445566778899aabbccddeeff"
    for argv in ([f"--key={secret}"], [f"--insecure={secret}"], [f"--kid:key=1:{secret}"], ["--target", f"http://me:{secret}@127.0.0.1:9"], ["--target", f"ftp://me:{secret}@127.0.0.1:9/x"]):
        r = run(sluice, "load", good, *target, *argv)
        tap.ok(r.code == 2 and r.err.startswith("sluice: load: ") and r.err.count("\n") == 1 and secret not in r.err and not r.out, f"wrong usage: {argv[0][:6]}: what may be a secret is not repeated", r)
    for argv in ([good, "--target=http://127.0.0.1:9", "--threads=2"], ["--target", "http://127.0.0.1:9", "--", good]):
        r = run(sluice, "load", *argv)
        tap.ok(r.code == 1 and "does not answer" in r.err, "options with '=', operands behind '--'", r)
    for text, argv in (("mode: rate", ["--rate", "5", "--seconds", "1"]), ("mode: rate", ["--mode", "saturate", "--seconds", "1"]), ("mode: listeners", ["--mode", "idle", "--seconds", "1"])):
        (folder / "part.yaml").write_text(f"name: x\n{text}\n" + SMALL)
        r = run(sluice, "load", folder / "part.yaml", *target, *argv)
        tap.ok(r.code == 1 and "does not answer" in r.err, f"a scenario that its options complete: {text} {' '.join(argv)}", r)
    for name, argv in {"no scenario": target, "two scenarios": [good, good, *target], "no target": [good], "an unknown option": [good, *target, "--frob"],
                       "no number": [good, *target, "--threads", "x"], "no thread": [good, *target, "--threads", "0"], "a seed that a report cannot hold": [good, *target, "--seed", "9000000000000001"],
                       "a negative rate": [good, *target, "--rate", "-1"],
                       "an unknown mode": [good, *target, "--mode", "fast"], "an unknown io": [good, *target, "--io", "kqueue"], "too long": [good, *target, "--shorten", "2"],
                       "no connection": [good, *target, "--connections", "0"], "a share of zero": [good, *target, "--share", "0"],
                       "a share above one": [good, *target, "--share", "101%"], "a share of something": [good, *target, "--share", "half"], "nothing to compare": ["--report", folder / "o.html"]}.items():
        r = run(sluice, "load", *argv)
        tap.ok(r.code == 2 and r.err.startswith(("sluice", "usage")) and not r.out, f"wrong usage: {name}: status 2", r)
    people = folder / "people.yaml"
    people.write_text("name: x\nmode: listeners\narrivals: [{ for: 100ms, rate: 5 }]\ndrain: 100ms\n" + SMALL)
    for name, argv, words in (("--seconds with listeners", [people, *target, "--seconds", "5"], "--shorten"),
                              ("--rate with listeners", [people, *target, "--rate", "5"], "mode rate"),
                              ("--connections with listeners", [people, *target, "--connections", "5"], "max_listeners"),
                              ("--paths with listeners", [people, *target, "--paths", paths(folder)], "manifests"),
                              ("--rate with saturate", [good, *target, "--mode", "saturate", "--rate", "5"], "mode rate"),
                              ("--rate with idle", [good, *target, "--mode", "idle", "--rate", "5"], "mode rate"),
                              ("--json with --report", ["--report", folder / "o.html", "--json", folder / "o.json", folder / "a.json"], "nothing else"),
                              ("--share with --report", ["--report", folder / "o.html", folder / "a.json", "--share", "10%"], "nothing else"),
                              ("--threads with --report", ["--threads", "2", "--report", folder / "o.html", folder / "a.json"], "nothing else"),
                              ("--ca without TLS", [good, *target, "--ca", folder / "none.pem"], "https://"),
                              ("--insecure without TLS", [good, *target, "--insecure"], "https://"),
                              ("a URL with a path", [good, "--target", "http://127.0.0.1:9/x"], "without a path, not 'http://127.0.0.1:9/x'"),
                              ("a URL of another kind", [good, "--target", "ftp://x"], "http://HOST:PORT or https://HOST:PORT"),
                              ("a port that is none", [good, "--target", "http://127.0.0.1:99999"], "http://HOST:PORT"),
                              ("a port that is no number", [good, "--target", "http://127.0.0.1:80x"], "http://HOST:PORT"),
                              ("an address of IPv6 without brackets", [good, "--target", "http://::1:9"], "an IPv6 address in brackets"),
                              *((f"half an address of IPv6, or more than one: {url}", [good, "--target", f"http://{url}"], f"not 'http://{url}'")
                                for url in ("[::1:9", "[::1]x:9", "[::1]9", "[]:9", "]:9:", ":9")),
                              ("--ca with --insecure", [good, "--target", "https://127.0.0.1:9", "--insecure", "--ca", folder / "none.pem"], "not both")):
        r = run(sluice, "load", *argv, timeout=60)
        tap.ok(r.code == 2 and words in r.err and r.err.startswith("sluice: load: --" if "both" not in words else "sluice: load: give")
               and r.err.count("\n") == 1 and not r.out, f"wrong usage, or an option that would be passed over: {name}: status 2", r)
    for name, argv, pattern in (("a missing scenario", [folder / "none.yaml", *target], r"none\.yaml: No such file"),
                                ("a scenario without an end", ["/dev/zero", *target], r"/dev/zero: longer than 256 MB"),
                                ("a comparison of half a result", ["--report", folder / "o.html", half(folder)], r"half\.json: is not a result of sluice load"),
                                ("nobody there", [good, *target], r"127\.0\.0\.1:9: the target does not answer for /coastline/low-tide"),
                                ("no such authority", [good, "--target", "https://127.0.0.1:9", "--ca", folder / "none.pem"], r"certificate authorities .*none\.pem: No such file"),
                                ("no authority", [good, "--target", "https://127.0.0.1:9", "--ca", good], r"authorities .*good\.yaml: .* give a PEM file with the certificates .*\[NO_CERT"),
                                ("a comparison of something else", ["--report", folder / "o.html", good], r"good\.yaml: is not a result of sluice load")):
        r = run(sluice, "load", *argv, timeout=60)
        tap.ok(r.code == 1 and re.search(pattern, r.err) and r.err.startswith("sluice: ") and r.err.count("\n") == 1, f"{name}: one line says what", r)
    for option in ("--json", "--hdr", "--html"):
        before = time.monotonic()
        r = run(sluice, "load", good, *target, "--mode", "saturate", "--seconds", "30", "--paths", paths(folder), option, folder / "no" / "out", timeout=60)
        tap.ok(r.code == 1 and r.err.count("\n") == 1 and "no/out" in r.err and not r.out and time.monotonic() - before < 20,
               f"{option} in a folder that is not there: said before the load", r)
    r = run(sluice, "load", good, *target, "--paths", paths(folder), "--json", folder / "whole.json", timeout=60)
    tap.ok(r.code == 1 and re.search(r"^failed: \d+ without a response$", r.out.decode(), re.M), "what failed is told by kind", r.out.decode())
    tap.ok("\nnothing was answered: does the server listen at --target?\n" in r.out.decode(), "and what to look at where all of it did", r.out.decode())
    (folder / "old").write_bytes(b"/nothing\r" * 500)
    r = run(sluice, "load", good, *target, "--paths", folder / "old", timeout=60)
    tap.ok(r.code == 1 and " failed, 0 unanswered" in r.out.decode(), "paths whose lines end in carriage returns alone", r)
    tap.ok((folder / "whole.json").exists() and not [p for p in folder.iterdir() if p.name.startswith(".sluice-")], "the result is whole, nothing else is left")


def limits(tap, sluice, folder, server):
    """What the machine, not the server, does not give."""
    target = ["--target", f"http://127.0.0.1:{server.port}"]
    herd = folder / "herd.yaml"
    herd.write_text("name: x\nmode: idle\nseconds: 3s\nconnections: 200\n" + SMALL + "level: { lag_p99_ms: 60000 }\n")

    def with_files(soft, hard, *argv):
        return subprocess.run([sluice, "load", herd, *target, *argv], capture_output=True, text=True, timeout=60,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    r = with_files(100, 1000)
    tap.ok(r.returncode == 0 and "200 requests" in r.stdout, "the soft limit of descriptors is raised to the hard one", r)
    r = with_files(100, 100)
    tap.ok(r.returncode == 3 and re.search(r"INVALID: \d+ connections could not be begun on this machine: Too many open files: more --processes", r.stdout),
           "too few descriptors: invalid, and what to do", r)
    r = with_files(1000, 1000, "--request-log", "/dev/full")
    tap.ok(r.returncode == 1 and "request log cannot be written: No space left" in r.stderr, "a request log that cannot be written fails the run", r)
    r = with_files(1000, 1000, "--threads", "3", "--processes", "100")
    tap.ok(r.returncode == 2 and "200 connections are too few for 3 threads in 100 processes" in r.stderr, "fewer connections than threads: status 2", r)
    began = time.time()
    r = subprocess.run([sluice, "load", "/dev/stdin", *target, "--json", folder / "stdin.json"], input=herd.read_bytes(), capture_output=True, timeout=60)
    tap.ok(r.returncode == 0, "a scenario from a pipe", r)
    tap.ok(began - 1 <= json.loads((folder / "stdin.json").read_text())["start"] <= time.time(), "the result says when it began, to the second")
    name = f"http://localhost:{server.port}"
    r = run(sluice, "load", herd, *target, "--json", "-", timeout=60)
    tap.ok(r.code == 0 and json.loads(r.out)["totals"]["requests"] == 200 and "200 requests" in r.err, "--json to standard output: nothing else stands there", r)
    r = run(sluice, "load", herd, "--target", name, timeout=60)
    tap.ok(r.code == 0, "a name with several addresses: the one where somebody answers", r)


def sixth(tap, sluice, folder):
    """A target by its address of IPv6."""
    log, port = folder / "sixth.json", free_port()
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", port))
    except OSError as e:
        tap.skip("a target in brackets", f"no IPv6 here: {e}")
        return
    with Server(sluice, folder / "media", "--listen", f"[::1]:{port}", "--access-log", str(log), "--access-format", "json", keys=keys_text(ASSETS)) as server:
        for more in ("", "/"):
            r = run(sluice, "load", folder / "good.yaml", "--target", f"http://[::1]:{port}{more}", timeout=60)
            tap.ok(r.code == 0 and " 0 failed, 0 unanswered" in r.out.decode(), f"a target in brackets {more}", r)
        server.stop()
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    tap.ok(len(asked) > 2 and {(a["ip"], a["status"]) for a in asked} == {("::1", 200)}, "which is where it asked", asked[:5])


class Garbage(Listening):
    """Playlists that are none."""

    def handle(self, s):
        s.recv(4096)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n#EXTM3U\nx")
        s.close()


def garbage(tap, sluice, folder):
    with Garbage() as server:
        r = run(sluice, "load", folder / "good.yaml", "--target", server.url, timeout=60)
    tap.ok(r.code == 1 and re.search(r"/coastline/low-tide/\w+/master\.m3u8: line 2: a URI without #EXT-X-STREAM-INF\n$", r.err), "a playlist that is none: which, and where", r)
    (folder / "thin.json").write_text('{"format": 1}')
    r = run(sluice, "load", "--report", folder / "o.html", folder / "thin.json")
    tap.ok(r.code == 1 and "thin.json: is not a result of sluice load" in r.err and not (folder / "o.html").exists(), "a comparison of less than a result", r)


def half(folder):
    (folder / "half.json").write_text('{"format": 1, "scenario": "x", ')
    return folder / "half.json"


def paths(folder):
    """Paths to ask for without a look at manifests."""
    (folder / "paths").write_text("/nothing\n")
    return folder / "paths"


FAULTS = {  # scenario: line, what is wrong, what to do about it
    "name: [": (2, "did not find expected node content"), "- 1": (1, "a scenario is a map of fields"),
    "bogus: 1\n" + SMALL: (1, "unknown field 'bogus'"), SMALL + "player: { aheed: 3 }": (2, "unknown field 'player.aheed'"),
    SMALL + "player: 5": (2, "player takes a map of fields"), SMALL + "level: { errors: 50 }": (2, "level.errors: '50' is not a share, as 0.5 or 50%, from 0 to 1"),
    SMALL + "arrivals:\n- for: 1s\n  rate: 5\n  for: 2s": (5, "for is given twice in an entry of arrivals"),
    SMALL + "seconds: 1s\nseconds: 2s": (3, "seconds is given twice"),
    SMALL + "player: { ahead: 1, ahead: 2 }": (2, "player.ahead is given twice"), SMALL + SMALL: (2, "catalogue is given twice"),
    SMALL + "scheme: &a\n": (2, "an anchor (&name) or a tag (!name) stands before no value"),
    SMALL + "---\nseed: 2": (2, "one document is expected, not several"),
    SMALL + "mode: fast": (2, "'fast' is not one of listeners, rate, saturate, idle, capacity"),
    SMALL + "seconds: 5 parsecs": (2, "seconds"), SMALL + "clients: { abort: 120% }": (2, "clients.abort"),
    SMALL + "player: { ahead: 0 }": (2, "player.ahead"), SMALL + "arrivals: [{ for: 1s }]": (2, "needs both `for` and `rate`"),
    SMALL + "arrivals: [{ for: 1s, rate: 1, pull: 2 }]": (2, "arrivals is a list of { for: TIME"),
    SMALL: (0, "mode listeners needs arrivals"), "mode: rate\nseconds: 1s\n" + SMALL: (0, "mode rate needs a rate"),
    "mode: idle\n" + SMALL: (0, "seconds is missing"), "arrivals: [{ for: 1s, rate: 1 }]": (0, "catalogue.assets names nothing to ask for"),
    SMALL + "arrivals: [{ for: 1s, rate: 1 }]\nscheme: cens": (0, "scheme: 'cens' is not one of cenc, cbcs, clear"),
    SMALL + "arrivals: [{ for: 1s, rate: 1 }]\nverify: { share: 1 }": (0, "verify.share needs verify.media and verify.keys"),
    SMALL + "mode: idle\nseconds: 1s\nverify: { share: 1, media: m, keys: k }": (0, "verify.share: mode idle compares nothing"),
    SMALL + "mode: idle\nseconds: 1s\nverify: { epoch: 2 }": (0, "verify.epoch: mode idle compares nothing"),
    "catalogue: { manifests: [/a.mpd] }\nmode: rate\nrate: 1\nseconds: 1s\nverify: { share: 1, media: m, keys: k }": (0, "catalogue.manifests: only a sluice's answers can be compared"),
    SMALL + "mode: capacity\nseconds: 1s": (0, "needs level.latency_p99_ms"),
}


def bad_scenarios(tap, sluice, folder):
    path = folder / "bad.yaml"
    for text, (line, what) in FAULTS.items():
        path.write_text(text + "\n")
        r = run(sluice, "load", path, "--target", "http://127.0.0.1:9")
        tap.ok(r.code == 1 and r.err.startswith(f"sluice: {path}: " + f"line {line}: " * bool(line)) and what in r.err and r.err.count("\n") == 1,
               f"a bad scenario: {what}", r)


def main():
    tap, sluice = Tap(), pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        wrong_usage(tap, sluice, folder)
        bad_scenarios(tap, sluice, folder)
        garbage(tap, sluice, folder)
        media(folder / "media", ASSETS, seconds=10, tracks=("aac-1", "aac-2"))
        (folder / "keys.yaml").write_text(keys_text(ASSETS))
        load = Load(sluice, folder)
        with Server(sluice, folder / "media", keys=keys_text(ASSETS)) as server:
            other_catalogue(tap, sluice, folder, server)
            shipped(tap, load, server)
            comparison(tap, load, sluice, folder, server)
            derived(tap, sluice, folder)
            elsewhere(tap, sluice, folder)
            capacity(tap, load, server)
            limits(tap, sluice, folder, server)
        sixth(tap, sluice, folder)
    tap.end()


if __name__ == "__main__":
    main()
