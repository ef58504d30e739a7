#!/usr/bin/env python3
"""The server's life: start, reload, rotation, replaced media, logs, metrics, end. life.py SLUICE"""
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.truth import keys_file, record, url  # noqa: E402
from judge import boxes, synth  # noqa: E402
from judge.programs import VECTORS, Sluice, run  # noqa: E402
from judge.server import Server, environment, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSET = "bear"


def media_with(work, build=synth.indexed):
    media = work / "media"
    (media / ASSET).mkdir(parents=True)
    (media / ASSET / "a.mp4").write_bytes(build()[0])
    return media


def listing(folder):
    """Every file below a folder with content and mtime, sidecars left out."""
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(folder.rglob("*"))
            if p.is_file() and p.suffix != ".slx"}


def bad_starts(tap, sluice, work):
    media = media_with(work)
    good = keys_file([ASSET])
    kid, key, _ = record(ASSET, "cbcs")
    two = (f"keys:\n  - {{ asset: {ASSET}, epoch: 1, scheme: cbcs, kid: '{kid}', key: '{key}', iv: '{key}' }}\n"
           f"  - {{ asset: {ASSET}, epoch: 1, scheme: cenc, kid: '{key}', key: '{key}' }}\n")
    busy = socket.socket()
    busy.bind(("127.0.0.1", 0))
    busy.listen()
    state = work / "state"
    state.mkdir(mode=0o700)
    locked = work / "locked"
    locked.mkdir()
    os.chmod(locked, 0)
    cases = {  # name: (flags, keys file, environment, a word of the message)
        "a media folder that is not there": (["--media", work / "none"], good, {}, str(work / "none")),
        "a media folder that is a file": (["--media", media / ASSET / "a.mp4"], good, {}, "a.mp4"),
        "no media folder at all": ([], good, {}, "media"),
        "a keys file that is not there": (["--media", media, "--keys", work / "nokeys"], None, {}, "nokeys"),
        "a keys file that is not YAML": (["--media", media], "keys: [\n", {}, "keys"),
        "a keys file with bad hex": (["--media", media], good.replace(kid, "zz" + kid[2:]), {}, "keys"),
        "a key that is too short": (["--media", media], good.replace(key, key[:30]), {}, "keys"),
        "an unknown word in the keys file": (["--media", media], good.replace("scheme", "skeme"), {}, "keys"),
        "one key for both schemes": (["--media", media], two, {}, "scheme"),
        "an occupied port": (["--media", media, "--listen", f"127.0.0.1:{busy.getsockname()[1]}"], good, {}, "in use"),
        "an occupied admin port": (["--media", media, "--admin", f"127.0.0.1:{busy.getsockname()[1]}"], good, {}, "in use"),
        "an address of another machine": (["--media", media, "--listen", "192.0.2.1:8080"], good, {}, "192.0.2.1"),
        "a port that is no number": (["--media", media, "--listen", "127.0.0.1:http"], good, {}, "127.0.0.1:http"),
        "an unknown kernel": (["--media", media], good, {"SLUICE_KERNEL": "nonsense"}, "nonsense"),
        "an unknown flag": (["--media", media, "--nonsense"], good, {}, "nonsense"),
        "too many workers": (["--media", media, "--workers", "100000"], good, {}, "100000"),
        "an access log in a folder that is not there": (["--media", media, "--access-log", work / "nodir" / "x"], good, {}, "nodir/x"),
        "an access log that is a folder": (["--media", media, "--access-log", media], good, {}, "access_log"),
        "a cache folder that is not there": (["--media", media, "--cache-dir", work / "nocache"], good, {}, "nocache"),
        "a state folder that is a file": (["--media", media, "--state-dir", media / ASSET / "a.mp4"], good, {}, "state_dir"),
        "a state folder in a folder that is not there": (["--media", media, "--state-dir", work / "no" / "state"], good, {}, "no/state"),
        "a certificate that is not there, without TLS": (["--media", media, "--tls-certificate", work / "nocert", "--tls-key", work / "nokey"], good, {}, "nocert"),
        "an authority of clients, without TLS": (["--media", media, "--tls-client-ca", work / "noca"], good, {}, "tls_client_ca"),
        "certificates that are not there, in a new state folder": (["--media", media, "--tls-listen", f"127.0.0.1:{free_port()}", "--tls-certificate", work / "nocert",
                                                                     "--tls-key", work / "nokey", "--state-dir", work / "fresh"], None, {}, "nocert"),
        "one address for two": (["--media", media, "--listen", "127.0.0.1:18081", "--admin", "127.0.0.1:18081"], good, {}, "twice"),
        "an address that is a name": (["--media", media, "--listen", "localhost:8080"], good, {}, "numeric"),
        "a congestion control that is not there": (["--media", media, "--congestion-control", "nonsense"], good, {}, "nonsense"),
        "a configuration that is not there": (["-c", work / "none.yaml"], good, {}, "none.yaml"),
    }
    if os.getuid():
        cases["a media folder that cannot be read"] = (["--media", locked], good, {}, "locked")
    else:
        tap.skip("bad start: a media folder that cannot be read", "root reads every folder")
    for name, (flags, keys, env, word) in cases.items():
        before = listing(work)
        flags = list(flags)
        if keys is not None:
            (work / "keys.yaml").write_text(keys)
            flags += ["--keys", work / "keys.yaml"]
        if "--listen" not in flags:
            flags += ["--listen", f"127.0.0.1:{free_port()}"]
        if "--admin" not in flags:
            flags += ["--admin", f"127.0.0.1:{free_port()}"]
        before = listing(work)
        for more in ([], ["--check"]):
            if more and "port" in name and "number" not in name or more and name.startswith("an address of"):
                continue  # a check opens no socket
            r = run(sluice.path, "serve", "--state-dir", state, *flags, *more, timeout=20, env=environment(**env))
            lines = r.err.strip().splitlines()
            good_end = (r.code in (1, 2) and len(lines) == 1 and lines[0].startswith(("sluice: ", "sluice serve: ")) and word in lines[0]
                        and not r.out)
            tap.ok(good_end, f"bad start: {name}{' (--check)' if more else ''}: one line and status 1 or 2", f"{r}\nwanted: {word}")
            if key in r.err:
                tap.ok(False, f"bad start: {name}: a key is in the message", r)
        after = listing(work)
        tap.ok(after == before, f"bad start: {name}: nothing was written", sorted(set(after) ^ set(before)))
    os.chmod(locked, 0o700)
    busy.close()
    r = run(sluice.path, "serve", "--check", "--media", media, "--keys", work / "keys.yaml", "--state-dir", state)
    (work / "keys.yaml").write_text(good)
    r = run(sluice.path, "serve", "--check", "--media", media, "--keys", work / "keys.yaml", "--state-dir", state)
    tap.ok(r.code == 0, "--check of a good configuration ends with status 0", r)
    for more in ("", "nonsense: 1\n"):  # as from `--keys <(sops -d keys.yaml)`
        text = good + "# one of many\n" * 3000 + more
        r = run(sluice.path, "serve", "--check", "--media", media, "--keys", "/dev/stdin", "--state-dir", state, stdin=text.encode())
        tap.ok((r.code != 0 and "nonsense" in r.err) if more else r.code == 0, f"a keys file of 45 KB from a pipe is read to its end{more and ', where it is wrong'}", r)
    for flag in ("--keys", "-c"):
        r = run(sluice.path, "serve", "--check", "--media", media, flag, "/dev/stdin", "--state-dir", state, stdin=b"")
        tap.ok(r.code in (1, 2) and "good for the start" in r.err, f"{flag}: a pipe that was read before, as at a reload, is no empty file", r)
    flat = work / "flat"
    flat.mkdir()
    (flat / "lone.mp4").write_bytes((media / ASSET / "a.mp4").read_bytes())
    with Server(sluice.path, flat) as server:
        told = [line for line in server.log() if "lone.mp4" in line and "warn" in line]
        tap.ok(len(told) == 1 and "flat/ALBUM/lone.mp4" in told[0], "a track in the media folder itself: the log says where it belongs", server.log())
    (work / "bad.yaml").write_text(f"media: {media}\nworkers: 2\nnonsense: 3\n")
    r = run(sluice.path, "serve", "--check", "-c", work / "bad.yaml", "--state-dir", state)
    tap.ok(r.code in (1, 2) and "bad.yaml:3" in r.err and "nonsense" in r.err, "an error of the configuration has file and line", r)


