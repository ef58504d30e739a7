#!/usr/bin/env python3
"""Clients of all kinds, as the server meets them: clients.py SLUICE"""
import collections
import pathlib
import re
import socket
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.certs import Authority  # noqa: E402
from judge.listening import Listening  # noqa: E402
from judge.disturbed import undisturbed  # noqa: E402
from judge.load import Load, Proxy, keys_text, media  # noqa: E402
from judge.server import Server, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSETS = ["album/one", "two"]


def scenario(clients="", player="ahead: 9, tracks: 1, skip: 0", arrivals="{ for: 300ms, rate: 100 }", drain="100ms", protocol="hls", level=""):
    return f"""name: clients
seed: 12
arrivals: [{arrivals}]
drain: {drain}
catalogue: {{ assets: [{", ".join(ASSETS)}] }}
scheme: cenc
protocol: {protocol}
player: {{ timeout: 60s, {player} }}
clients: {{ {clients} }}
verify: {{ share: 100%, media: media, keys: keys.yaml }}
level: {{ lag_p99_ms: 60000{level} }}
"""


def heads_with(proxy, pattern):
    return [h for h in proxy.heads if re.search(pattern, h)]


def kinds(tap, load, proxy):
    def play(*a, **k):
        proxy.heads, proxy.connections = [], 0
        r = load(scenario(*a, **k), proxy.url)
        return r, r.json["totals"]
    r, t = play()
    segments = t["segments"]
    tap.ok(r.code == 0 and t["verified"] == segments > 100 and t["connects"] == t["sessions"] == proxy.connections,
           "plain clients: a connection a listener, every segment compared", f"{r.out.decode()} {t} {proxy.connections}")
    r, t = play("range: 100%")
    forms = {n: len(heads_with(proxy, p)) for n, p in (("a-b", rb"Range: bytes=\d+-\d+\r?"), ("a-", rb"Range: bytes=\d+-(\r|$)"), ("-n", rb"Range: bytes=-\d+"))}
    tap.ok(r.code == 0 and min(forms.values()) > 3 and sum(forms.values()) == t["ranges"], "ranges of three forms, each compared with the whole", forms)
    r, t = play("head: 100%")
    tap.ok(r.code == 0 and t["heads"] == len(heads_with(proxy, rb"^HEAD ")) > 5, "HEAD before GET, the announced length held against it", t)
    for kind, counter, asked in (("head", "heads", rb"^HEAD "), ("range", "ranges", rb"Range: bytes=\d+-\d+")):
        proxy.heads = []
        r = load(re.sub("verify:.*", "", scenario(f"{kind}: 100%").replace(f'assets: [{", ".join(ASSETS)}]', "manifests: [/two/cenc/byterange.m3u8]")), proxy.url)
        t = r.json["totals"]
        tap.ok(r.code == 0 and len(heads_with(proxy, asked)) >= t[counter] > 5 and t["wrong"] == 0, f"{kind} of a part of a file", f"{t} {r.out.decode()}")

    def shorter(path, response):
        if response.status == 206:
            response.body = response.body[:-1]
            response.headers = [(k, str(len(response.body)) if k.lower() == "content-length" else v) for k, v in response.headers]
    proxy.change = shorter
    r = load(re.sub("verify:.*", "", scenario(player="tracks: 1, retries: 0").replace(f'assets: [{", ".join(ASSETS)}]', "manifests: [/two/cenc/byterange.m3u8]")), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["errors"] == t["errors_by_kind"]["cut"] == t["sessions"] > 5, "parts that are shorter than they say", f"{t} {r.out.decode()}")
    r, t = play("range: 100%")
    tap.ok(r.code == 1 and t["wrong"] == t["ranges"] > 5 and re.search(r"/\d+\.m4s: a range of \d+ bytes brought \d+$", t["first_wrong"]), "and ranges", f"{t} {r.out.decode()}")

    def blanks(path, response):
        response.headers = [(k, v + " \t" * (k.lower() == "content-range")) for k, v in response.headers]
    proxy.change = blanks
    r, t = play("range: 100%")
    tap.ok(r.code == 0 and t["ranges"] > 5 and not t["wrong"], "blanks behind a Content-Range are no part of it", f"{t} {r.out.decode()}")

    def more(path, response):
        response.headers = [(k, v + (" " * 80 + "x") * (k.lower() == "content-range")) for k, v in response.headers]
    proxy.change = more
    r, t = play("range: 100%")
    tap.ok(r.code == 1 and t["wrong"] == t["ranges"] > 5, "what stands behind them is", f"{t} {r.out.decode()}")
    proxy.change = lambda path, response: None
    r, t = play("conditional: 100%")
    tap.ok(r.code == 0 and t["not_modified"] == len(heads_with(proxy, rb"If-None-Match: \"")) > 5, "conditional requests with the ETag that came", t)

    def hint_tagged(path, response):
        response.reason = f'Early Hints\r\nETag: "hint"\r\n\r\nHTTP/1.1 {response.status} {response.reason}'
        response.status = 103
    proxy.change = hint_tagged
    r, t = play("conditional: 100%")
    tap.ok(r.code == 0 and t["not_modified"] > 5 and not heads_with(proxy, rb"hint"), "and not with that of an interim answer", t)
    for n in (79, 80):  # as long as one that is kept, and longer
        def tagged(path, response):
            response.headers = [(k, etag if k.lower() == "etag" else v) for k, v in response.headers]
        etag, proxy.change = '"' + "e" * (n - 2) + '"', tagged
        r, t = play("conditional: 100%")
        tap.ok(r.code == 0 and not t["not_modified"] and bool(heads_with(proxy, rb"If-None-Match: " + etag.encode() + rb"$")) == bool(heads_with(proxy, rb"If-None-Match")) == (n == 79),
               f"conditional requests: an ETag of {n} bytes", t)
    proxy.change = lambda path, response: None
    r, t = play("abort: 100%")
    tap.ok(r.code == 0 and t["aborted"] > 5 and t["connects"] == t["sessions"] + t["aborted"] and t["segments"] == segments,
           "aborts in the middle of a body: a new connection, and the segment in the end", t)
    r, t = play("half_close: 100%")
    tap.ok(r.code == 0 and t["segments"] == t["verified"] == segments, "half-closed connections are answered to the end", t)
    tap.ok(proxy.connections >= segments, "and are not used again", proxy.connections)
    r, t = play("reconnect: 100%")
    tap.ok(r.code == 0 and t["connects"] == t["requests"] == proxy.connections, "a connection for every request", t)
    r, t = play("storm_at: 600ms, storm: 50%", player="ahead: 1, tracks: 1, skip: 0", drain="700ms")
    tap.ok(r.code == 0 and 5 < t["storms"] < t["sessions"] and t["connects"] == t["sessions"] + t["storms"] == proxy.connections,
           "a reconnect storm: the share that was asked for comes back at once", t)
    r, t = play(player="ahead: 1, tracks: 1, skip: 0, token_ttl: 500ms", drain="2.5s", arrivals="{ for: 100ms, rate: 100 }")
    tokens = collections.defaultdict(set)
    for h in heads_with(proxy, rb"\?token="):
        who, n = re.search(rb"\?token=(\d+)\.(\d+) ", h).groups()
        tokens[who].add(int(n))
    tap.ok(r.code == 0 and len(proxy.heads) == sum(b"?token=" in h for h in proxy.heads) and all(len(v) > 1 for v in tokens.values()),
           "tokens in every request, renewed while the session lasts", dict(tokens))
    r, t = play(arrivals="{ for: 500ms, rate: 40, poll: 100ms }, { for: 100ms, rate: 40 }")
    tap.ok(r.code == 0 and t["polls"] > t["sessions"], "countdown: who comes early polls", t)
    r, t = play(player="ahead: 9, tracks: 2, skip: 0, switch_rendition: 30%", protocol="mix")
    both = {re.search(rb"/(aac-\d)/", h)[1] for h in heads_with(proxy, rb"/aac-\d/\d+\.m4s")}
    tap.ok(r.code == 0 and len(both) == 2 and heads_with(proxy, rb"manifest\.mpd") and heads_with(proxy, rb"master\.m3u8"), "HLS and DASH, both renditions", both)


