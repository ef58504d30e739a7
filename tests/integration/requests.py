#!/usr/bin/env python3
"""What the server says to every kind of request, good, odd and hostile: requests.py SLUICE"""
import pathlib
import re
import socket
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.truth import keys_file, url  # noqa: E402
from judge import shim, synth  # noqa: E402
from judge.programs import Sluice  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSET, OTHER = "album/first song", "plain"
WHOLE = url(ASSET, "cbcs", 1, "a.mp4")
SEGMENT = url(ASSET, "cbcs", 1, "a", "2.m4s")
INIT = url(ASSET, "cbcs", 1, "a", "init.mp4")
MASTER = url(ASSET, "cbcs", "master.m3u8")
MPD = url(ASSET, "cbcs", "manifest.mpd")


def media_folder(work):
    media = work / "media"
    for asset, build in ((ASSET, synth.indexed), (OTHER, synth.plain), ("keyless", synth.plain)):
        (media / asset).mkdir(parents=True)
        (media / asset / "a.mp4").write_bytes(build()[0])
    outside = work / "outside"
    outside.mkdir()
    (outside / "a.mp4").write_bytes(synth.plain()[0])
    (media / "escape").symlink_to(outside)
    (media / "relative").symlink_to("../outside")
    (media / OTHER / "link.mp4").symlink_to(outside / "a.mp4")
    (media / OTHER / ".hidden.mp4").write_bytes(synth.plain()[0])
    (media / OTHER / "broken.mp4").write_bytes(synth.plain()[0][:700])
    (media / OTHER / "notes.txt").write_text("not media")
    return media


def parse_multipart(response):
    """[(content-range, bytes)] of multipart/byteranges."""
    m = re.fullmatch(r'multipart/byteranges; ?boundary="?([^"]+)"?', response["content-type"])
    if not m:
        raise ValueError(response["content-type"])
    out, rest = [], response.body
    mark = b"--" + m.group(1).encode()
    if rest.startswith(mark):
        rest = b"\r\n" + rest
    pieces = rest.split(b"\r\n" + mark)
    if pieces[0] or not pieces[-1].startswith(b"--"):
        raise ValueError("no closing boundary")
    for piece in pieces[1:-1]:
        head, _, body = piece.partition(b"\r\n\r\n")
        given = dict(l.split(": ", 1) for l in head.decode().lower().split("\r\n") if l)
        out.append((given["content-range"], body))
    return out


