"""Requests, and responses byte by byte: cases of transport.py."""
import http.client
import random
import signal
import threading
import time

from workers import BACKEND, KTLS, STUB, TLS, Reader, Server, TwoWays, ask, expect, get_bytes, segment_path, words


def whole_bodies_and_heads():
    with Server() as srv:
        c = srv.client()
        expect(srv.io, BACKEND)
        for asset in ("now", "later"):
            for size, n in ((1, 1), (1000, 7), (32768, 3), (189000, 5), (700001, 2)):
                r, body = ask(c, segment_path(asset, size, n))
                expect(r.status, 200)
                expect(body, words((n - 1) * size, size), f"{asset} {size}")
                h, none = ask(c, segment_path(asset, size, n), "HEAD")
                expect(none, b"")
                drop_date = lambda r: [x for x in r.getheaders() if x[0] != "Date"]
                expect(drop_date(h), drop_date(r))
            r, body = ask(c, f"/{asset}/cbcs/master.m3u8")
            expect((r.status, body, r.getheader("Cache-Control")), (200, b"#EXTM3U of no track\n", "public, max-age=5"))
        r, _ = ask(c, segment_path("now", 1, 1) + "?any=thing&x")
        expect((r.status, r.getheader("Cache-Control")), (200, "public, max-age=31536000, immutable"))
        r, _ = ask(c, f"http://other{segment_path('now', 1, 1)}")
        expect(r.status, 200)
        r, _ = ask(c, "/n%6Fw/cbcs/1/s%31x5/1.m4s")
        expect(r.status, 200)


def requests_cut_at_every_byte():
    with Server() as srv:
        s = srv.dial()
        reader = Reader(s)
        one = get_bytes(segment_path("now", 10, 2), "Range: bytes=1-3\r\n")
        two = get_bytes(segment_path("later", 50, 4))
        stream = one + two + one
        for cut in range(len(stream)):
            s.sendall(stream[:cut])
            time.sleep(0.0005)
            s.sendall(stream[cut:])
            for want in (words(11, 3), words(150, 50), words(11, 3)):
                expect(reader.response()[2], want, f"cut at {cut}")


def pipelined_requests_come_back_in_order():
    with Server() as srv:
        for asset, sizes, num in (("now", (1, 100, 5000), 1500), ("later", (1, 3000), 100), ("now", (300000, 10), 60)):
            s = TwoWays(srv.dial())
            plan = [(random.choice(sizes), random.randrange(1, 100)) for _ in range(num)]
            text = b"".join(get_bytes(segment_path(asset, size, n)) for size, n in plan)
            sender = threading.Thread(target=s.sendall, args=(text,))
            sender.start()
            reader = Reader(s)
            for i, (size, n) in enumerate(plan):
                if i % 20 == 0:
                    time.sleep(0.002)
                status, _, body = reader.response()
                expect((status, body), (200, words((n - 1) * size, size)), f"{asset} number {i}")
            sender.join()
            s.s.close()


def answers_are_not_kept_back():
    """What is answered in front of a request that has to wait, or of half a one, leaves without it."""
    one = get_bytes(segment_path("now", 500, 1))
    for behind in (get_bytes("/stuck/cbcs/1/s1x1/1.m4s"), one[:-1]):
        with Server() as srv:
            took = []
            while len(took) < 5 or (min(took) >= 0.15 and len(took) < 30):
                with srv.dial() as s:
                    reader, start = Reader(s), time.monotonic()
                    s.sendall(one * 3 + behind)
                    for _ in range(3):
                        expect(reader.response()[2], words(0, 500))
                    took.append(time.monotonic() - start)
            # The kernel keeps what is not pushed 0.2 s, each time. Over TLS nothing is held back.
            expect(min(took) < 0.15, True, f"{took} s")
            srv.proc.send_signal(signal.SIGUSR1)


def parts_of(r, body):
    """(head, bytes) of each part of a multipart answer."""
    boundary = r.getheader("Content-Type").split("boundary=")[1]
    parts = body.split(b"\r\n--" + boundary.encode())
    expect((r.status, parts[0], parts[-1]), (206, b"", b"--\r\n"))
    return [p.split(b"\r\n\r\n", 1) for p in parts[1:-1]]