def broken(tap, load, proxy):
    """Answers that fail: retried with growing pauses, then the next track."""
    asked = []

    def refuse(path, response):
        if path.endswith("/2.m4s"):
            asked.append(time.monotonic())
            response.status, response.reason = 503, "Service Unavailable"
    proxy.heads, proxy.change = [], refuse
    r = load(scenario(player="ahead: 9, tracks: 1, skip: 0, retries: 3, retry_after: 100ms", arrivals="{ for: 50ms, rate: 300 }", drain="300ms", level=", errors: 1"), proxy.url)
    t = r.json["totals"]
    tap.ok(t["errors"] == t["errors_by_kind"]["5xx"] == len(asked) == 4 * t["sessions"] > 20 and t["first_refused"].endswith("/2.m4s: answered with 503"), "a 503 is asked for again three times, and given up", t)
    tap.ok(r.code == 0, "level.errors says how many may fail", r)
    proxy.change = lambda path, response: None
    r = load(scenario(level=", errors: 0"), proxy.url)
    tap.equal(r.code, 0, "afterwards nothing fails")

    def cut(path, response):
        if path.endswith("/2.m4s"):
            response.body = response.body[:-10]
            raise EOFError
    proxy.change = cut
    r = load(scenario(player="ahead: 9, tracks: 1, skip: 0, retries: 0"), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["errors"] == t["sessions"] and "MISSED  requests failed" in r.out.decode(), "connections that end before the answer: counted, status 1", t)


    def moved(path, response):
        if path.endswith("/2.m4s"):
            response.status, response.reason = 302, "Found"
    proxy.change = moved
    r = load(scenario(player="ahead: 9, tracks: 1, skip: 0, retries: 0"), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["errors"] == t["errors_by_kind"]["status"] == t["sessions"] and f"failed: {t['errors']} with another status" in r.out.decode() and t["first_refused"].endswith("/2.m4s: answered with 302"),
           "redirections are not followed, and told as what they are", f"{t} {r.out.decode()}")

    def hinted(path, response):
        if path.endswith(".m4s"):
            response.status, response.reason = 103, "Early Hints\r\nLink: </x>; rel=preload\r\n\r\nHTTP/1.1 200 OK"
    proxy.change = hinted
    r = load(scenario(), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 0 and t["requests"] > 5 and not t["errors"] and not t["unasked_bytes"], "103 Early Hints are no answer", f"{t} {r.out.decode()}")
    proxy.change = lambda path, response: response.headers.append(("Location", "/elsewhere"))
    r = load(scenario(), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 0 and t["requests"] > 5 and not t["redirects"], "a Location that is no redirection's leads nowhere", f"{t} {r.out.decode()}")

    def longer(path, response):
        if path.endswith("/2.m4s"):
            response.body += b"12345"  # Content-Length stays
    proxy.change = longer
    r = load(scenario(), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["unasked_bytes"] >= 5 and "MISSED  bytes behind a response's end" in r.out.decode(), "a body that is longer than it was to be", f"{t} {r.out.decode()}")

    def garbled(path, response):
        if path.endswith("media.m3u8"):
            response.body = b"x" * len(response.body)
    proxy.change = garbled
    r = load(scenario(player="ahead: 9, tracks: 1, skip: 0, retries: 0"), proxy.url)
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["errors"] == t["errors_by_kind"]["parse"] == t["sessions"], "playlists that are none", t)
    proxy.change = lambda path, response: None