def conditional(tap, server):
    c = server.client()
    for name, path in (("whole", WHOLE), ("segment", SEGMENT), ("init", INIT), ("playlist", MASTER), ("MPD", MPD)):
        full = c.get(path)
        tag = full["etag"]
        tap.ok(full.status == 200 and re.fullmatch(r'"[!#-~]+"', tag), f"{name}: a strong entity tag", full)
        for given in (tag, f'"other", {tag}', f"W/{tag}", "*"):
            r = c.get(path, headers={"If-None-Match": given})
            tap.ok(r.status == 304 and r.body == b"" and r["etag"] == tag and r["cache-control"] == full["cache-control"],
                   f"{name}: If-None-Match: {given.replace(tag, 'TAG')} gives 304", r)
        r = c.get(path, headers={"If-None-Match": '"other"'})
        tap.ok(r.status == 200 and r.body == full.body, f"{name}: another tag gives 200", r)
        r = c.get(path, "HEAD", {"If-None-Match": tag})
        tap.equal(r.status, 304, f"{name}: HEAD with If-None-Match")
        r = c.get(path, headers={"If-None-Match": tag, "Range": "bytes=0-1"})
        tap.equal(r.status, 304, f"{name}: If-None-Match goes before Range")
    full = c.get(WHOLE)
    n, tag = len(full.body), full["etag"]
    r = c.get(WHOLE, headers={"Range": "bytes=10-19", "If-Range": tag})
    tap.ok(r.status == 206 and r.body == full.body[10:20] and r["etag"] == tag, "If-Range with the tag gives the part", r)
    for text, given in (("another tag", '"other"'), ("a weak tag", f"W/{tag}"), ("a date", "Wed, 21 Oct 2015 07:28:00 GMT")):
        r = c.get(WHOLE, headers={"Range": "bytes=10-19", "If-Range": given})
        tap.ok(r.status == 200 and r.body == full.body, f"If-Range with {text} gives the whole", r)
    for text in (f"bytes={n}-", f"bytes={n}-{n + 5}", f"bytes={10 ** 18}-", "bytes=-0"):
        r = c.get(WHOLE, headers={"Range": text})
        tap.ok(r.status == 416 and r["content-range"] == f"bytes */{n}" and r["cache-control"] == "no-store",
               f"{text.replace(str(n), 'N')} gives 416", r)
    for text in ("bytes=5-4", "bytes=abc", "items=0-1", "bytes", "bytes=", "bytes=1", "bytes=--1", "bytes=1-2-3", "bytes=0x1-2",
                 "bytes=99999999999999999999999-", "bytes=0-99999999999999999999999"):
        r = c.get(WHOLE, headers={"Range": text})
        good = (r.status == 200 and r.body == full.body) or (r.status == 416 and r["content-range"] == f"bytes */{n}") or \
               (r.status == 206 and text.startswith("bytes=0-9") and r.body == full.body)
        tap.ok(good, f"odd range {text} gives the whole or 416", r)
    c.socket.sendall(f"GET {WHOLE} HTTP/1.1\r\nHost: h\r\nRange: bytes=10-19\r\nIf-Range:\r\n\r\n".encode())
    r = c.read()
    tap.ok(r.status == 200 and r.body == full.body, "an empty If-Range matches nothing and gives the whole", r)
    for name, good in (("If-None-Match", 304), ("If-Match", 200)):
        c.socket.sendall(f'GET {WHOLE} HTTP/1.1\r\nHost: h\r\n{name}: "other"\r\nX: y\r\n{name}: {tag}\r\n\r\n'.encode())
        tap.equal(c.read().status, good, f"two lines of {name} are one list")
    r = c.get(WHOLE, "HEAD", {"Range": "bytes=0-9"})
    tap.ok((r.status, r["content-length"], r["content-range"]) == (206, "10", f"bytes 0-9/{n}"), "HEAD with Range has the head of the GET", r)
    for text, slices in (("bytes=0-9,20-29", [(0, 9), (20, 29)]), ("bytes=-5,0-0, 7-8", [(n - 5, n - 1), (0, 0), (7, 8)]),
                         (f"bytes=1-2,{n}-", [(1, 2)])):
        r = c.get(WHOLE, headers={"Range": text})
        if r.status == 200:
            good = r.body == full.body
        elif len(slices) == 1 and "multipart" not in r["content-type"]:
            good = r.status == 206 and r.body == full.body[slices[0][0]:slices[0][1] + 1]
        else:
            try:
                good = r.status == 206 and parse_multipart(r) == [(f"bytes {a}-{b}/{n}", full.body[a:b + 1]) for a, b in slices]
            except (ValueError, KeyError) as e:
                good, r = False, f"{r} {e!r}"
        tap.ok(good, f"several ranges: {text.replace(str(n), 'N')}", r)
    r = c.get(WHOLE, headers={"Range": "bytes=" + ",".join("0-" for _ in range(1000))})
    tap.ok(r.status in (200, 206, 400, 416, 431) and len(r.body) <= 2 * n + 1000, "a thousand overlapping ranges do not multiply", r)
    c.close()