def relative(tap, sluice, work):
    """Relative paths start at the working folder, those in the keys file at its folder; what is not there is named from the root."""
    here, conf = (work / "here").resolve(), (work / "conf").resolve()
    here.mkdir()
    conf.mkdir()
    media_with(here)
    keys = {"secret.yaml": "derive: { secret_file: s/secret }\n", "cpix.yaml": "providers:\n  - { type: cpix, file: doc.xml }\n",
            "bearer.yaml": "providers:\n  - { type: json, url: 'https://127.0.0.1:9/', bearer_file: bearer }\n"}
    for name, text in keys.items():
        (conf / name).write_text(text)
    (conf / "c.yaml").write_text("media: media\nstate_dir: state\nkeys: keys.yaml\n")
    base = ["--media", "media", "--state-dir", "state"]
    cases = {  # what is missing: (flags, its path)
        "media": (["--media", "none", "--state-dir", "state"], here / "none"),
        "keys": ([*base, "--keys", "k.yaml"], here / "k.yaml"),
        "the keys of a configuration elsewhere": (["-c", "../conf/c.yaml"], here / "keys.yaml"),
        "a configuration": (["-c", "c.yaml"], here / "c.yaml"),
        "secret_file": ([*base, "--keys", "../conf/secret.yaml"], here / "../conf/s/secret"),
        "a CPIX file": ([*base, "--keys", "../conf/cpix.yaml"], here / "../conf/doc.xml"),
        "bearer_file": ([*base, "--keys", "../conf/bearer.yaml"], here / "../conf/bearer"),
        "a token": ([*base, "--admin-token-file", "token"], here / "token"),
        "a certificate": ([*base, "--tls-certificate", "none.pem", "--tls-key", "key.pem"], here / "none.pem"),
        "an access log's folder": ([*base, "--access-log", "logs/a.log"], here / "logs/a.log"),
        "a cache folder": ([*base, "--cache-dir", "cache"], here / "cache"),
        "a state folder": (["--media", "media", "--state-dir", "no/state"], here / "no/state"),
    }
    for name, (flags, path) in cases.items():
        r = run(sluice.path, "serve", "--check", *flags, cwd=here, timeout=20)
        tap.ok(r.code == 1 and f"{path}: " in r.err and "No such file" in r.err and len(r.err.strip().splitlines()) == 1,
               f"a relative path that leads nowhere: {name}", r)


def parse_metrics(text):
    """{name: {labels: value}} of Prometheus text; raises on anything malformed."""
    out, kinds, seen = {}, {}, []
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, *rest = line.split(" ", 3)
            if word == "TYPE":
                if name in kinds:
                    raise ValueError(f"two TYPE lines for {name}")
                kinds[name] = rest[0]
            continue
        m = re.fullmatch(r'([a-zA-Z_:][\w:]*)(?:\{((?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\[\\"n])*",?)*)\})? (\S+)', line)
        if not m:
            raise ValueError(f"line {line!r}")
        name, labels, value = m.groups()
        family = next((f for f in (name, re.sub(r"_(bucket|sum|count|total)$", "", name)) if f in kinds), None)
        if family is None:
            raise ValueError(f"{name} has no TYPE")
        if not seen or seen[-1] != family:
            if family in seen:
                raise ValueError(f"{family} is not in one group")
            seen.append(family)
        series = out.setdefault(name, {})
        if labels in series:
            raise ValueError(f"{line!r} stands twice")
        series[labels] = float(value)
    for family, kind in kinds.items():
        if kind == "histogram":
            check_histogram(out, family)
        if kind == "counter" and not family.endswith("_total"):
            raise ValueError(f"counter {family} does not end in _total")
    return out


def check_histogram(series, family):
    groups = {}
    for labels, value in series[family + "_bucket"].items():
        le = re.search(r'le="([^"]+)"', labels).group(1)
        rest = re.sub(r',?le="[^"]+"', "", labels).strip(",")
        groups.setdefault(rest, []).append((float(le.replace("+Inf", "inf")), value))
    for rest, buckets in groups.items():
        buckets.sort()
        values = [v for _, v in buckets]
        if values != sorted(values) or buckets[-1][0] != float("inf"):
            raise ValueError(f"{family}: buckets do not add up")
        count = [v for k, v in series[family + "_count"].items() if (k or "").strip(",") == rest]
        if count != [values[-1]]:
            raise ValueError(f"{family}: count {count} is not the last bucket {values[-1]}")


def total(metrics, name, *labels):
    return sum(v for k, v in metrics.get(name, {}).items() if all(l in (k or "") for l in labels))


