"""Logs, metrics, and what the server says when something runs out: parts of life.py."""
import json
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import time

from integration.life_parts import ASSET, await_metrics, media_with, parse_metrics, total
from integration.truth import keys_file, record, url
from judge import synth
from judge.server import Client, Server, free_port


def observability(tap, sluice, work):
    media = media_with(work)
    log, began = work / "access.log", time.monotonic()
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
        await_metrics(server, lambda m: total(m, "sluice_responses_total") - total(before, "sluice_responses_total") >= 24)
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
        said = json.loads(status.body)
        numbers = {"requests": total(after, "sluice_requests_total"), "sent_bytes": total(after, "sluice_sent_bytes_total"),
                   **{f"responses {c}": total(after, "sluice_responses_total", f'class="{c}"') for c in ("2xx", "3xx", "4xx", "5xx")},
                   **{f"{where} {what}": total(after, "sluice_cache_lookups_total", f'cache="{cache}"', f'result="{result}"')
                      for where, what, cache, result in (("cache", "hits", "segment", "hit"), ("cache", "misses", "segment", "miss"), ("encrypted_cache", "hits", "encrypted", "hit"))}}
        got = {k: said[k.split()[0]] if " " not in k else said[k.split()[0]][k.split()[1]] for k in numbers}
        tap.equal(got, numbers, "/status has the numbers of /metrics")
        tap.ok(numbers["responses 2xx"] > 20 and numbers["responses 4xx"] == 2 and numbers["cache hits"] != numbers["cache misses"], "which are not all the same", numbers)
        tap.ok(0 < said["uptime"] <= time.monotonic() - began, "/status: seconds since the start", said["uptime"])
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
        # The end of the list is what proxies say, each in a line of its own or not; its beginning may be the client's.
        c = server.client()
        for lines in (["9" * 200 + ", 198.51.100.9", "10.0.0.1", "", "10.0.0.2"], ["9" * 200 + ", 198.51.100.9"], ["9" * 126, "10.0.0.1"], ["a", "9" * 200]):
            c.socket.sendall(f"GET {whole} HTTP/1.1\r\nHost: x\r\n".encode() + b"".join(b"X-Forwarded-For: %s\r\n" % line.encode() for line in lines) + b"\r\n")
            c.read()
        c.close()
        server.stop()
        try:
            rows = [json.loads(l) for l in (work / "access.json").read_text().splitlines()]
            proxied = [row["forwarded_for"] for row in rows[1:]]
            tap.equal(proxied, [("9" * 200 + ", 198.51.100.9, 10.0.0.1, , 10.0.0.2")[-128:], ("9" * 200 + ", 198.51.100.9")[-128:], ("9" * 126 + ", 10.0.0.1")[-128:], "9" * 128],
                      "X-Forwarded-For: the end of all its lines")
            tap.ok(len(rows) == 5 and rows[0]["agent"] == 'q"\\' and rows[0]["forwarded_for"] == "198.51.100.9, 10.0.0.1", "JSON lines", rows)
        except ValueError as e:
            tap.ok(False, "JSON lines", repr(e))


def who_asked_what(tap, sluice, work):
    """The access log names clients of both families and every method that has a meaning here."""
    log, port, asked = work / "who.json", free_port(), ("GET", "HEAD", "POST", "OPTIONS", "PUT")
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as e:
        tap.skip("the access log: clients by IPv4 and IPv6", f"no IPv6 here: {e}")
        return
    with Server(sluice.path, media_with(work), "--listen", f"[::1]:{port}", "--access-log", str(log), "--access-format", "json") as server:
        for address in (("127.0.0.1", server.port), ("::1", port)):
            c = Client(address[1], address[0])
            for method in asked:
                c.get("/none", method)
            c.close()
        server.stop()
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        tap.equal(sorted((row["ip"], row["method"]) for row in rows), sorted((ip, m if m != "PUT" else "-") for ip in ("127.0.0.1", "::1") for m in asked),
                  "the access log: clients by IPv4 and IPv6, and what they asked with")


def counted(tap, sluice, work):
    """Whatever is answered is one request and one response; a connection without a request is idle."""
    media, name = media_with(work), url(ASSET, "cbcs", 1, "a", "init.mp4")
    for io in ("auto", "epoll"):
        with Server(sluice.path, media, "--io", io, keys=keys_file([ASSET])) as server:
            def numbers(*names, server=server):
                m = parse_metrics(server.admin("/metrics").body.decode())
                return [int(total(m, f"sluice_{n}")) for n in names]

            def become(want, what, *names, numbers=numbers, io=io):
                end = time.monotonic() + 20
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
        lost = ("sluice_access_log_lines_total", 'result="dropped"')
        dropped = total(await_metrics(server, lambda m: total(m, *lost) > 0), *lost)
        tap.ok(log.stat().st_size <= 8192 and dropped > 0, "the log's lost lines are counted", (log.stat().st_size, dropped))
        tap.equal(server.stop(), 0, "and it ends in good order")