def status_codes(tap, server):
    c = server.client()
    a = ASSET
    want404 = [url("nothing", "cbcs", "master.m3u8"), url(a, "cbcs", 1, "b.mp4"), url(a, "cbcs", 1, "b", "init.mp4"),
               url(a, "cbcs", 2, "a.mp4"), url(a, "cbcs", 0, "a.mp4"), url(a, "cbcs", "01", "a.mp4"),
               url(a, "cbcs", "1x", "a.mp4"), url(a, "cbcs", 99999999999999999999, "a.mp4"), url(a, "cbcs", 1, "a", "0.m4s"),
               url(a, "cbcs", 1, "a", "01.m4s"), url(a, "cbcs", 1, "a", "4.m4s"), url(a, "cbcs", 1, "a", "4294967297.m4s"),
               url(a, "cbcs", 1, "a", "-1.m4s"), url(a, "cbcs", 1, "a", "2.m4s") + "/", url(a, "cbcs", 1, "a", "2.m4sx"),
               url(a, "xxxx", "master.m3u8"), url(a, "CBCS", "master.m3u8"), url(a, "cbcs", "other.m3u8"), "/", "/x",
               url("album", "cbcs", "master.m3u8"), url(OTHER, "cbcs", 1, ".hidden.mp4"), url(OTHER, "cbcs", 1, "notes.txt"),
               url(OTHER, "cbcs", 1, "link.mp4"), url("escape", "cbcs", 1, "a.mp4"), url("relative", "cbcs", 1, "a.mp4"),
               "/" + "x" * 900 + "/cbcs/1/a.mp4"]
    for path in want404:
        r = c.get(path)
        tap.ok(r.status == 404 and r["cache-control"] == "public, max-age=1" and r["etag"] == "", f"404, for a second: {path[:70]}", r)
    for path in ("//", "//x", url(a, "cbcs") + "//1/a.mp4", "/.", "/./x", "/x/..", "/%2e%2e/x", "/x%2fy", "/x%5Cy/cbcs/1/a.mp4", "/x\\y", url(a, "cbcs", 1, "a.mp4") + "%3fx",
                 "/" + "x" * 1100):
        r = c.get(path)
        tap.equal((r.status, r["cache-control"]), (404, "no-store"), f"404 of an odd spelling, not to be kept: {path[:70]}")
    for path in ("/...", "/.x/y", "/x/"):
        tap.equal(c.get(path)["cache-control"], "public, max-age=1", f"not odd: {path}")
    r = c.get(url(a, "clear", 1, "a.mp4"))
    tap.equal((r.status, r["cache-control"]), (403, "public, max-age=1"), "403: a scheme that is not allowed")
    r = c.get(WHOLE, headers={"If-Match": '"other"'})
    tap.equal((r.status, r["cache-control"]), (412, "no-store"), "412 is not kept by caches")
    r = c.get(url("keyless", "cbcs", 1, "a.mp4"))
    tap.ok(r.status in (403, 404) or r.status == 503 and r["retry-after"].isdigit(), "an asset without a key is not served", r)
    r = c.get(url(OTHER, "cbcs", 1, "broken.mp4"))
    tap.equal(r.status, 404, "a broken file is not served: for players it is not there")
    tap.equal(c.get(url(OTHER, "cbcs", 1, "a.mp4")).status, 200, "its neighbour is")
    tap.equal(c.get("".join(f"%{x:02x}" if x != ord("/") else "/" for x in urllib.parse.unquote_to_bytes(SEGMENT))).body, c.get(SEGMENT).body, "every letter of a path may be percent-encoded")
    for path in (WHOLE, SEGMENT, INIT, MASTER, MPD):
        plain, odd = c.get(path), c.get(path + "?token=1&x=%20%2F..&Policy=" + "y" * 200)
        tap.ok([h for h in plain.headers if h[0] != "date"] == [h for h in odd.headers if h[0] != "date"] and plain.body == odd.body,
               f"unknown query parameters do not change {path.rsplit('/', 1)[1]}", f"{plain}\n{odd}")
    for path, kind in ((MASTER, "application/vnd.apple.mpegurl"), (MPD, "application/dash+xml")):
        r = c.get(path)
        tap.ok(r["content-type"].split(";")[0].lower() == kind and "max-age=5" in r["cache-control"]
               and "immutable" not in r["cache-control"], f"{path.rsplit('/', 1)[1]}: type and cache header", r)
    r = c.get(url(a, "cbcs", 1, "a", "media.m3u8"))
    tap.ok(r.status == 200 and "immutable" in r["cache-control"], "a media playlist is immutable", r)
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        r = server.get(WHOLE, method, body=b"x=1")
        tap.ok(r.status == 405 and "GET" in r["allow"] and "HEAD" in r["allow"] and r["cache-control"] == "no-store", f"405: {method}", r)
    for path in (url(a, "cbcs", 1, "a", "key"), url(a, "cbcs", 1, "license")):
        method = "POST" if path.endswith("license") else "GET"
        r = server.get(path, method, body=b'{"kids":[]}' if method == "POST" else b"")
        tap.ok(r.status in (403, 404, 405), f"no key is handed out without --insecure-clearkey: {path.rsplit('/', 1)[1]}", r)
    c.close()