def observability(tap, sluice, work):
    media = media_with(work)
    log = work / "access.log"
    with Server(sluice.path, media, "--access-log", str(log), keys=keys_file([ASSET])) as server:
        tap.equal(server.admin("/live").status, 200, "/live")
        tap.equal(server.admin("/ready").status, 200, "/ready")
        before = parse_metrics(server.admin("/metrics").body.decode())
        whole = url(ASSET, "cbcs", 1, "a.mp4")
        c = server.client()
        for _ in range(20):
            c.get(whole, headers={"Referer": 'http://x/"quoted"', "User-Agent": "judge/1 \xe4\t"})
        c.get(whole, "HEAD")
        c.get("/missing")
        c.get(whole, headers={"Range": "bytes=999999-"})
        size = len(c.get(whole).body)
        c.close()
        time.sleep(0.3)
        r = server.admin("/metrics")
        tap.ok(r["content-type"].startswith("text/plain"), "/metrics: content type", r)
        try:
            after = parse_metrics(r.body.decode())
            tap.ok(True, "/metrics is Prometheus text, histograms add up")
        except ValueError as e:
            tap.ok(False, "/metrics is Prometheus text, histograms add up", repr(e))
            after = {}
        tap.ok(all(n.startswith(("sluice_", "process_")) for n in after), "metric names start with sluice_", sorted(after)[:5])
        def grew(name, *labels):
            return total(after, name, *labels) - total(before, name, *labels)
        tap.equal(grew("sluice_requests_total", 'method="GET"'), 23.0, "GETs are counted")
        tap.equal(grew("sluice_requests_total", 'method="HEAD"'), 1.0, "HEADs are counted")
        tap.ok(grew("sluice_sent_bytes_total") >= 21 * size, "bytes are counted", grew("sluice_sent_bytes_total"))
        tap.equal(grew("sluice_errors_total", 'reason="not_found"'), 1.0, "errors are counted by reason")
        tap.equal(grew("sluice_errors_total", 'reason="range"'), 1.0, "and ranges that cannot be satisfied")
        tap.ok(not any(re.search(r'(?:kid|asset|track|user)="', k or "") for s in after.values() for k in s), "no label per track, KID or user")
        status = server.admin("/status")
        tap.ok(status.status == 200 and isinstance(json.loads(status.body), dict), "/status is JSON", status)
        page = server.admin("/")
        tap.ok(page.status == 200, "the dashboard page", page)
        tap.equal(server.admin("/none").status, 404, "admin: 404 for the rest")
        tap.equal(server.admin("http://here/live?x").status, 200, "admin: a target in absolute form")
        version = re.search(r"sluice (\S+)", sluice("version").out.decode()).group(1)
        tap.ok(any(f'version="{version}"' in k for k in after["sluice_info"]) and json.loads(status.body)["version"] == version, "what runs has its version",
               (version, after["sluice_info"], status.body))
        for method, path, allow in (("POST", "/live", "GET, HEAD"), ("PUT", "/metrics", "GET, HEAD"), ("OPTIONS", "/status", "GET, HEAD"), ("GET", "/rotate", "POST")):
            r = server.admin(path, method)
            tap.ok((r.status, r["allow"]) == (405, allow) and re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", r["date"]), f"admin: {method} {path} is a 405 with Allow and Date", r)
        _, key, _ = record(ASSET, "cbcs")
        server.stop()
        lines = log.read_text(errors="replace").splitlines()
        tap.equal(len(lines), 24, "the access log has a line for each request")
        combined = re.compile(r'(\S+) \S+ \S+ \[([^\]]+)\] "((?:[^"\\]|\\.)*)" (\d{3}) (\d+|-) "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)".*')
        bad = [l for l in lines if not combined.fullmatch(l)]
        tap.ok(not bad, "in combined form, quotes and control bytes escaped", "\n".join(bad[:3]))
        tap.ok(key not in log.read_text(errors="replace") and not any(key in l for l in server.log()), "no key in any log")
    with Server(sluice.path, media, "--access-log", str(work / "access.json"), "--access-format", "json", keys=keys_file([ASSET])) as server:
        server.get(whole, headers={"User-Agent": 'q"\\\t', "X-Forwarded-For": "198.51.100.9, 10.0.0.1"})
        server.stop()
        try:
            rows = [json.loads(l) for l in (work / "access.json").read_text().splitlines()]
            tap.ok(len(rows) == 1 and rows[0]["agent"] == 'q"\\' and rows[0]["forwarded_for"] == "198.51.100.9, 10.0.0.1", "JSON lines", rows)
        except ValueError as e:
            tap.ok(False, "JSON lines", repr(e))


def counted(tap, sluice, work):
    """Whatever is answered is one request and one response; a connection without a request is idle."""
    media, name = media_with(work), url(ASSET, "cbcs", 1, "a", "init.mp4")
    for io in ("auto", "epoll"):
        with Server(sluice.path, media, "--io", io, keys=keys_file([ASSET])) as server:
            def numbers(*names, server=server):
                m = parse_metrics(server.admin("/metrics").body.decode())
                return [int(total(m, f"sluice_{n}")) for n in names]

            def become(want, what, *names, numbers=numbers, io=io):
                end = time.monotonic() + 5
                while (got := numbers(*names)) != want and time.monotonic() < end:
                    time.sleep(0.05)
                tap.equal(got, want, f"{io}: {what}")

            for what, data, status in (("a body that is announced too long", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n", 413),
                                       ("a chunked body that becomes too long", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"a000\r\n" + bytes(40000), 413),
                                       ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400)):
                before = numbers("requests_total", "responses_total")
                c = server.client()
                c.socket.sendall(data)
                tap.equal(c.read().status, status, f"{io}: {what}")
                c.close()
                become([n + 1 for n in before], f"{what}: one request, one response", "requests_total", "responses_total")
            become([0, 0], "nobody is here", "connections", "connections_idle")
            silent, kept, half = server.client(), server.client(), server.client()
            kept.get(name)
            half.socket.sendall(f"GET {name} HT".encode())
            become([3, 2], "half a request is none that is idle", "connections", "connections_idle")
            half.socket.sendall(b"TP/1.1\r\nHost: h\r\n\r\n")
            tap.equal(half.read().status, 200, f"{io}: the other half")
            become([3, 3], "an answered one is", "connections", "connections_idle")
            half.socket.sendall(b"GET")
            become([3, 2], "nor is half of the next", "connections", "connections_idle")
            half.close()
            become([2, 2], "who leaves half a request", "connections", "connections_idle")
            silent.close()
            kept.close()
            become([0, 0], "all have left", "connections", "connections_idle")


def limited(tap, sluice, work):
    """An access log that may not grow further (ulimit -f) loses lines, as on a full disk, and nothing else."""
    media, log = media_with(work), work / "access.log"
    with Server(sluice.path, media, "--access-log", str(log), keys=keys_file([ASSET])) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (8192, 8192))
        c = server.client()
        tap.equal([r.status for r in (c.get("/missing") for _ in range(300)) if r.status != 404], [], "beyond its limit everything is answered")
        c.close()
        time.sleep(0.5)
        dropped = total(parse_metrics(server.admin("/metrics").body.decode()), "sluice_access_log_lines_total", 'result="dropped"')
        tap.ok(log.stat().st_size <= 8192 and dropped > 0, "the log's lost lines are counted", (log.stat().st_size, dropped))
        tap.equal(server.stop(), 0, "and it ends in good order")