def random_ranges_are_slices():
    with Server() as srv:
        c = srv.client()
        for asset, size, count, tries in (("now", 10007, 50, 400), ("later", 9999, 20, 100), ("now", 400000, 30, 60)):
            total = size * count
            path = f"/{asset}/cenc/1/s{size}x{count}.mp4"
            for _ in range(tries):
                a = random.randrange(total)
                b = min(total - 1, a + int(random.expovariate(1 / (3 * size))))
                r, body = ask(c, path, Range=f"bytes={a}-{b}")
                expect((r.status, r.getheader("Content-Range")), (206, f"bytes {a}-{b}/{total}"))
                expect(body, words(a, b - a + 1))
            r, body = ask(c, path, Range=f"bytes=5-9,{size - 3}-{2 * size + 3},-7")
            for (head, data), (a, n) in zip(parts_of(r, body), ((5, 5), (size - 3, size + 7), (total - 7, 7)), strict=True):
                expect(data, words(a, n))
                expect(f"Content-Range: bytes {a}-{a + n - 1}/{total}".encode() in head, True)
            first = 2 * size  # of a segment, whose ranges count from its own first byte
            r, body = ask(c, segment_path(asset, size, 3, count), Range="bytes=10-19")
            expect((r.status, r.getheader("Content-Range"), body), (206, f"bytes 10-19/{size}", words(first + 10, 10)))
            r, body = ask(c, segment_path(asset, size, 3, count), Range="bytes=5-9,-7")
            for (head, data), (a, n) in zip(parts_of(r, body), ((5, 5), (size - 7, 7)), strict=True):
                expect(data, words(first + a, n))
                expect(head, f"\r\nContent-Type: audio/mp4\r\nContent-Range: bytes {a}-{a + n - 1}/{size}".encode())
            r, _ = ask(c, path, "HEAD", Range="bytes=5-9,20-30")
            expect(r.status, 206)
            r, body = ask(c, path, Range=f"bytes={total}-")
            expect((r.status, r.getheader("Content-Range"), body), (416, f"bytes */{total}", b""))
            r, body = ask(c, path, Range="bytes=3-1")
            expect((r.status, len(body)), (200, total))
        r, body = ask(c, "/now/cbcs/master.m3u8", Range="bytes=0-6,8-9")
        expect(parts_of(r, body), [[f"\r\nContent-Type: text/x\r\nContent-Range: bytes {a}/20".encode(), data] for a, data in (("0-6", b"#EXTM3U"), ("8-9", b"of"))])


def preconditions():
    with Server() as srv:
        c = srv.client()
        path = segment_path("now", 100, 3)
        tag = ask(c, path)[0].getheader("ETag")
        expect(tag, '"0123456789abcdef-3"')
        for headers, status, size in (
                ({"If_None_Match": tag}, 304, 0), ({"If_None_Match": f'"x", W/{tag}'}, 304, 0), ({"If_None_Match": "*"}, 304, 0),
                ({"If_None_Match": '"x"'}, 200, 100), ({"If_Match": tag}, 200, 100), ({"If_Match": '"x"'}, 412, None),
                ({"If_Match": f"W/{tag}"}, 412, None), ({"If_Match": '"x"', "If_None_Match": tag}, 412, None),
                ({"If_Range": tag, "Range": "bytes=1-2"}, 206, 2), ({"If_Range": '"x"', "Range": "bytes=1-2"}, 200, 100),
                ({"If_Range": f"W/{tag}", "Range": "bytes=1-2"}, 200, 100),
                ({"If_Range": "Sun, 06 Nov 1994 08:49:37 GMT", "Range": "bytes=1-2"}, 200, 100),
                ({"If_None_Match": tag, "Range": "bytes=1-2"}, 304, 0), ({"If_Modified_Since": "Sun, 06 Nov 2094 08:49:37 GMT"}, 200, 100)):
            r, body = ask(c, path, **headers)
            expect(r.status, status, headers)
            if size is not None:
                expect(len(body), size, headers)
            if status == 304:
                expect(r.getheader("ETag"), tag)