def cors(tap, server):
    for path in (WHOLE, MASTER, MPD, url("nothing", "cbcs", "master.m3u8")):
        r = server.get(path, headers={"Origin": "https://player.example"})
        tap.equal(r["access-control-allow-origin"], "*", f"CORS: any origin may read {path.rsplit('/', 1)[1]} ({r.status})")
    r = server.get(WHOLE, headers={"Origin": "https://player.example", "Range": "bytes=0-1"})
    exposed = {h.strip().lower() for h in r["access-control-expose-headers"].split(",")}
    tap.ok({"content-length", "content-range"} <= exposed, "CORS: scripts may read lengths and ranges", r)
    r = server.get(WHOLE, "OPTIONS", {"Origin": "https://player.example", "Access-Control-Request-Method": "GET",
                                      "Access-Control-Request-Headers": "range"})
    tap.ok(r.status in (200, 204) and r["access-control-allow-origin"] == "*" and "GET" in r["access-control-allow-methods"]
           and ("range" in r["access-control-allow-headers"].lower() or r["access-control-allow-headers"] == "*"),
           "CORS: preflight allows Range", r)
    allowed = {h.strip().lower() for h in r["access-control-allow-headers"].split(",")}
    tap.ok({"cmcd-request", "cmcd-object", "cmcd-status", "cmcd-session"} <= allowed, "CORS: and what players report by headers", r)
    tap.ok({"content-type", "accept-encoding", "range"} <= allowed, "CORS: and what Google Cast asks of origins", r)
    for path, allow in ((WHOLE, "GET, HEAD, OPTIONS"), ("/nothing", "GET, HEAD, OPTIONS"), ("*", "GET, HEAD, OPTIONS"),
                        (url(ASSET, "cbcs", 1, "license"), "POST, OPTIONS")):
        r = server.get(path, "OPTIONS")
        tap.equal((r.status, r["allow"]), (204, allow), f"OPTIONS of {path.rsplit('/', 1)[-1]} allows what its path takes")


def traversal(tap, server, work):
    """Nothing outside the media folder, whatever the spelling."""
    secrets = [(work / "outside" / "a.mp4").read_bytes(), pathlib.Path("/etc/passwd").read_bytes()]
    bad = []
    spellings = ["..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..%2f..", "..%5c..", "..\\..", "....//", "%c0%ae%c0%ae", "..;", "%00..", "..%00"]
    paths = []
    for dots in spellings:
        paths += [f"/{dots}/outside/cbcs/1/a.mp4", f"/{dots}/{dots}/{dots}/{dots}/{dots}/etc/passwd", f"/plain/{dots}/{dots}/outside/cbcs/1/a.mp4",
                  f"/plain/cbcs/1/{dots}/{dots}/outside/a.mp4", f"/plain/cbcs/1/{dots}%2foutside%2fa.mp4", f"/plain/cbcs/1/{dots}/init.mp4"]
    paths += ["/plain//cbcs/1/a.mp4", "/./plain/cbcs/1/a.mp4", "//plain/cbcs/1/a.mp4", "/plain%2Fcbcs/1/a.mp4", "/plain/cbcs/1/%2e/a.mp4",
              "/plain%00/cbcs/1/a.mp4", "/plain/cbcs/1/a%00.mp4", "/plain/cbcs/1/a.mp4%00", "/plain/cbcs/1/%", "/plain/cbcs/1/%4", "/plain/cbcs/1/%zz.mp4",
              "/plain/cbcs/1/a%0d%0aSet-Cookie:x.mp4", "/state/cbcs/1/a.mp4", "/keys.yaml", "/plain/a.mp4", "/plain/a.mp4.slx", "/plain/cbcs/1/a.mp4.slx"]
    allowed = {"/plain%2Fcbcs/1/a.mp4"}  # may be read as the same path
    for path in paths:
        try:
            r = server.get(path)
        except (EOFError, ConnectionResetError):
            bad.append(f"{path}: connection closed without an answer")
            continue
        if r.status not in (400, 403, 404) and path not in allowed:
            bad.append(f"{path}: {r}")
        if any(len(s) > 40 and s[:40] in r.body for s in secrets) or ("set-cookie" in dict(r.headers)):
            bad.append(f"{path}: something from outside: {r}")
    tap.ok(not bad, f"{len(paths)} attempts to leave the media folder", "\n".join(bad[:20]))
    c = server.client()
    c.socket.sendall(b"GET http://judge.test" + WHOLE.encode() + b" HTTP/1.1\r\nHost: other.test\r\n\r\n")
    tap.equal(c.read().status, 200, "an absolute request target")
    c.close()