def cut_off(tap, sluice, work):
    """A response whose client leaves is counted and logged once, with its status and the bytes that it got."""
    media = media_with(work, lambda: synth.plain(3000))
    whole, part = url(ASSET, "cbcs", 1, "a.mp4"), url(ASSET, "cbcs", 1, "a", "init.mp4")
    for io in ("auto", "epoll"):
        log = work / f"{io}.json"
        with Server(sluice.path, media, "--io", io, "--access-log", str(log), "--access-format", "json", "--cache-encrypted", "off",
                    keys=keys_file([ASSET])) as server:
            def counted(server=server):
                m = parse_metrics(server.admin("/metrics").body.decode())
                return [total(m, "sluice_responses_total", 'class="2xx"'), total(m, "sluice_sent_bytes_total")]
            size = int(server.get(whole, "HEAD")["content-length"])
            before, end = counted(), time.monotonic() + 5
            while before[0] < 1 and time.monotonic() < end:  # a response is counted when it is out, a moment after its client has it
                time.sleep(0.05)
                before = counted()
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            s.sendall(f"GET {part} HTTP/1.1\r\nHost: h\r\n\r\nGET {whole} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            time.sleep(0.5)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
            half = server.client()
            half.socket.sendall(f"GET {part} HTTP/1.1\r\nHost: h\r\n\r\nGET {whole} HT".encode())
            half.read()
            time.sleep(0.5)
            half.close()
            time.sleep(0.5)
            grew = [after - b for after, b in zip(counted(), before)]
            server.stop()
            rows = [json.loads(l) for l in log.read_text().splitlines()[1:]]
            tap.equal(sorted((r["path"], r["status"]) for r in rows), [(whole, 200), (part, 200), (part, 200)], f"{io}: a client that leaves: one line for each response")
            got = max(r["bytes"] for r in rows)
            tap.ok(10000 < got < size, f"{io}: with the bytes that were sent", f"{got} of {size}")
            tap.ok(grew[0] == 3 and got < grew[1] < got + 20000, f"{io}: and it is counted", grew)


def reasons(tap, sluice, work):
    """Errors are counted once, and by what is to blame."""
    media = media_with(work)
    for asset in ("keyless", "far", "bad"):
        (media / asset).mkdir()
        (media / asset / "a.mp4").write_bytes(synth.plain()[0][:700 if asset == "bad" else None])
    away = f"providers:\n  - {{ type: json, url: 'http://127.0.0.1:{free_port()}/keys', match: far, attempts: 1 }}\n"
    with Server(sluice.path, media, keys=keys_file([ASSET, "bad"]) + away) as server:
        for asset, rest, status, reason in (("keyless", ("master.m3u8",), 503, "no_key"), ("keyless", (1, "a", "1.m4s"), 503, "no_key"),
                                            ("far", ("master.m3u8",), 503, "upstream"), ("far", (1, "a", "init.mp4"), 503, "upstream"),
                                            ("bad", ("manifest.mpd",), 404, "source_invalid"), ("bad", (1, "a.mp4"), 404, "source_invalid"),
                                            ("bad", (1, "a", "1.m4s"), 404, "source_invalid"), ("bad", (1, "b.mp4"), 404, "not_found")):
            for again in ("", ", remembered"):
                before = parse_metrics(server.admin("/metrics").body.decode())["sluice_errors_total"]
                r = server.get(url(asset, "cbcs", *rest))
                after = parse_metrics(server.admin("/metrics").body.decode())["sluice_errors_total"]
                grew = grown(before, after)
                tap.ok(r.status == status and grew == [reason], f"{asset}/{rest[-1]}{again}: {status}, counted as {reason}", f"{r} {grew}")
                if status == 404:
                    tap.equal(r["cache-control"], "public, max-age=1", f"{asset}/{rest[-1]}{again}: caches may keep it for negative_ttl")
        tap.ok(any("bad/a.mp4: " in line for line in server.log()), "the log says what is wrong with the file", server.log())


def grown(before, after):
    return sorted(re.search(r'reason="(\w+)"', k).group(1) for k, v in after.items() for _ in range(int(v - before[k])))


def no_descriptors(tap, sluice, work):
    """What cannot be opened for want of descriptors is the storage's 503, which passes, and nobody's load."""
    media = media_with(work)
    (media / "other").mkdir()
    (media / "other" / "a.mp4").write_bytes(synth.plain()[0])
    with Server(sluice.path, media, "--negative-ttl", "0", keys=keys_file([ASSET, "other"])) as server:
        def errors():
            return parse_metrics(server.admin("/metrics").body.decode())["sluice_errors_total"]
        c = server.client()
        tap.equal(c.get(url(ASSET, "cbcs", 1, "a", "init.mp4")).status, 200, "a track is known")
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        for path in (url("other", "cbcs", "master.m3u8"), url("other", "cbcs", 1, "a", "init.mp4"), url(ASSET, "cbcs", 1, "a", "1.m4s")):
            before = errors()
            time.sleep(0.1)  # its connection is closed
            fds = {int(f.name) for f in pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir()}
            free = next(n for n in range(len(fds) + 1) if n not in fds)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (free, limits[1]))
            r = c.get(path)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
            tap.ok(r.status == 503 and r["retry-after"] and r["cache-control"] == "no-store" and grown(before, errors()) == ["source_io"],
                   f"{path} without a descriptor: 503, counted as source_io", f"{r} {grown(before, errors())}")
            tap.equal(c.get(path).status, 200, f"{path}: with descriptors it is there")


def warned(tap, sluice, work):
    """What an operator would not see until it is too late is said."""
    media = media_with(work)
    (media / ASSET / "a.m4a").write_bytes((media / ASSET / "a.mp4").read_bytes())
    (media / ASSET / "l.mp4").symlink_to("/etc/hostname")
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        tap.equal(server.get(url(ASSET, "cbcs", "master.m3u8")).body.count(b"#EXT-X-STREAM-INF"), 1, "one track in two files, and a link to elsewhere: one variant")
        said = [l for l in server.log() if f"{ASSET}: 1 file or folder has the name of another track" in l]
        tap.equal(len(said), 1, "the log says that one file is left out")
        tap.ok(any("l.mp4: " in l and "symbolic link" in l for l in server.log()), "and that a link leads out of the media folder", server.log())
    state = work / "open"
    state.mkdir()
    check = ("serve", "--check", "--media", media, "--state-dir", state)
    for admin, far in (("127.0.0.1:0", False), ("localhost:0", False), ("0.0.0.0:9090", True), ("[::]:9090", True)):
        r = sluice(*check, "--admin", admin)
        tap.equal("may rotate and revoke keys" in r.err, far, f"admin on {admin} without a token: {'a' if far else 'no'} warning")
    secret = state / "derive.secret"
    secret.write_text("0" * 64 + "\n")
    for mode, text in ((0o700, None), (0o1777, None), (0o777, "everybody on this machine can put files there")):
        state.chmod(mode)
        secret.chmod(0o600)
        r = sluice(*check)
        tap.ok(r.code == 0 and ("put files there" in r.err) == bool(text), f"the secret in a folder of mode {mode:o}: {'a' if text else 'no'} warning", r)
    if not os.getuid():
        state.chmod(0o700)
        os.chown(secret, 12345, -1)
        r = sluice(*check)
        tap.ok("it belongs to another user (12345)" in r.err, "another user's secret: a warning", r)


def full_disk(tap, sluice, work):
    """A sidecar that the disk has no room for: the answer is the same, and the log names the reason, not another folder."""
    media = media_with(work)
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        tap.equal(server.get(url(ASSET, "cbcs", 1, "a", "init.mp4")).status, 200, "no room for a sidecar: the track is served")
        tap.equal(sorted(p.name for p in (media / ASSET).iterdir()), ["a.mp4"], "and nothing half-written stays")
        said = [l for l in server.log() if "digest" in l]
        tap.ok(len(said) == 1 and "cannot be written: File too large" in said[0] and "cache_dir" not in said[0], "and the log says why", said)