def refusals():
    with Server() as srv:
        c = srv.client()
        for path, status in (("/", 404), ("/nope/x", 404), ("/403/cbcs/1/t/1.m4s", 403), ("/410/cbcs/1/t/1.m4s", 410),
                             ("/451/cbcs/1/t/1.m4s", 451), ("/503/cbcs/1/t/1.m4s", 503), ("/500/cbcs/1/t/1.m4s", 500),
                             (segment_path("now", 5, 101), 404), ("/later/cbcs/1/t/1.m4s", 404), ("/%zz", 400), ("/%", 400),
                             ("/..%2fnow/cbcs/1/s1x1/1.m4s", 404),
                             ("/now%2Fcbcs/1/s1x1/1.m4s", 404), ("/now/cbcs/1%2fs1x1/1.m4s", 404), ("/now/cbcs/1/s1x1%2F1.m4s", 404),
                             ("/%2Fnow/cbcs/1/s1x1/1.m4s", 404), ("/now/cbcs/1/s1x1/1.m4s?a=%2F", 200), ("/now/../now/cbcs/1/s1x1/1.m4s", 404),
                             ("/now/cbcs/1/s1x1%00/1.m4s", 404), ("/" + "a" * 1100, 404), ("/" + "%61" * 1100, 404),
                             (segment_path("now", 5, 1) + "?" + "q" * 7900, 200)):
            r, body = ask(c, path)
            expect(r.status, status, path)
            expect(len(body) > 0, True)
            if status == 503:
                expect(r.getheader("Retry-After"), "1")
        for method in ("PUT", "DELETE", "POST", "PATCH"):
            r, _ = ask(c, segment_path("now", 5, 1), method, body=b"x" * 10)
            expect((r.status, r.getheader("Allow")), (405, "GET, HEAD, OPTIONS"))
        r, body = ask(c, segment_path("now", 5, 1), "OPTIONS", Origin="http://x", Access_Control_Request_Method="GET")
        expect((r.status, r.getheader("Access-Control-Allow-Origin"), body), (204, "*", b""))
        for text, status in ((b"GET / HTTP/1.1\r\n\r\n", 400), (b"\x00\x01\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x0bb\r\n\r\n", 400),
                             (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 501),
                             (b"GET /" + b"a" * 8192 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414), (b"GET / HTTP/2.5\r\nHost: h\r\n\r\n", 505),
                             (b"GET / HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16384 + b"\r\n\r\n", 431),
                             (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400)):
            s = srv.dial()
            s.sendall(text + b"more that nobody reads")
            status_got, headers, _ = Reader(s).response()
            expect((status_got, headers["connection"]), (status, "close"), text[:60])
            s.settimeout(5)
            while s.recv(1000):
                pass
        for text, status in ((b"/" + b"a" * 8192 + b" HTTP/1.1\r\nHost: h", 414), (b"now HTTP/1.1\r\nHost: h", 400),
                             (b"/ HTTP/1.1\r\nHost: h\r\nX: " + b"a" * 16384, 431), (b"/ HTTP/1.1", 400), (b"/ HTTP/2.5\r\nHost: h", 505)):
            s = srv.dial()  # what is refused is HEAD all the same: no body
            s.sendall(b"HEAD " + text + b"\r\n\r\n")
            s.settimeout(5)
            said = b""
            while more := s.recv(1000):
                said += more
            expect((said.split(b" ")[1], said.partition(b"\r\n\r\n")[2]), (str(status).encode(), b""), text[:40])


def cross_origin():
    """Pages of the origin that the configuration names may read answers, and without one none."""
    for origin in ("https://player.example", ""):
        with Server(f"--cors-origin={origin}") as srv:
            c = srv.client()
            for path, status in ((segment_path("now", 5, 1), 200), ("/nope/x", 404)):
                r, _ = ask(c, path, Origin="https://player.example")
                expect((r.status, r.getheader("Access-Control-Allow-Origin")), (status, origin or None), origin)
                expect("Content-Range" in r.getheader("Access-Control-Expose-Headers", ""), origin != "", origin)
            r, _ = ask(c, segment_path("now", 5, 1), "OPTIONS", Origin="https://player.example", Access_Control_Request_Method="GET")
            expect((r.status, r.getheader("Access-Control-Allow-Methods")), (204, "GET, HEAD, POST, OPTIONS" if origin else None), origin)


def bodies_of_requests():
    with Server() as srv:
        c = srv.client()
        r, body = ask(c, "/now/cbcs/1/license", "POST", body=b"k" * 9000)
        expect((r.status, body, r.getheader("Cache-Control")), (200, b"licence for 9000", "no-store"))
        expect(ask(c, "/now/cbcs/1/license")[0].status, 405)
        expect(ask(c, segment_path("now", 5, 1), body=b"x" * 5000)[1], words(0, 5))
        expect(ask(c, segment_path("now", 5, 2))[1], words(5, 5))
        s = srv.dial()
        reader = Reader(s)
        s.sendall(b"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        expect(reader.response()[0], 100)
        s.sendall(b"abcd" + get_bytes(segment_path("now", 5, 1)))
        expect(reader.response()[2], b"licence for 4")
        expect(reader.response()[2], words(0, 5))
        for version, field, interim in (("1.1", "100-Continue", True), ("1.1", "banana", False), ("1.1", "100-continue, banana", False), ("1.0", "100-continue", False)):
            s.sendall(f"POST /now/cbcs/1/license HTTP/{version}\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 4\r\nExpect: {field}\r\n\r\n".encode())
            time.sleep(0.05)
            s.sendall(b"abcd")
            if interim:
                expect(reader.response()[0], 100)
            expect(reader.response()[::2], (200, b"licence for 4"), f"HTTP/{version} that expects {field}")
        for body in (16384, 16385):  # behind a head of as many bytes as it may have
            head = f"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nContent-Length: {body}\r\nX: ".encode()
            larger = srv.dial()
            larger.sendall(head + b"a" * (16384 - len(head) - 4) + b"\r\n\r\n")
            larger.sendall(b"k" * body)
            expect(Reader(larger).response()[0], 200 if body == 16384 else 413, f"{body} bytes")
            larger.close()
        s.sendall(b"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
        expect(reader.response()[0], 411)
        s.sendall(b"POST /now/cbcs/1/license HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n")
        expect(reader.response()[0], 413)


def http10():
    with Server() as srv:
        s = srv.dial()
        s.sendall(b"GET " + segment_path("now", 9, 1).encode() + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        reader = Reader(s)
        status, headers, body = reader.response()
        expect((status, headers["connection"], body), (200, "keep-alive", words(0, 9)))
        s.sendall(b"GET " + segment_path("now", 9, 1).encode() + b" HTTP/1.0\r\n\r\n")
        expect(reader.response()[1]["connection"], "close")
        expect(s.recv(10), b"")


def a_day_in_one_response():
    with Server() as srv:
        s = srv.dial()
        s.sendall(get_bytes("/now/cbcs/1/s65536x43200.mp4"))
        time.sleep(0.3)
        got, at = b"", 0
        while b"\r\n\r\n" not in got:
            got += s.recv(65536)
        head, got = got.split(b"\r\n\r\n", 1)
        expect(b"Content-Length: 2831155200" in head, True)
        while at < (20 if TLS else 60) << 20:
            expect(got == words(at, len(got)), True, f"bytes from {at}")
            at += len(got)
            got = s.recv(1 << 20)
        expect(srv.rss_kb() < 60000, True, srv.rss_kb())
        s.close()


def lost_sources():
    with Server() as srv:
        c = srv.client()
        r, _ = ask(c, segment_path("cut", 1000, 4))
        expect((r.status, r.getheader("Cache-Control")), (500, "no-store"))
        for size in (1000, 300000):
            try:
                r, body = ask(srv.client(), f"/cut/cbcs/1/s{size}x100.mp4")
                if size > 1000 or r.status != 500:
                    raise AssertionError("a full body")
            except http.client.IncompleteRead as e:
                expect(e.partial == words(0, len(e.partial)), True)
        expect(ask(c, segment_path("cut", 1000, 1))[1], words(0, 1000))


def hot_segments():
    for cache in ("on", "off"):
        with Server("--cache-encrypted", cache) as srv:
            for _ in range(2):  # filled, and found
                s = srv.dial()
                reader = Reader(s)
                plan = [("hot", size, n) for size in (1, 1000, 50001, 300000) for n in (1, 2, 5)] * 2 + [("now", 700, 3), ("hot", 300000, 3)]
                for asset, size, n in plan:
                    s.sendall(get_bytes(segment_path(asset, size, n)))
                    status, _, body = reader.response()
                    expect((status, body), (200, words((n - 1) * size, size)), f"{cache}: {asset} {size} {n}")
                s.sendall(b"".join(get_bytes(segment_path(*x)) for x in plan))
                for asset, size, n in plan:
                    expect(reader.response()[2], words((n - 1) * size, size), f"{cache}: {asset} {size} {n}, pipelined")
                size, total = 50001, 50001 * 70  # past what the cache takes
                s.sendall(get_bytes("/hot/cbcs/1/s50001x70.mp4"))
                expect(reader.response()[2], words(0, total))
                for _ in range(40):
                    a, b = sorted(random.randrange(total) for _ in range(2))
                    s.sendall(get_bytes("/hot/cbcs/1/s50001x70.mp4", f"Range: bytes={a}-{b}\r\n"))
                    status, _, body = reader.response()
                    expect((status, body == words(a, b - a + 1)), (206, True), f"{cache}: {a}-{b}")
                s.close()
        expect(srv.handed_over, 2 if KTLS else 0)
        expect(srv.sent_files > 300 if STUB and cache == "on" else srv.sent_files == 0, True, f"{cache}: {srv.sent_files} calls of sendfile")