def sent_ahead(port):
    """Bytes that the kernel holds for the clients of a local port."""
    rows = (line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(int(r[4].split(":")[0], 16) for r in rows if int(r[1].split(":")[1], 16) == port and r[3] == "01")


def cut_off(tap, sluice, work):
    """A response whose client leaves is counted and logged once, with its status and the bytes that it got."""
    media = media_with(work, lambda: synth.plain(3000))
    whole, part = url(ASSET, "cbcs", 1, "a.mp4"), url(ASSET, "cbcs", 1, "a", "init.mp4")
    for io in ("auto", "epoll"):
        log = work / f"{io}.json"
        with Server(sluice.path, media, "--io", io, "--access-log", str(log), "--access-format", "json", "--cache-encrypted", "off",
                    keys=keys_file([ASSET])) as server:
            good = ("sluice_responses_total", 'class="2xx"')

            def counted(num, server=server, good=good):
                m = await_metrics(server, lambda m: total(m, *good) >= num)
                return [total(m, *good), total(m, "sluice_sent_bytes_total")]
            size = int(server.get(whole, "HEAD")["content-length"])
            before = counted(1)
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", server.port))
            s.sendall(f"GET {part} HTTP/1.1\r\nHost: h\r\n\r\nGET {whole} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            end = time.monotonic() + 20
            while (s.recv(65536, socket.MSG_PEEK).count(b"HTTP/1.1 200") < 2 or sent_ahead(server.port) < 16384) and time.monotonic() < end:
                time.sleep(0.05)
            time.sleep(0.5)  # how much more fits into the sockets cannot be seen from here
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
            half = server.client()
            half.socket.sendall(f"GET {part} HTTP/1.1\r\nHost: h\r\n\r\nGET {whole} HT".encode())
            half.read()
            half.close()
            grew = [after - b for after, b in zip(counted(before[0] + 3), before)]
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
    with Server(sluice.path, media, "--negative-ttl", "1500ms", keys=keys_file([ASSET, "bad"]) + away) as server:
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
                    tap.equal(r["cache-control"], "public, max-age=2", f"{asset}/{rest[-1]}{again}: caches may keep it for negative_ttl, in whole seconds")
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
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, limits[1]))  # whatever is closed meanwhile
            r = c.get(path)
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
            tap.ok(r.status == 503 and r["retry-after"] and r["cache-control"] == "no-store" and grown(before, errors()) == ["source_io"],
                   f"{path} without a descriptor: 503, counted as source_io", f"{r} {grown(before, errors())}")
            tap.equal(c.get(path).status, 200, f"{path}: with descriptors it is there")


def not_accepted(tap, sluice, work):
    """Without a descriptor for them clients wait in the kernel's queue, and that is counted; nobody of them is lost, also where the end comes first.
    Over epoll: io_uring's accept has the limit of when it began."""
    with Server(sluice.path, media_with(work), "--workers", "1", "--io", "epoll", keys=keys_file([ASSET])) as server:
        path, admin, crowd = url(ASSET, "cbcs", "master.m3u8"), Client(server.admin_port), []

        def events(name):
            return total(parse_metrics(admin.get("/metrics").body.decode()), "sluice_connections_total", f'event="{name}"')
        limits = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        used = {0}
        while len(used) < 100 or max(used) >= len(used):  # more than the admin listener polls, and no gap among them
            crowd.append(server.client())
            crowd[-1].get(path)
            used = {int(fd) for fd in os.listdir(f"/proc/{server.process.pid}/fd")}
        for last in (False, True):
            accepted, refused = events("accepted"), events("refused")
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (len(used), limits[1]))
            clients = [server.client() for _ in range(5)]
            for c in clients:
                c.send(path)
            end = time.monotonic() + 10
            while events("refused") < refused + 2 and time.monotonic() < end:
                time.sleep(0.02)
            got = events("accepted"), events("refused")
            tap.ok(got[0] == accepted and got[1] >= refused + 2, "without descriptors it tries again, and counts that", (got, accepted, refused))
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, limits)
            if last:
                server.signal(signal.SIGTERM)
            answers = []
            for c in clients:
                try:
                    answers.append(c.read().status)
                except (OSError, EOFError) as e:
                    answers.append(repr(e))
                c.close()
            tap.equal(answers, [200] * 5, "who waited is answered" + (", by a server that ends" if last else ""))
        tap.equal(server.stop(), 0, "it ends in good order")