def sidecars_in_turn(tap, sluice, work):
    """Tracks that cannot have a sidecar for one reason or another, in turn: each reason is said once."""
    media = media_with(work)
    names = ("1", "2" * 248, "3", "4" * 248)  # .mp4.slx behind it is too long for a name
    for name in names:
        (media / ASSET / f"{name}.mp4").write_bytes((media / ASSET / "a.mp4").read_bytes())
        if len(name) == 1:
            (media / ASSET / f"{name}.mp4.slx").mkdir()
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        tap.equal([server.get(url(ASSET, "cbcs", 1, name, "init.mp4")).status for name in names], [200] * 4, "no sidecar, for reasons in turn: each track is served")
        said = [re.search("cannot be written: ([^.(]*)", l).group(1).strip() for l in server.log() if "digest" in l]
        tap.ok(said in (["Is a directory", "File name too long"], ["Permission denied", "File name too long"]),  # the second: the sandbox
               "and each reason is said once", said)


def descriptors_kept(tap, sluice, work):
    """Idle clients, however many, leave the descriptors that media need."""
    media = media_with(work)
    few = work / "few"
    few.write_text(f'#!/bin/bash\nulimit -n 120\nexec {sluice.path} "$@"\n')
    few.chmod(0o755)
    for io in ("auto", "epoll"):
        r = Sluice(few)("serve", "--media", media, "--io", io, "--workers", "30", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state-dir", work / "st")
        tap.ok(r.code == 1 and "\nsluice: 30 workers need 182 descriptors and this process may open 120 (ulimit -n): " in "\n" + r.err,
               f"{io}: more workers than descriptors are refused at start", r)
        with Server(str(few), media, "--io", io, "--workers", "2", "--clear", keys=keys_file([ASSET])) as server:
            said = server.wait_log(r"max_connections: 20 for each of 2 workers, not 20000: .*120 descriptors .*kept for media", 2)
            tap.ok(said is not None, f"{io}: the log says how many connections there can be", server.log())
            metrics = parse_metrics(server.admin("/metrics").body.decode())
            tap.equal(total(metrics, "sluice_connections_limit"), 40.0, f"{io}: and so do the metrics")
            c = server.client()
            tap.equal(c.get("/nothing").status, 404, f"{io}: a client")
            idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
            time.sleep(0.3)
            got = [c.get(url(ASSET, "cbcs", 1, "a", f"{n}.m4s")).status for n in (1, 2)]
            tap.equal(got, [200, 200], f"{io}: beside 200 idle ones gets media that nobody had asked for")
            for s in idle:
                s.close()
            for name in (f"{io}{n}" for n in range(400)):
                (media / name).mkdir()
                (media / name / "a.mp4").write_bytes((media / ASSET / "a.mp4").read_bytes())
            got = {c.get(url(f"{io}{n}", "clear", 1, "a", "1.m4s")).status for n in range(200)}
            tap.equal(got, {200}, f"{io}: nor do more tracks than there can be descriptors use them up")
            clients, got = [server.client() for _ in range(25)], []
            for first in range(200, 400, 25):
                for n, one in enumerate(clients, first):
                    one.send(url(f"{io}{n}", "clear", 1, "a", "1.m4s"))
                got += [one.read().status for one in clients]
            tap.equal(set(got), {200}, f"{io}: nor do many that are read at once")
            for one in clients:
                one.close()


def rotation(tap, sluice, work):
    """A rotation changes KID, key, IVs and URLs at once, writes nothing to the media, and the old URLs still answer."""
    media = media_with(work)
    clear = boxes.audio((media / ASSET / "a.mp4").read_bytes())
    with Server(sluice.path, media, keys=keys_file([ASSET], epochs=(1, 2, 3)), state=work / "state") as server:
        c = server.client()
        old, masters = {}, {}
        for scheme in ("cenc", "cbcs"):
            masters[scheme] = c.get(url(ASSET, scheme, "master.m3u8")).body
            for path in (url(ASSET, scheme, 1, "a.mp4"), url(ASSET, scheme, 1, "a", "1.m4s"), url(ASSET, scheme, 1, "a", "media.m3u8")):
                old[path] = c.get(path)
            tap.equal(c.get(url(ASSET, scheme, 2, "a.mp4")).status, 404, f"{scheme}: epoch 2 does not exist yet")
        before = listing(media)
        r = sluice("rotate", ASSET, "--admin", f"127.0.0.1:{server.admin_port}")
        if not tap.ok(r.code == 0, "sluice rotate", r):
            return
        for scheme in ("cenc", "cbcs"):
            first, second = boxes.audio(old[url(ASSET, scheme, 1, "a.mp4")].body), None
            master = c.get(url(ASSET, scheme, "master.m3u8"))
            tap.ok(b"2/a/media.m3u8" in master.body and b"1/a/media.m3u8" not in master.body
                   and b"1/a/media.m3u8" in masters[scheme], f"{scheme}: the playlist has the new URLs at once", master.body.decode())
            mpd = c.get(url(ASSET, scheme, "manifest.mpd")).body.decode()
            kid = record(ASSET, scheme, 2)[0]
            dashed = f"{kid[:8]}-{kid[8:12]}-{kid[12:16]}-{kid[16:20]}-{kid[20:]}"
            tap.ok(dashed in mpd.lower(), f"{scheme}: the MPD has the new KID at once", mpd[:1500])
            r = c.get(url(ASSET, scheme, 2, "a.mp4"))
            if not tap.ok(r.status == 200, f"{scheme}: the new epoch answers", r):
                continue
            second = boxes.audio(r.body)
            tap.ok(second.tenc.kid.hex() == kid != first.tenc.kid.hex(), f"{scheme}: new KID", second.tenc)
            if scheme == "cbcs":
                tap.ok(second.tenc.constant_iv != first.tenc.constant_iv, "cbcs: new IV")
            else:
                tap.ok(not {s.iv for s in second.samples} & {s.iv for s in first.samples}, "cenc: new IVs")
            same = [s for s, t, u in zip(first.samples, second.samples, clear.samples) if s.size >= 16 and s.data == t.data]
            tap.ok(not same, f"{scheme}: every sample's ciphertext changed")
        for path, was in old.items():
            now = c.get(path)
            tap.ok(now.status == 200 and now.body == was.body and now["etag"] == was["etag"], f"the old epoch still answers: {path}", now)
        tap.equal(listing(media), before, "nothing was written to the media folder")
        c.close()
        r = sluice("rotate", ASSET, "--admin", f"127.0.0.1:{server.admin_port}", "--revoke")
        tap.ok(r.code == 0 and json.loads(r.out)["on_storage"] is True and not r.err, "sluice rotate --revoke", r)
        codes = [server.get(url(ASSET, "cenc", e, "a.mp4")).status for e in (1, 2, 3, 4)]
        tap.equal(codes, [410, 410, 200, 404], "a revoked epoch is gone")
        told = [server.get(url(ASSET, "cenc", e, "a.mp4"))["cache-control"] for e in (1, 4)]
        deep = media / "deep" / "album"
        (deep / "t").mkdir(parents=True)
        (deep / "t" / "init.mp4").write_bytes(b"")
        for name in ("nonexist", "deep", f"{ASSET}/a.mp4", "nonexist/", f"{ASSET}/", "deep/album/", "../outside"):
            r = sluice("rotate", name, "--revoke", "--admin", f"127.0.0.1:{server.admin_port}")
            known = r.code == 1 if name.startswith("..") else r.code == 0 and json.loads(r.out)["on_storage"] is False and "no asset of this name" in r.err
            tap.ok(known, f"rotate of {name}, which is nothing here, says so", r)
        for name in ("deep/", "deep/album"):
            r = sluice("rotate", name, "--admin", f"127.0.0.1:{server.admin_port}")
            tap.ok(r.code == 0 and not r.err and json.loads(r.out)["on_storage"] is True, f"rotate of {name} has no such note", r)
        for name, want in (("x y/é", "x y/é"), ("雨/𝄞", "雨/𝄞"), ('q"\\', 'q"\\'), (os.fsdecode(b"bad\xff\xc3("), "bad\u00ff\u00c3(")):
            r = sluice("rotate", name, "--admin", f"127.0.0.1:{server.admin_port}")
            scopes = [e["scope"] for e in json.loads(server.admin("/status").body)["epochs"]]
            tap.ok(r.code == 0 and json.loads(r.out)["scope"] == want and want in scopes, f"rotate and /status write {want!r} as UTF-8", (r, r.out, scopes))
        tap.equal(told, ["public, max-age=5", "public, max-age=1"], "caches keep a 410 like a manifest, and soon ask again for an epoch to come")
    with Server(sluice.path, media, keys=keys_file([ASSET], epochs=(1, 2, 3)), state=work / "state") as server:
        codes = [server.get(url(ASSET, "cenc", e, "a.mp4")).status for e in (1, 2, 3, 4)]
        tap.equal(codes, [410, 410, 200, 404], "rotations survive a restart")


def replaced(tap, sluice, work):
    """A file replaced in place: new IVs, new entity tags, and never a response of mixed bytes."""
    media = media_with(work)
    path = media / ASSET / "a.mp4"
    whole = url(ASSET, "cenc", 1, "a.mp4")
    kid, key, _ = record(ASSET, "cenc")
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        c = server.client()
        first = c.get(whole)
        versions = {first["etag"]: first.body}
        ivs = {s.iv for s in boxes.audio(first.body).samples}
        data = path.read_bytes()
        changed = bytearray(data)
        at = boxes.audio(data).samples[0].offset
        changed[at] ^= 1
        for how in ("by rename", "in place", "by rename to another length"):
            if how == "by rename":
                fresh = media / ASSET / ".new"
                fresh.write_bytes(bytes(changed))
                fresh.rename(path)
            elif how == "in place":
                changed[at] ^= 2
                with open(path, "r+b") as f:
                    f.write(changed)
            else:
                fresh = media / ASSET / ".new"
                fresh.write_bytes(synth.plain(5)[0])
                fresh.rename(path)
            end, r = time.monotonic() + 15, None
            while time.monotonic() < end:
                try:
                    r = c.get(whole)
                except (EOFError, ConnectionResetError):
                    c = server.client()
                    continue
                if r.status == 200 and r["etag"] not in versions:
                    break
                time.sleep(0.1)
            if not tap.ok(r is not None and r.status == 200 and r["etag"] not in versions, f"replaced {how}: a new entity tag", r):
                continue
            versions[r["etag"]] = r.body
            now = {s.iv for s in boxes.audio(r.body).samples}
            tap.ok(not now & ivs, f"replaced {how}: new IVs")
            ivs |= now
            (work / "x.mp4").write_bytes(r.body)
            back = sluice.decrypt(work / "x.mp4", work / "y.mp4", {kid: key})
            good = back.code == 0 and [s.data for s in boxes.audio((work / "y.mp4").read_bytes()).samples] == \
                [s.data for s in boxes.audio(path.read_bytes()).samples]
            tap.ok(good, f"replaced {how}: the new bytes decrypt to the new file", back)
            old = c.get(whole, headers={"If-None-Match": first["etag"]})
            tap.equal(old.status, 200, f"replaced {how}: the old tag does not match")
        wrong, served = [], 0
        end = time.monotonic() + 5
        flip = 0
        while time.monotonic() < end:
            flip += 1
            fresh = media / ASSET / ".new"
            fresh.write_bytes(synth.plain(2 + flip % 3)[0])
            fresh.rename(path)
            for _ in range(10):
                try:
                    r = c.get(whole)
                    if r.status == 200:
                        served += 1
                        t = boxes.audio(r.body)
                        if len(t.samples) not in (6, 9, 12, 15) or versions.setdefault(r["etag"], r.body) != r.body:
                            wrong.append(repr(r))
                    elif r.status != 503:
                        wrong.append(repr(r))
                except (EOFError, ConnectionResetError):
                    c = server.client()
                except (ValueError, IndexError) as e:
                    wrong.append(repr(e))
        tap.ok(served > 10 and not wrong, f"{flip} replacements under load: whole versions or an error, never mixed bytes",
               f"{served} served\n" + "\n".join(wrong[:5]))
        path.unlink()
        end = time.monotonic() + 15
        # 503 as long as what is remembered is an opening during which the file was replaced again, a reset where its bytes are gone
        while time.monotonic() < end:
            try:
                if c.get(whole).status not in (200, 503):
                    break
            except (EOFError, ConnectionResetError):
                c = server.client()
            time.sleep(0.1)
        tap.equal(c.get(whole).status, 404, "a removed file is not there any more")


def flipped(path):
    """Replaces a file by one of the same size, layout and mtime in which most bytes of each sample differ."""
    data, st = bytearray(path.read_bytes()), path.stat()
    for s in boxes.audio(bytes(data)).samples:
        for at in range(s.offset + 8, s.offset + s.size):
            data[at] ^= 0x5A
    fresh = path.with_name(".new")
    fresh.write_bytes(bytes(data))
    os.utime(fresh, ns=(st.st_atime_ns, st.st_mtime_ns))
    fresh.rename(path)


def same_time(tap, sluice, work):
    """A file replaced by one of the same size and mtime: no keystream twice, no tag for two bodies. Of the same bytes: no harm."""
    media = media_with(work)
    path = media / ASSET / "a.mp4"
    vector = VECTORS / "androidx-media" / "mp4" / "sample_ac3_fragmented.mp4"  # frames of one size, as in every file of this kind
    path.write_bytes(vector.read_bytes() if vector.is_file() else synth.plain(40)[0])
    os.utime(path, ns=(10 ** 18, 10 ** 18))
    whole = url(ASSET, "cenc", 1, "a.mp4")
    kid, key, _ = record(ASSET, "cenc")

    def differs(name, one, two):
        a, b = boxes.audio(one.body), boxes.audio(two.body)
        reused = [i for i, (s, t) in enumerate(zip(a.samples, b.samples))
                  if s.iv == t.iv or {x ^ y for x, y in zip(s.data[8:], t.data[8:])} == {0x5A}]
        tap.ok(one.status == two.status == 200 and one["etag"] != two["etag"], f"{name}: another entity tag", (one, two))
        tap.ok(len(a.samples) == len(b.samples) > 3 and not reused, f"{name}: no keystream twice", reused[:5])

    def get():
        with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
            r = server.get(whole)
            return r, parse_metrics(server.admin("/metrics").body.decode())
    first, _ = get()
    again, m = get()
    tap.ok(again["etag"] == first["etag"] and total(m, "sluice_index_total", "sidecar") == 1, "the sidecar is used at the next start", m.get("sluice_index_total"))
    flipped(path)
    second, _ = get()
    differs("replaced while the server was down", first, second)
    flipped(path)
    r = sluice("index", media)
    tap.ok(r.code == 0 and "1 indexed, 0 up to date" in r.out.decode(), "replaced: index makes the sidecar anew", r)
    third, m = get()
    tap.ok(third.body == first.body and third["etag"] == first["etag"], "the first bytes again: the first response again")
    flipped(path)
    out = []
    for n in range(2):
        r = sluice.encrypt(path, work / f"{n}.mp4", "cenc", kid, key)
        out.append((work / f"{n}.mp4").read_bytes() if r.code == 0 else repr(r).encode())
        if not n:
            path.with_name("a.mp4.slx").unlink()
    tap.ok(out[0] == out[1], "replaced: encrypt does not believe the sidecar")
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        c = server.client()
        one = c.get(whole)
        flipped(path)
        end, two = time.monotonic() + 15, one
        while time.monotonic() < end and (two.status != 200 or two["etag"] == one["etag"]):
            time.sleep(0.1)
            two = c.get(whole)
        differs("replaced under the running server", one, two)
    if os.getuid():
        os.chmod(path.parent, 0o500)
    else:
        path.with_name("a.mp4.slx").unlink()
        path.with_name("a.mp4.slx").mkdir()  # nothing can be written there, not even by root
    for n in range(2):
        with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
            tap.equal(server.get(whole)["etag"], two["etag"], f"no sidecar can be written, start {n}: the same response")
            server.get(url(ASSET, "cbcs", 1, "a.mp4"))
            said = [l for l in server.log() if "digest" in l]
            tap.ok(len(said) == 1 and "cannot be written: " in said[0] and "cache_dir" in said[0],
                   "and the log says once why, what that costs and what helps", said)
    os.chmod(path.parent, 0o700)


def same_bytes(tap, sluice, work):
    """Modes and links change under the running server, between reads of segments: no response notices."""
    media = media_with(work, lambda: synth.plain(200))
    path = media / ASSET / "a.mp4"
    with Server(sluice.path, media, config="segment_target: 1s\n", keys=keys_file([ASSET])) as server:
        body = server.get(url(ASSET, "cenc", 1, "a.mp4")).body
    for io in ("auto", "epoll"):
        with Server(sluice.path, media, "--io", io, config="segment_target: 1s\n", keys=keys_file([ASSET])) as server:
            c, got = server.client(), []
            for n in range(1, 9):  # of each the source is read for the first time
                r = c.get(url(ASSET, "cenc", 1, "a", f"{n}.m4s"))
                got.append((n, r.status, len(r.body) > 100 and r.body in body))
                if n % 2:
                    os.chmod(path, 0o600 + n)
                else:
                    os.link(path, work / f"{io}{n}")
            m = parse_metrics(server.admin("/metrics").body.decode())
            tap.ok(all(status == 200 and same for _, status, same in got), f"{io}: chmod and links under the running server: every segment as before", got)
            tap.equal(total(m, "sluice_errors_total", "source_changed"), 0.0, f"{io}: chmod and links are no change")


def reload(tap, sluice, work):
    media = media_with(work)
    config = f"media: {media}\nschemes: [cenc, cbcs]\n"
    with Server(sluice.path, media, keys=keys_file([ASSET]), config=config) as server:
        whole = url(ASSET, "cbcs", 1, "a.mp4")
        clear = url(ASSET, "clear", 1, "a.mp4")
        first = server.get(whole)
        tap.equal((first.status, server.get(clear).status), (200, 403), "reload: before")
        keep = server.client()
        keep.get(whole)
        good_yaml, keys = server.folder / "sluice.yaml", server.folder / "keys.yaml"
        good_keys = keys.read_text()

        def hup(pattern):
            n = len(server.log())
            server.signal(signal.SIGHUP)
            return server.wait_log(pattern, after=n)

        for name, path, bad in (("configuration", good_yaml, config + "nonsense: 1\n"), ("keys", keys, good_keys + "  - nonsense\n")):
            was = path.read_text()
            path.write_text(bad)
            line = hup(r"(?i)reload|nonsense")
            tap.ok(line is not None, f"reload: bad {name}: the log says so", "\n".join(server.log()[-5:]))
            r = server.get(whole)
            tap.ok(r.status == 200 and r.body == first.body, f"reload: bad {name}: the old one still serves", r)
            path.write_text(was)
        good_yaml.write_text(config.replace("[cenc, cbcs]", "[cenc, cbcs, clear]"))
        kid, key, _ = record(ASSET, "cbcs", 77)
        old_kid, old_key, _ = record(ASSET, "cbcs")
        keys.write_text(good_keys.replace(old_kid, kid).replace(old_key, key))
        hup(r"(?i)reload")
        end = time.monotonic() + 10
        while time.monotonic() < end and server.get(clear).status != 200:
            time.sleep(0.05)
        tap.equal(server.get(clear).status, 200, "reload: the new configuration holds")
        r = server.get(whole)
        tap.ok(r.status == 200 and r["etag"] != first["etag"] and boxes.audio(r.body).tenc.kid.hex() == kid, "reload: the new keys hold", r)
        tap.equal(keep.get(whole).body, r.body, "reload: connections stay")
        told = server.wait_log(r"warn reload: changed: of the keys file: keys: .*rotate.*purge", 2)
        tap.ok(told is not None, "reload: other keys under URLs that caches keep for a year are a warning", "\n".join(server.log()[-5:]))
        n = len(server.log())
        good_yaml.write_text(good_yaml.read_text() + "segment_target: 4s\ncbcs_senc: false\n")
        keys.write_text(keys.read_text() + "drm: { systems: [widevine] }\n")
        told = hup(r"warn reload: changed: segment_target, cbcs_senc, of the keys file: drm: .*rotate.*purge")
        tap.ok(told is not None, "reload: so are options that change segments and playlists, by name", "\n".join(server.log()[n:]))
        n = len(server.log())
        good_yaml.write_text(good_yaml.read_text() + "manifest_max_age: 7s\n")
        hup(r"info reloaded")
        tap.ok(not any("changed" in l for l in server.log()[n:]), "reload: others are not", "\n".join(server.log()[n:]))
        clear_file = (media / ASSET / "a.mp4").read_bytes()
        got = boxes.audio(server.get(clear).body)
        tap.ok([s.data for s in got.samples] == [s.data for s in boxes.audio(clear_file).samples] and got.scheme is None,
               "scheme clear: the samples as they are")
        keep.close()


def capabilities(process):
    """{thread: (permitted, effective, inheritable, ambient)} of a running process."""
    out = {}
    for status in pathlib.Path(f"/proc/{process.pid}/task").glob("*/status"):
        sets = dict(re.findall(r"(Cap\w+):\t(\w+)", status.read_text()))
        out[int(status.parent.name)] = tuple(int(sets[k], 16) for k in ("CapPrm", "CapEff", "CapInh", "CapAmb"))
    return out


def low_port():
    for port in range(1023, 600, -1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    return None


def privileges(tap, sluice, work):
    """As root: what was needed to start is given up by every thread; a reload and a rotation still have what they need."""
    ours = [s for s in capabilities(subprocess.Popen(["sleep", "1"])).values()]
    need = 1 << 1 | 1 << 2 | 1 << 14  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK
    port = low_port()
    if os.getuid() or not all(s[1] & (need | 1 << 10) == need | 1 << 10 for s in ours) or port is None:
        tap.skip("capabilities are given up", "not root, or root without them")
        return
    media = media_with(work)
    for other in (False, True):  # another user's files, which root may open by a capability alone
        state = work / f"state{other}"
        state.mkdir(mode=0o700)
        with Server(sluice.path, media, "--listen", f"127.0.0.1:{port}", "--workers", "2", keys=keys_file([ASSET], epochs=(1, 2)), state=state) as server:
            if not server.wait_log("files and system calls are confined", 1):
                tap.skip("capabilities are given up", "no sandbox here")
                return
            server.port = port
            sets = capabilities(server.process)
            left = need & ours[0][0]
            tap.ok(len(sets) >= 7 and all(s == (left, left, 0, 0) for s in sets.values()), f"port {port}, and {len(sets)} threads have what files and locked memory need", sets)
            whole = url(ASSET, "cbcs", 2, "a.mp4")
            tap.equal(server.get(whole).status, 404, "a port below 1024 answers")
            for path in (state, server.folder / "keys.yaml", *state.iterdir()) if other else ():
                os.chown(path, 12345, 12345)
                os.chmod(path, 0o700 if path.is_dir() else 0o600)
            server.signal(signal.SIGHUP)
            tap.ok(server.wait_log(r"info reloaded|reload refused", 5).endswith("reloaded keys"), "a reload reads the keys", "\n".join(server.log()[-4:]))
            r = sluice("rotate", ASSET, "--admin", f"127.0.0.1:{server.admin_port}")
            tap.ok(r.code == 0 and server.get(whole).status == 200, "a rotation writes the journal", r)


def drain(tap, sluice, work):
    media = media_with(work, synth.long_samples)
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        whole = url(ASSET, "cbcs", 1, "a.mp4")
        body = server.get(whole).body
        busy, idle = server.client(), server.client()
        idle.get(whole)
        busy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        busy.socket.sendall(busy.request_bytes(whole) * 40)
        time.sleep(0.3)
        server.signal(signal.SIGTERM)
        time.sleep(0.3)
        tap.ok(idle.closed(10), "SIGTERM: idle connections end")
        refused = False
        try:
            c = server.client(timeout=3)
            c.get(whole)
        except (OSError, EOFError):
            refused = True
        tap.ok(refused, "SIGTERM: no new connections")
        got = 0
        try:
            while busy.read().body == body:
                got += 1
        except (EOFError, OSError):
            pass
        tap.ok(got >= 1 and not busy.buffer, "SIGTERM: responses under way are finished, none is cut short",
               f"{got} whole responses, {len(busy.buffer)} stray bytes")
        try:
            code = server.process.wait(40)
        except subprocess.TimeoutExpired:
            code = None
        tap.equal(code, 0, "SIGTERM: ends with status 0")
    for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)):
        with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
            busy = server.client()
            busy.socket.sendall(busy.request_bytes(whole) * 40)
            time.sleep(0.3)
            server.signal(first)
            server.wait_log("draining")
            server.signal(second)  # as timeout(1) sends it, to the process and to its group
            time.sleep(1)
            there = server.process.poll() is None
            server.signal(second)
            try:
                code = server.process.wait(10)
            except subprocess.TimeoutExpired:
                code = None
            tap.equal((there, code), (True, 0), f"a second {second.name} while clients are waited for: the end at once")
            busy.close()