def raw(server, data, count=1, head=False):
    """Sends bytes as they are; the statuses of the answers, and whether the connection ends then."""
    c = server.client(timeout=10)
    out = []
    try:
        c.socket.sendall(data)
        for _ in range(count):
            out.append(c.read(head).status)
    except (EOFError, ConnectionResetError):
        out.append("closed")
    except (TimeoutError, BrokenPipeError):
        out.append("silent")
    ended = c.closed(5) if out and out[-1] not in ("closed",) else True
    c.close()
    return out, ended


def malformed(tap, server):
    ok = b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n"
    cases = {
        "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200) + b"\r\n\r\n",
        "no version": b"GET /\r\n\r\n",
        "HTTP/3.0 in the line": b"GET / HTTP/3.0\r\nHost: h\r\n\r\n",
        "a NUL in the target": b"GET /a\0b HTTP/1.1\r\nHost: h\r\n\r\n",
        "a bare CR in a header": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb: c\r\n\r\n",
        "a space before the colon": b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        "a folded header": b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
        "no host": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\n\r\n",
        "two hosts": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "two lengths": b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "a length and chunks": b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "a negative length": b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n",
        "a length beyond 64 bits": b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "a target of 100 KB": b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        "a header of 1 MB": b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 1000000 + b"\r\n\r\n",
        "ten thousand headers": b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(10000)) + b"\r\n",
        "a space in the target": b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n",
        "a host with a space": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: a b\r\n\r\n",
        "a host with a user": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: u@h\r\n\r\n",
        "a host with a path": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "a host with a port that is none": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: a:b\r\n\r\n",
        "an address without brackets": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: ::1\r\n\r\n",
        "a target without host": b"GET http://" + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        "a target with a user": b"GET http://u@h" + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        "a header without a name": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\n: v\r\n\r\n",
        "a line feed alone at the end of a head": b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\n\n",
        "no slash": b"GET plain/cbcs/1/a.mp4 HTTP/1.1\r\nHost: h\r\n\r\n",
    }
    for name, data in cases.items():
        out, ended = raw(server, data)
        good = out[0] == "closed" or isinstance(out[0], int) and 400 <= out[0] < 600
        tap.ok(good and ended, f"malformed: {name}: refused, and the connection ends", f"{out}, ended: {ended}")
    # What stands behind a refused or unread body must never be taken for a request.
    for name, head in (("a GET with a body", b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(ok)),
                       ("a POST", b"POST " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(ok)),
                       ("a chunked GET", b"GET " + SEGMENT.encode() + b" HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(ok))):
        tail = b"\r\n0\r\n\r\n" if "chunked" in name else b""
        c = server.client(timeout=3)
        got = []
        try:
            c.socket.sendall(head + ok + tail)
            while True:
                got.append(c.read().status)
        except (EOFError, OSError, ValueError):
            pass
        c.close()
        tap.ok(len(got) <= 1, f"the body of {name} is not a request", got)
    tap.equal(server.get(SEGMENT).status, 200, "the server still answers")


def segments_in(c):
    """TCP segments with data that came in. Source: linux/tcp.h, tcpi_data_segs_in of struct tcp_info."""
    return int.from_bytes(c.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)[152:156], sys.byteorder)


def answers_leave_together(tap, server, init):
    """Answers to what was sent at once come in few packets, and none is kept back when nothing more is there to answer."""
    c = server.client()
    ask = c.request_bytes(INIT)
    c.socket.sendall(ask)
    got, before = [c.read().body], segments_in(c)
    c.socket.sendall(ask * 16)
    got += [c.read().body for _ in range(16)]
    tap.ok(before == 1 and segments_in(c) <= 4, "sixteen answers to what was sent at once come in few packets", (before, segments_in(c)))
    for part in (1, len(ask) // 2, len(ask) - 1):
        took = []
        while len(took) < 5 or (min(took) >= 0.15 and len(took) < 30):
            start = time.monotonic()
            c.socket.sendall(ask * 2 + ask[:part])
            got += [c.read().body, c.read().body]
            took.append(time.monotonic() - start)
            c.socket.sendall(ask[part:])
            got.append(c.read().body)
        # The kernel would keep them 0.2 s, each time.
        tap.ok(min(took) < 0.15, f"answers do not wait for the rest of a request of which {part} bytes are here", took)
    tap.equal(got.count(init), len(got), "and all of them are right")
    c.close()


def connections(tap, server):
    bodies = {p: server.get(p).body for p in (WHOLE, SEGMENT, INIT, MASTER, MPD)}
    c = server.client()
    order = [list(bodies)[i % 5] for i in range(200)]
    c.socket.sendall(b"".join(c.request_bytes(p) for p in order))
    wrong = [p for p in order if c.read().body != bodies[p]]
    tap.equal(wrong, [], "200 pipelined requests are answered in order")
    mixed = [("HEAD", WHOLE), ("GET", "/none"), ("GET", SEGMENT), ("HEAD", SEGMENT), ("GET", INIT)]
    c.socket.sendall(b"".join(c.request_bytes(p, m) for m, p in mixed))
    got = [c.read(m == "HEAD").status for m, _ in mixed]
    tap.equal(got, [200, 404, 200, 200, 200], "HEAD, GET and errors mixed in one pipeline")
    answers_leave_together(tap, server, bodies[INIT])
    for byte in c.request_bytes(SEGMENT):
        c.socket.sendall(bytes([byte]))
    tap.equal(c.read().body, bodies[SEGMENT], "a request that comes byte by byte")
    c.send(SEGMENT, headers={"Connection": "close"})
    r = c.read()
    tap.ok(r.body == bodies[SEGMENT] and r["connection"].lower() == "close" and c.closed(), "Connection: close closes", r)
    c = server.client()
    c.socket.sendall(b"GET " + SEGMENT.encode() + b" HTTP/1.0\r\n\r\n")
    tap.ok(c.read().body == bodies[SEGMENT] and c.closed(), "HTTP/1.0 gets its answer and the end of the connection")
    many = [server.client() for _ in range(300)]
    for one in many:
        one.send(SEGMENT)
    tap.ok(all(one.read().body == bodies[SEGMENT] for one in many), "300 connections at once")
    for one in many:
        one.close()
    c = server.client()
    c.socket.sendall(c.request_bytes(WHOLE) * 50)
    c.close()
    tap.equal(server.get(SEGMENT).status, 200, "a client that leaves in the middle harms nobody")
    half = server.client()
    half.send(SEGMENT)
    half.socket.shutdown(1)
    tap.equal(half.read().body, bodies[SEGMENT], "a client that half-closes still gets its answer")
    half.close()
    slow = server.client()
    slow.socket.setsockopt(1, 8, 4096)
    slow.socket.sendall(slow.request_bytes(WHOLE) * 60)
    time.sleep(0.3)
    tap.equal(server.get(SEGMENT).body, bodies[SEGMENT], "a slow reader holds up nobody")
    tap.ok(all(slow.read().body == bodies[WHOLE] for _ in range(60)), "and gets every byte in the end")
    slow.close()


def cut_interim(tap, sluice, work, media):
    """Behind a part of an interim response no other could be told from it."""
    library = work / "short_send.so"
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("short_send.c"), library), "", "a socket that takes a part is built"):
        return
    for io in ("auto", "epoll"):
        with Server(sluice.path, media, "--io", io, keys=keys_file([ASSET]), env=shim.preloaded(library)) as server:
            c = server.client()
            c.socket.sendall(b"POST /license HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
            tap.equal(c.socket.recv(100), b"HTTP/1.1 ", f"{io}: a part of an interim response")
            try:
                c.socket.sendall(b"body")
                more = c.socket.recv(100)
            except ConnectionError:
                more = b""
            tap.equal(more, b"", f"{io}: is the end of its connection")
            tap.equal(server.get(INIT).status, 200, f"{io}: and of no other")


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-requests-") as work:
        work = pathlib.Path(work)
        media = media_folder(work)
        with Server(sluice.path, media, keys=keys_file([ASSET, OTHER, "escape", "relative"])) as server:
            for part in (conditional, status_codes, cors, malformed, connections):
                try:
                    part(tap, server)
                except (OSError, EOFError, ValueError, KeyError) as e:
                    tap.ok(False, f"{part.__name__}: runs to its end", repr(e))
            traversal(tap, server, work)
            tap.equal(server.stop(), 0, "the server ends with status 0")
        with Server(sluice.path, media, "--keepalive-requests", "3", keys=keys_file([ASSET])) as server:
            c = server.client()
            ends = [c.get(INIT)["connection"] for _ in range(3)]
            tap.ok(ends == ["", "", "close"] and c.closed(), "keepalive_requests: the third response is the last one", ends)
        cut_interim(tap, sluice, work, media)
    tap.end()


if __name__ == "__main__":
    main()