class Saying(Listening):
    """Answers every request with the same bytes, and ends the connection."""

    def __init__(self, answer):
        self.answer = answer
        super().__init__()

    def handle(self, s):
        try:
            s.recv(65536)
            s.sendall(self.answer)
            s.shutdown(socket.SHUT_WR)
            s.recv(1)
        except OSError:
            pass
        finally:
            s.close()


def no_http(tap, load):
    """What is not HTTP/1.1, or not a whole head, is told from no answer."""
    for answer, kind, why, at_start in (
            (b"\x15\x03\x03\x00\x02\x02\x46", "protocol", "Expected HTTP/", "is not HTTP/1.1: Expected HTTP/"),
            (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol", "Expected HTTP/", "is not HTTP/1.1: Expected HTTP/"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "protocol", "Invalid character in Content-Length", "is not HTTP/1.1: Invalid character in Content-Length"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxy\r\n", "protocol", "Invalid character in chunk size", "is not HTTP/1.1: Invalid character in chunk size"),
            (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n: x\r\nContent-Length: 0\r\n\r\n", "protocol", "A field without a name", "is not HTTP/1.1: A field without a name"),
            (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "protocol", "No status line of HTTP/1.1", "is not HTTP/1.1: No status line of HTTP/1.1"),
            (b"HTTP/1.1 20 OK\r\nConnection: close\r\n\r\n", "protocol", "No status line of HTTP/1.1", "is not HTTP/1.1: No status line of HTTP/1.1"),
            (b"HTTP/1.1 200 OK\r\nContent-Le", "cut", "", "ends within its head"),
            (b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: x\r\n\r\nbody", "cut", "", "ends within its head"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1", "cut", "", "is not whole"),
            (b"", "connect", "", "does not answer")):
        with Saying(answer) as server:
            r = load(scenario(player="ahead: 9, tracks: 1, skip: 0, retries: 0"), server.url)
            t = r.json["totals"]
            refused = t["first_refused"].endswith(f"/cenc/master.m3u8: the answer is not HTTP/1.1: {why}") if why else not t["first_refused"]
            tap.ok(r.code == 1 and t["errors"] == t["errors_by_kind"][kind] == t["sessions"] > 5 and refused, f"{answer[:40]}: {kind}", f"{t} {r}")
            hint = "nothing that came was HTTP/1.1: what listens at --target, and does it want https://?"
            tap.equal(hint in r.out.decode(), kind == "protocol", f"{answer[:40]}: the hint")
            r = load(re.sub(r"verify:.*", "", scenario()) + "seconds: 1\nrate: 20\n", server.url, "--mode", "rate")
            tap.ok(r.code == 1 and at_start in r.err, f"{answer[:40]}: at the start of a run without listeners", r)


def quoted(tap, load):
    """What a server says is text in reports, whatever bytes it has."""
    says = "leads to http://a?[2J??, which is not the target"
    body = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://a\x1b[2J\xe9\xff/x\n"
    with Saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body) as server:
        r = load(scenario(player="tracks: 1, retries: 0"), server.url)
        tap.ok(r.code == 1 and says in r.json["totals"]["first_refused"] and says in r.out.decode(), "a playlist with bytes that are no text", r)
        r = load(re.sub(r"verify:.*", "", scenario()) + "seconds: 1\nrate: 20\n", server.url, "--mode", "rate")
        tap.ok(r.code == 1 and says in r.err and r.err.count("\n") == 1, "and at the start of a run without listeners", r)
    with Saying(b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: 2\r\n\r\nok" % (b"x" * 50)) as server:
        r = load(scenario(player="tracks: 1, retries: 0"), server.url)
        tap.ok(r.code == 1 and f"Content-Encoding: {'x' * 23}, and no" in r.json["totals"]["first_refused"], "a Content-Encoding that is longer than any", r)


def trailed(tap, load):
    """Fields count from the head alone: what trailers say of a manifest does not. A higher minor version of HTTP is read as 1.1."""
    body = b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttp://a/x\n"
    with Saying(b"HTTP/1.2 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nContent-Encoding: br\r\n\r\n" % (len(body), body)) as server:
        r = load(scenario(player="tracks: 1, retries: 0"), server.url)
        tap.ok(r.code == 1 and "leads to http://a, which is not the target" in r.json["totals"]["first_refused"], "a Content-Encoding in trailers", r.json["totals"]["first_refused"])
    with Saying(b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\nLocation: http://a \t\r\n\r\n0\r\nLocation: b\r\n\r\n") as server:
        r = load(scenario(player="tracks: 1, retries: 0"), server.url)
        tap.ok(r.code == 1 and "leads to http://a, which is not the target" in r.json["totals"]["first_refused"], "and a Location, which ends before the blanks behind it", r.json["totals"]["first_refused"])


class OneEach(Listening):
    """Answers one request over a connection; manifests are playlists of one segment, or two below /a/. Then it ends the connection, but not where it has said
    in the head that it does: the other side is to do that."""

    def __init__(self, head=b"Content-Length: %d\r\n"):
        self.head = head
        super().__init__()

    def handle(self, s):
        try:
            asked = s.recv(65536)
            body = b"#EXTM3U\n" + (b"#EXTINF:2,\n1.aac\n" + b"#EXTINF:2,\n2.aac\n" * (b"GET /a/" in asked)) * (b".m3u8 " in asked) + b"#EXT-X-ENDLIST\n"
            s.sendall(b"HTTP/1.1 200 OK\r\n" + (self.head % len(body) if b"%" in self.head else self.head) + b"\r\n" + body)
            while b"Connection" in self.head and s.recv(65536):
                pass
        except OSError:
            pass
        finally:
            s.close()


def asked_again(tap, load):
    """A request that was lost with a connection at rest is asked again, and stands in the log once."""
    text = re.sub("verify:.*", "", scenario(player="")).replace(f'assets: [{", ".join(ASSETS)}]', "manifests: [/a/1.m3u8, /a/2.m3u8, /b/1.m3u8]")
    for mode in ("mode: saturate\nseconds: 500ms\nconnections: 2\n", "mode: rate\nrate: 200\nseconds: 500ms\nconnections: 2\ndrain: 20s\n", ""):
        log, name = load.folder / "again", mode.split("\n")[0] or "listeners"
        with OneEach() as server:
            r = load(re.sub("(arrivals|drain):.*\n", "", text) + mode if mode else text, server.url, "--request-log", log)
        tap.ok(r.code == 0 and r.json["totals"]["resent"] + r.json["totals"]["ended_at_rest"] > 5 and not r.json["totals"]["errors"], f"{name}: connections that end after each answer", r)
        lines = log.read_text().splitlines()
        n = r.json["totals"]["requests"]
        tap.ok({re.search(r" GET (\S+)", x)[1] for x in lines} >= {"/a/1.aac", "/a/2.aac", "/b/1.aac"}, f"{name}: every segment is asked for", sorted(set(lines))[:9])
        tap.ok(len(set(lines)) == len(lines) and n <= len(lines) <= n + 2 * ("saturate" in mode) and (r.json["totals"]["resent"] > 5 or "saturate" not in mode), f"{name}: the log has each request once",
               f"{len(lines)} lines, {len(set(lines))} of them differ, {r.json['totals']}")
    for head, name in ((b"Connection: close\r\nContent-Length: %d\r\n", "that say so"), (b"", "with answers that end with them")):
        with OneEach(head) as server:
            r = load(text, server.url)
        t = r.json["totals"]
        tap.ok(r.code == 0 and not t["errors"] and not t["resent"] and t["connects"] == t["requests"] > 30, f"connections {name}: each request has one of its own", f"{t} {r}")


def backoff(tap, load, proxy):
    """The pauses between one listener's tries, as the server meets them: 0.5 to 1.5 times retry_after, doubling each time."""
    def pauses_of(base):
        tries = collections.defaultdict(list)

        def refuse(path, response):
            m = re.search(r"/2\.m4s\?token=(\d+)\.", path)
            if m:
                tries[m[1]].append(time.monotonic())
                response.status, response.reason = 503, "Service Unavailable"
        proxy.change = refuse
        load(scenario(player=f"ahead: 9, tracks: 1, skip: 0, retries: 4, retry_after: {base * 1000:.0f}ms, token_ttl: 1h", arrivals="{ for: 100ms, rate: 300 }", drain="300ms"), proxy.url)
        proxy.change = lambda path, response: None
        return [[b - a for a, b in zip(t, t[1:])] for t in tries.values()]
    late = 0.15  # a busy machine sends later, never earlier: then pauses beside which that is little are looked at
    for base in (0.1, 0.6):
        pauses = pauses_of(base)
        if all(len(p) == 4 and all(b <= 1.5 * base * 2 ** k + late for k, b in enumerate(p)) for p in pauses):
            break
    late = max(late, base / 2)
    if not tap.ok(len(pauses) > 15 and all(len(p) == 4 for p in pauses), "retries: every listener tries the segment five times", pauses):
        return
    for k, each in enumerate(zip(*pauses)):
        wait = base * 2 ** k
        most = max(each) if base == 0.1 else sorted(each)[3 * len(each) // 4]  # some of the longer ones met what else the machine does
        tap.ok(0.5 * wait - 0.005 <= min(each) and most <= 1.5 * wait + late, f"retries: pause {k + 1} is around {wait:g} s", (min(each), max(each)))
        tap.ok(max(each) - min(each) > 0.3 * wait, f"retries: pause {k + 1} differs from listener to listener", (min(each), max(each)))
    means = [sum(each) / len(each) for each in zip(*pauses)]
    tap.ok(all(1.5 * a < b < 2.7 * a for a, b in zip(means[1:], means[2:])), "retries: each pause is about twice the one before", means)


def slow(tap, load, server):
    r = load(scenario("slow_reader: 50%, slow_bytes_per_s: 20000", player="ahead: 1, tracks: 1, skip: 0", arrivals="{ for: 200ms, rate: 150 }", drain="500ms"),
             f"http://127.0.0.1:{server.port}")
    latency = r.hdr["latency"]
    tap.ok(r.code == 0 and r.json["totals"]["wrong"] == 0 and r.json["totals"]["verified"] > 10, "slow readers: what they read is right", r.out.decode())
    long, segments = sum(n for us, n in latency.items() if us > 1200000), r.json["totals"]["segments"]  # of 34 KB, the shortest
    tap.ok(long >= 3 and segments - long >= 20, "slow readers take long, the others do not", f"{long} of {segments}")


def over_tls(tap, load, sluice, folder):
    authority = Authority(folder / "ca")
    cert, key = authority.issue("server")
    port = free_port()
    config = f"tls_listen: 127.0.0.1:{port}\ntls_certificate: {cert}\ntls_key: {key}\n"
    mixed = scenario("abort: 20%, range: 20%, reconnect: 20%, head: 20%, conditional: 20%, half_close: 10%, slow_reader: 5%, slow_bytes_per_s: 900000, "
                     "storm_at: 400ms", arrivals="{ for: 300ms, rate: 60 }", drain="300ms", protocol="mix")
    with Server(sluice, folder / "media", keys=keys_text(ASSETS), config=config) as server:
        for io in ("io_uring", "epoll"):
            r = load(mixed, f"https://127.0.0.1:{port}", "--ca", authority.ca, "--io", io)
            t = r.json["totals"] if r.json else {}
            if r.json is None and "io_uring cannot be used" in r.err:
                tap.skip("TLS, io_uring", r.err.strip())
                continue
            tap.ok(r.code == 0 and t["verified"] > 50 and t["wrong"] == 0 and t["errors"] == 0 and t["aborted"] and t["connects"] > t["sessions"],
                   f"TLS, {io}: the same clients, every segment compared", r.out.decode() + r.err)
        plain = load(mixed, f"http://127.0.0.1:{server.port}")
        tap.equal([plain.json["totals"][n] for n in ("requests", "bytes", "aborted")], [t[n] for n in ("requests", "bytes", "aborted")], "TLS: the same requests as without")
        r = load(scenario(level=", errors: 0", player="retries: 0"), f"https://127.0.0.1:{port}")
        tap.ok(r.code != 0 and r.json["totals"]["tls_failures"] == r.json["totals"]["connects"] > 0 and r.json["totals"]["bytes"] == 0,
               "TLS: a certificate of an unknown authority is refused", r.out.decode())
        r = load(scenario(), f"https://127.0.0.1:{port}", "--insecure")
        tap.equal(r.code, 0, "TLS: --insecure believes it")
        for mode in ("rate", "saturate", "idle"):
            r = load(f"name: tls\nmode: {mode}\nrate: 200\nseconds: 2s\nconnections: 8\ncatalogue: {{ assets: [two] }}\nscheme: cbcs\nlevel: {{ lag_p99_ms: 60000 }}\n",
                     f"https://127.0.0.1:{port}", "--ca", authority.ca)
            tap.ok(r.code == 0 and r.json["totals"]["requests"] >= (100 if mode == "rate" else 8), f"TLS: mode {mode}", r.out.decode() + r.err)


class Leaving(Listening):
    """Answers once, says some more after a while and ends the connection."""

    def __init__(self, more=b""):
        self.more = more
        super().__init__()

    def handle(self, s):
        s.recv(4096)
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        time.sleep(0.3)
        s.sendall(self.more)
        s.close()


def herd(tap, load, server):
    herd_of = "name: herd\nmode: idle\nseconds: 3s\nconnections: 20\ncatalogue: { assets: [two] }\nscheme: cbcs\nlevel: { lag_p99_ms: 60000 }\n"
    (load.folder / "paths").write_text("/x\n")
    for more in (b"", b"more", b"HTTP/1.1 408 Request Timeout\r\n\r\n"):  # the last is no part of the answer before it
        with Leaving(more) as leaving:
            r = load(herd_of, leaving.url, "--paths", load.folder / "paths", "--threads", "7", "--seconds", "1")
        tap.ok(r.code == 1 and r.json["totals"]["unasked_bytes"] == 20 * len(more) * (more == b"more"), f"an idle herd: {more} comes at rest", r)
    tap.ok(r.code == 1 and r.json["totals"]["ended_at_rest"] == 20 == r.json["totals"]["requests"] and "MISSED  connections that did not stay" in r.out.decode(),
           "an idle herd that the server sends away", r)
    with Proxy(server.port) as proxy:
        r = load("name: herd\nmode: idle\nseconds: 3s\nconnections: 60\ncatalogue: { assets: [two] }\nscheme: cbcs\nlevel: { lag_p99_ms: 60000 }\n", proxy.url)
        t = r.json["totals"]
        tap.ok(r.code == 0 and t["requests"] == 60 and t["connects"] == 60 and proxy.connections == 61, "an idle herd: each asks once and stays", (t, proxy.connections))


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ASSETS, seconds=8, tracks=("aac-1", "aac-2"))
        (folder / "keys.yaml").write_text(keys_text(ASSETS))
        load = Load(sluice, folder)
        with Server(sluice, folder / "media", keys=keys_text(ASSETS)) as server:
            with Proxy(server.port) as proxy:
                undisturbed(tap, 0.1, kinds, tap, load, proxy)
                undisturbed(tap, 0.1, broken, tap, load, proxy)
                undisturbed(tap, 0.1, backoff, tap, load, proxy)
            no_http(tap, load)
            quoted(tap, load)
            trailed(tap, load)
            undisturbed(tap, 0.1, asked_again, tap, load)
            undisturbed(tap, 0.1, slow, tap, load, server)
            undisturbed(tap, 0.1, herd, tap, load, server)
        over_tls(tap, load, sluice, folder)
    tap.end()


if __name__ == "__main__":
    main()