def derived(tap, sluice, work):
    """Without a keys file a secret is made, mode 0600, said aloud, and kept."""
    media = media_with(work)
    with Server(sluice.path, media) as server:
        r = server.get(url(ASSET, "cenc", 1, "a.mp4"))
        tap.equal(r.status, 200, "no keys file: keys are derived")
        files = [p for p in server.state.iterdir() if p.is_file()]
        secrets = [p for p in files if "key" in p.name or "secret" in p.name]
        tap.ok(secrets and all(p.stat().st_mode & 0o777 == 0o600 for p in secrets), "the secret has mode 0600", files)
        tap.ok(server.wait_log(r"(?i)secret", 2) is not None, "and the log says so", "\n".join(server.log()))
        a = boxes.audio(r.body)
        b = boxes.audio(server.get(url(ASSET, "cbcs", 1, "a.mp4")).body)
        tap.ok(a.tenc.kid != b.tenc.kid, "derived: each scheme has its own KID")
        r = server.get(url(ASSET, "cenc", 1, "a", "key"))
        tap.ok(r.status in (403, 404), "derived: keys are not handed out", r)


def open_secrets(tap, sluice, work):
    """Secrets that everybody may read are a warning, from --check, at start and on SIGHUP."""
    media = media_with(work)
    names = {"master.key": bytes(range(32)), "kek": b"k" * 32, "token": b"correct-horse-battery\n", "keys.yaml": keys_file([ASSET]).encode(),
             "derive.yaml": b"derive: { secret_file: master.key }\n", "wrapped.yaml": b"derive: { secret_file: wrapped.key, kek_file: kek }\n"}
    for name, data in names.items():
        (work / name).write_bytes(data)
        (work / name).chmod(0o644)
    sluice("keys", "rewrap", work / "master.key", "--new-kek", work / "kek")
    (work / "wrapped.key").write_bytes((work / "master.key").read_bytes())
    (work / "master.key").write_bytes(names["master.key"])
    for flags, secrets in ((["--keys", work / "keys.yaml"], ["keys.yaml"]), (["--keys", work / "derive.yaml"], ["master.key"]),
                           (["--keys", work / "wrapped.yaml"], ["kek"]), (["--admin-token-file", work / "token"], ["token"])):
        for mode in (0o644, 0o640, 0o600):
            for name in secrets:
                (work / name).chmod(mode)
            r = sluice("serve", "--check", "--media", media, "--state-dir", work / "state", *flags)
            told = re.findall(r"warn \S*/(\S+): everybody on this machine can read it \(mode 0644\): chmod 600", r.err)
            tap.ok(r.code == 0 and told == (secrets if mode == 0o644 else []), f"--check: {secrets[0]} of mode {mode:o}: {'a' if mode == 0o644 else 'no'} warning", r)
    with Server(sluice.path, media, "--keys", str(work / "derive.yaml")) as server:
        tap.ok(not any("everybody" in l for l in server.log()), "a start with a secret of mode 600: no warning", server.log())
        (work / "master.key").chmod(0o604)
        server.signal(signal.SIGHUP)
        tap.ok(server.wait_log("master.key: everybody on this machine can read it .mode 0604.", 5), "SIGHUP when it has become open: a warning", server.log())


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    began = time.monotonic()
    for part in (bad_starts, relative, observability, counted, limited, cut_off, reasons, no_descriptors, warned, full_disk, sidecars_in_turn, descriptors_kept, rotation, replaced, same_time, same_bytes, reload, privileges, drain, derived,
                 open_secrets):
        if len(sys.argv) > 2 and part.__name__ not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory(prefix="sluice-life-") as work:
            try:
                part(tap, sluice, pathlib.Path(work))
            except (OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError) as e:
                tap.ok(False, f"{part.__name__}: runs to its end", repr(e))
        tap.note(f"{part.__name__}: until second {time.monotonic() - began:.1f}")
    tap.end()


if __name__ == "__main__":
    main()
