#!/usr/bin/env python3
"""Key servers that cannot be had: when they are asked again, at which address, what is served meanwhile, and what is counted: exchange_away.py SLUICE"""
import collections
import contextlib
import email.utils
import pathlib
import re
import signal
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from exchange import DRM, FLAGS, SLUICE, folder, judge_media, provider, tap  # noqa: E402
from judge import shim  # noqa: E402
from judge.certs import Authority  # noqa: E402
from judge.disturbed import undisturbed  # noqa: E402
from judge.keyserver import KeyServer  # noqa: E402
from judge.listening import Listening  # noqa: E402
from judge.server import Server  # noqa: E402


class Silent(Listening):
    """Takes connections and keeps them."""

    def handle(self, s):
        while s.recv(65536):
            pass


class Heads(Listening):
    """Takes requests, and ends the connection after a head. OSError on a machine without IPv6."""

    def __init__(self):
        super().__init__(("::1", 0))
        self.heads = []

    def handle(self, s):
        data = b""
        while b"\r\n\r\n" not in data and (more := s.recv(65536)):
            data += more
        self.heads.append(data.partition(b"\r\n\r\n")[0].decode().split("\r\n"))
        s.close()


class Closing(Listening):
    """Takes connections and ends them."""

    def handle(self, s):
        s.close()


def retry_after(work, ca, cert):
    """503 says when asking makes sense: for an asset that was refused, and while the whole server is away."""
    media = folder(work / "retry", "refused", "first", "second")
    times = "attempts: 1, negative: 60s, retry: 20s, retry_max: 20s"
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca, times) + DRM) as s:
        ks.orders(refused={"mode": "status", "status": 422}, first={"mode": "status", "status": 503})

        def seconds(asset):
            got = [s.get(f"/{asset}/cbcs/{p}") for p in ("1/t/init.mp4", "1/t/1.m4s", "master.m3u8")]
            return [int(r["retry-after"]) if r.status == 503 else r for r in got]

        for asset, low, high, name in (("refused", 45, 60, "refused: the rest of `negative`"), ("first", 15, 20, "away: until the next probe"),
                                       ("second", 15, 20, "away, another asset: the same")):
            got = seconds(asset)
            tap.ok(all(low - 5 <= n <= high for n in got if isinstance(n, int)) and all(isinstance(n, int) for n in got), f"Retry-After, {name}", got)
    # What the key server says itself is kept to, by the attempts of one exchange too.
    times = "attempts: 3, negative: 50ms, retry: 50ms, retry_max: 5s"
    for status in (503, 429, 500):
        with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca, times) + DRM) as s:
            ks.orders(first={"mode": "status", "status": status, "retry_after": 1})
            begin = time.monotonic()
            while (took := time.monotonic() - begin) < 2.5 or (len(ks.requests()) < 2 and took < 30):
                s.get("/first/cbcs/1/t/init.mp4")
                time.sleep(0.02)
            at = [r["time"] for r in ks.requests()]
            gaps = [round(b - a, 3) for a, b in zip(at, at[1:])]
            tap.ok(len(at) >= 2 and min(gaps) >= 1, f"{status} with Retry-After: 1: the next request is not sooner", gaps)
    for when, name, least in ((20, "a date to come", 1), (-60, "a date that is over", 0), ("Sun, 99 Nov 2094 08:49:37 GMT", "no date", 0),
                             ("99999999999999999999", "more seconds than 64 bits hold", 1)):
        with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca, times) + DRM) as s:
            said = when if isinstance(when, str) else email.utils.formatdate(time.time() + when, usegmt=True)
            ks.orders(first={"mode": "status", "status": 503, "retry_after": said})
            end = time.monotonic() + 15
            while time.monotonic() < end and len(ks.requests()) < 2:
                s.get("/first/cbcs/1/t/init.mp4")
                time.sleep(0.02)
            at = [r["time"] for r in ks.requests()]
            # a server that were to wait for a date it misread would do so for retry_max, five seconds
            tap.ok(len(at) >= 2 and (at[1] - at[0] >= least if least else at[1] - at[0] < 4), f"Retry-After with {name}", at)


def counts(work, ca, cert):
    """What is counted of questions, requests and key servers; and that a query, which may hold a secret, is not logged."""
    media = folder(work / "counts", "good", "refused", "malformed", "failing", "away")
    times = "attempts: 3, negative: 60s, retry: 20ms, retry_max: 60ms, answer_timeout: 5s"
    with KeyServer() as ks, KeyServer() as other, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json?token=hunter2"), more=times) + DRM) as s:
        def counted():
            found = re.findall(r'^sluice_(key[a-z_]*)\{worker="shared"(?:,result="(\w+)")?\} (\d+)$', s.admin("/metrics").body.decode(), re.M)
            got = {f"{name} {result}".strip(): int(n) for name, result, n in found}
            return [got[f"key_requests_total {r}"] for r in ("ok", "refused", "invalid", "failed")] + [got["key_retries_total"]], got

        tap.ok(s.wait_log("keys travel in the clear"), "without TLS: a warning", s.log())
        ks.orders(refused={"mode": "status", "status": 422}, malformed={"mode": "malformed"}, failing={"mode": "status", "status": 500}, away={"mode": "status", "status": 429})
        for asset, asked, want in (("good", 1, [1, 0, 0, 0, 0]), ("refused", 1, [1, 1, 0, 0, 0]), ("malformed", 1, [1, 1, 1, 0, 0]), ("failing", 3, [1, 2, 1, 0, 2]),
                                   ("away", 3, [1, 2, 1, 1, 4])):
            status = s.get(f"/{asset}/cbcs/1/t/init.mp4").status
            num, got = [r["asset"] for r in ks.requests()].count(asset), counted()[0]
            if asset == "away":  # on a busy machine who waited may ask again
                num, got[3] = min(num, asked), min(got[3], 1)
            tap.equal((status, num), (200 if asset == "good" else 503, asked), f"{asset}: status, and requests to the key server")
            tap.equal(got, want, f"{asset}: ends and retries are counted")
        before = counted()[1]
        for path in ("1/t.mp4", "master.m3u8"):
            s.get(f"/good/cbcs/{path}")
        s.get("/refused/cbcs/master.m3u8")
        after = counted()[1]
        more = [after[f"key_lookups_total {r}"] > before[f"key_lookups_total {r}"] for r in ("hit", "miss", "refused")]
        tap.equal(more, [True, False, True], "questions are counted by what they got")
        took = re.findall(r'^sluice_key_request_duration_seconds_count\{worker="shared"\} (\d+)$', s.admin("/metrics").body.decode(), re.M)
        tap.equal(took, ["1"], "and how long the one took that gave keys")

        def gauges():
            got = counted()[1]
            return got["keys_cached"], got["key_servers_away"]

        def come(want):
            end = time.monotonic() + 10
            while gauges() != want and time.monotonic() < end:
                time.sleep(0.1)
            return gauges()
        tap.equal(come((1, 1)), (1, 1), "one answer is kept, one key server is away")
        tap.ok("hunter2" not in "\n".join(s.log()) and s.wait_log(re.escape(ks.url("/json"))), "the log names the key server without its query", s.log())
        (s.folder / "keys.yaml").write_text(provider("json", other.url("/json"), more=times) + DRM)
        s.signal(signal.SIGHUP)
        s.wait_log("info reloaded")
        tap.equal(come((1, 0)), (1, 0), "one that a reload leaves behind is not away any more")
        tap.equal((judge_media(s, "good", "cbcs"), [r["asset"] for r in other.requests()]), ("", ["good"]), "and its answers are not the next one's")


def away(work, ca, cert):
    """While a key server is away, one request at a time finds out whether it is back, and who waits behind another is told at once."""
    names = [f"p{n}" for n in range(4)]
    media = folder(work / "away", *names)

    def ask(s, assets):
        clients = [s.client() for _ in assets]
        for c, a in zip(clients, assets):
            c.send(f"/{a}/cbcs/1/t/init.mp4")
        return [c.read().status for c in clients]

    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, "attempts: 1, retry: 1s, retry_max: 1s, connections: 4") + DRM) as s:
        ks.orders(every={"mode": "status", "status": 503})
        tap.equal(ask(s, names[:1]), [503], "away")
        ks.orders(every={"mode": "status", "status": 503, "delay": 2})
        time.sleep(1.2)  # longer than the pause
        tap.equal((ask(s, names), len(ks.requests())), ([503] * 4, 1), "of four at once, one asks")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, "attempts: 1, retry: 60s, retry_max: 60s, connections: 1, answer_timeout: 1s") + DRM) as s:
        ks.orders(every={"mode": "silent"})
        tap.equal((ask(s, names), len(ks.requests())), ([503] * 4, 1), "of four in a queue, the first found out")

    def asked(ks):
        return dict(collections.Counter(r["asset"] for r in ks.requests()))

    times = "attempts: 3, retry: 500ms, retry_max: 60s, negative: 60s, answer_timeout: 10s"
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, times) + DRM) as s:
        ks.orders(p0={"mode": "status", "status": 503}, p1={"mode": "status", "status": 503, "delay": 4})
        tap.equal((ask(s, names[:2]), asked(ks)), ([503] * 2, {"p0": 3, "p1": 1}), "what others have found out meanwhile ends the attempts")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, "attempts: 1, retry: 50ms, retry_max: 60s") + DRM) as s:
        ks.orders(every={"mode": "status", "status": 503, "retry_after": 30})
        ask(s, names[:1])
        time.sleep(0.5)  # longer than the pause
        tap.equal((ask(s, names[1:]), asked(ks)), ([503] * 3, {"p0": 1}), "Retry-After is the whole server's")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, "lifetime: 60s, refresh: 58s") + DRM) as s:
        end = time.monotonic() + 20
        while (status := ask(s, names[:1])) == [200] and asked(ks) == {"p0": 1} and time.monotonic() < end:
            time.sleep(0.1)
        tap.equal((status, asked(ks)), ([200], {"p0": 2}), "a key is asked for anew `refresh` before its end")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, times) + DRM) as s:
        ks.orders(p0={"mode": "cut_503"})
        tap.equal((ask(s, names[:1]), asked(ks)), ([503], {"p0": 3}), "half an answer's Retry-After is none")
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json"), ca, "attempts: 1, connections: 1") + DRM) as s:
        ks.orders(every={"mode": "once"})
        tap.equal([ask(s, [name]) for name in names[:2]], [[200]] * 2, "a connection that had ended is no failure")
        tap.equal(asked(ks), {"p0": 1, "p1": 2}, "that request is sent again")
    with Silent() as silent, Server(SLUICE, media, *FLAGS, keys=provider("json", f"https://127.0.0.1:{silent.port}/", ca, "attempts: 1, tls_timeout: 300ms, timeout: 60s") + DRM) as s:
        tap.equal(ask(s, names[:1]), [503], "who takes connections and says nothing")
        tap.ok(s.wait_log("no TLS within 300 ms"), "is away after tls_timeout", s.log())
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, "--drain-timeout", "200ms", keys=provider("json", ks.url("/json"), ca, "answer_timeout: 60s, timeout: 60s") + DRM) as s:
        ks.orders(every={"mode": "silent"})
        waits = s.client()
        waits.send("/p0/cbcs/1/t/init.mp4")
        end = time.monotonic() + 10
        while not ks.requests() and time.monotonic() < end:
            time.sleep(0.02)
        tap.equal(s.stop(), 0, "a server that waits for keys ends in order")
        waits.close()


def addresses(work, authority):
    """A key server with two addresses, of which the first is dead: requests that fail there together go on to the second."""
    media = folder(work / "addresses", *(f"a{n}" for n in range(4)))
    try:
        sixth = Heads()
    except OSError as e:
        tap.skip("a key server by an address of IPv6", f"no IPv6 here: {e}")
    else:
        with sixth, Server(SLUICE, media, *FLAGS, keys=provider("json", f"http://[::1]:{sixth.port}", more="attempts: 1") + DRM) as s:
            tap.equal(s.get("/a0/cbcs/1/t/init.mp4").status, 503, "a key server by an address of IPv6")
            tap.equal([(h[0], [line for line in h if line.startswith("Host: ")]) for h in sixth.heads], [("POST / HTTP/1.1", [f"Host: [::1]:{sixth.port}"])],
                      "which stands in brackets, and the path is / where none is given")
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("two_addresses.c"), work / "two_addresses.so"), "", "names with two addresses are built"):
        return
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("failing_polls.c"), work / "failing_polls.so"), "", "polls that fail are built"):
        return
    with KeyServer(authority.issue("named")) as ks, Server(SLUICE, media, *FLAGS, env=shim.preloaded(work / "failing_polls.so"),
                                                           keys=provider("json", ks.url("/json", host="localhost"), authority.ca) + DRM) as s:
        tap.equal([s.get(f"/a{n}/cbcs/1/t/init.mp4").status for n in range(2)], [200] * 2, "a key server's name is found where polls fail")
    env = shim.preloaded(work / "two_addresses.so")
    with KeyServer(authority.issue("two", "DNS:two.test,DNS:many.test")) as ks, contextlib.ExitStack() as stack:
        with Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(host="many.test"), authority.ca) + DRM, env=env) as s:
            tap.equal(judge_media(s, "a0", "cbcs"), "", "a name with thirty addresses")
            tap.equal(s.stop(), 0, "and it ends in good order")
        for name in ("nobody listens", "who listens speaks no TLS"):
            if name != "nobody listens":
                stack.enter_context(Closing(("127.0.0.2", ks.port)))
            keys = provider("speke2.0", ks.url(host="two.test"), authority.ca, "attempts: 2, retry: 20ms, connections: 4") + DRM
            ks.orders()
            with Server(SLUICE, media, *FLAGS, keys=keys, env=env) as s:
                clients = [s.client() for _ in range(4)]
                for n, c in enumerate(clients):
                    c.send(f"/a{n}/cbcs/1/t/init.mp4")
                tap.equal([c.read().status for c in clients], [200] * 4, f"the first address, {name}: the second is taken")


def resolver(work, authority):
    """A resolver that does not answer, or fails, takes no key server away whose address is known."""
    media = folder(work / "resolver", "a/0", "a/1", "a/2", "b/0")
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("resolver.c"), work / "resolver.so"), "", "a resolver that fails is built"):
        return
    files = {name: work / name for name in ("RESOLVER_HANGS", "RESOLVER_FAILS", "MINUTE_LATER")}
    env = shim.preloaded(work / "resolver.so", **{name: str(f) for name, f in files.items()})
    times = "attempts: 1, retry: 20ms, connect_timeout: 1s"

    def two(of_a, of_b):
        a, b = (provider("json", url, authority.ca, times, match=m) for url, m in ((of_a, "a/"), (of_b, "b/")))
        return a + b.partition("\n")[2] + DRM

    with KeyServer(authority.issue("key", "DNS:key.test,DNS:two.test,IP:127.0.0.1")) as ks:
        files["RESOLVER_HANGS"].touch()
        with Server(SLUICE, media, *FLAGS, keys=two(ks.url("/json", "key.test"), ks.url("/json")), env=env) as s:
            first = s.client()
            first.send("/a/0/cbcs/1/t/init.mp4")
            tap.equal(s.get("/b/0/cbcs/1/t/init.mp4").status, 200, "a key server by its address waits for no name of another's")
            tap.equal(first.read().status, 503, "whose name is not found in time")
            files["RESOLVER_HANGS"].unlink()
        twice = "attempts: 2, retry: 20ms, connect_timeout: 1s"
        with Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json", "two.test"), authority.ca, twice) + DRM, env=env) as s:
            tap.equal(s.get("/a/0/cbcs/1/t/init.mp4").status, 200, "a resolver that fails where the first of two addresses is dead: the second is taken")
        for how in ("RESOLVER_FAILS", "RESOLVER_HANGS"):
            with Server(SLUICE, media, *FLAGS, keys=provider("json", ks.url("/json", "key.test"), authority.ca, times) + DRM, env=env) as s:
                tap.equal(s.get("/a/0/cbcs/1/t/init.mp4").status, 200, f"{how}: a name is found")
                files[how].touch()
                files["MINUTE_LATER"].touch()
                tap.equal([s.get(f"/{a}/cbcs/1/t/init.mp4").status for a in ("a/1", "a/2")], [200] * 2, f"{how}: a minute later its address is good for another")
                files[how].unlink()
                files["MINUTE_LATER"].unlink()
                tap.equal(s.stop(), 0, f"{how}: and the server ends in good order")


def hammer(server, paths, seconds, out, expect):
    """Requests in turn until the time is over; `out` counts statuses, keeps what was not expected."""
    client, end, n = server.client(), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        path = paths[n % len(paths)]
        n += 1
        r = client.get(path)
        out["all"] += 1
        if not expect(r):
            out["wrong"] += 1
            out["first"] = out["first"] or (path, r)
    client.close()


def outage(work, ca, cert):
    hot, cold = [f"hot{n}" for n in range(6)], [f"cold{n}" for n in range(12)]
    media = folder(work / "outage", *hot, *cold)
    times = ("lifetime: 2s, refresh: 1s, stale: 60s, negative: 100ms, attempts: 3, retry: 50ms, retry_max: 500ms, connections: 3, "
             "connect_timeout: 300ms, answer_timeout: 500ms, timeout: 1s")
    hot_paths = [f"/{a}/{p}" for a in hot for p in ("cbcs/master.m3u8", "cbcs/1/t/init.mp4", "cbcs/1/t/1.m4s", "cenc/1/t.mp4")]
    cold_paths = [f"/{a}/cbcs/{p}" for a in cold for p in ("manifest.mpd", "1/t/init.mp4")]
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca, times) + DRM) as s:
        for a in hot:
            tap.equal((judge_media(s, a, "cbcs"), judge_media(s, a, "cenc")), ("", ""), f"{a} plays")

        def load(seconds, name):
            seen = [collections.Counter(first=None) for _ in range(3)]
            for c in seen:
                c["first"] = None
            good = lambda r: r.status == 200  # noqa: E731
            away = lambda r: r.status == 503 and r["retry-after"] != ""  # noqa: E731
            threads = [threading.Thread(target=hammer, args=(s, p, seconds, c, e))
                       for p, c, e in ((hot_paths, seen[0], good), (hot_paths[::-1], seen[1], good), (cold_paths, seen[2], away))]
            [t.start() for t in threads]
            [t.join() for t in threads]
            tap.ok(all(c["all"] and not c["wrong"] for c in seen[:2]), f"{name}: hot assets keep playing", seen[:2])
            tap.ok(seen[2]["all"] and not seen[2]["wrong"], f"{name}: cold ones get 503 with Retry-After", seen[2])
            return sum(c["all"] for c in seen)

        ks.stop()
        load(4.5, "key server gone for more than two lifetimes")
        tap.equal([judge_media(s, a, "cbcs") for a in hot], [""] * len(hot), "under the right keys")
        stale = re.search(r'sluice_key_lookups_total\{worker="shared",result="stale"\} (\d+)', s.admin("/metrics").body.decode())
        tap.ok(stale and int(stale[1]) > 0, "which is counted", stale)
        ks.start()
        ks.orders(every={"mode": "status", "status": 503})
        begin = time.monotonic()
        asked = load(2, "key server overloaded")
        attempts = len(ks.requests())
        # A probe at most every 500 ms less a quarter, of three attempts each.
        tap.ok(1 <= attempts <= 3 * ((time.monotonic() - begin) / 0.375 + 2), "while it is away it is probed, not pressed", f"{attempts} for {asked} requests")
        lines = [line for line in s.log() if "next attempt" in line]
        tap.ok(0 < len(lines) < 10, "the log says so, and not for each request", lines[:20])
        gauge = re.search(r'sluice_key_servers_away\{worker="shared"\} (\d+)', s.admin("/metrics").body.decode())
        tap.equal(gauge and gauge.group(1), "1", "and a gauge")
        ks.orders(every={"delay": 0.05})
        end = time.monotonic() + 10
        waiting, got, errors = set(cold), collections.Counter(), []

        def come_back(asset):
            while time.monotonic() < end:
                status = s.get(f"/{asset}/cbcs/1/t/init.mp4").status
                got[status] += 1
                if status == 200:
                    waiting.discard(asset)
                    return
                time.sleep(0.02)

        threads = [threading.Thread(target=come_back, args=(a,)) for a in cold for _ in range(4)]
        [t.start() for t in threads]
        for p in hot_paths:
            errors += [p] if s.get(p).status != 200 else []
        [t.join() for t in threads]
        state = ks.state()
        tap.equal((sorted(waiting), errors), ([], []), "when it is back, cold assets play too")
        each = collections.Counter((r["asset"], re.search(r'commonEncryptionScheme="(\w+)"', r["body"]).group(1)) for r in state["requests"])
        first = min(r["time"] for r in state["requests"])
        early = collections.Counter((r["asset"], "cbcs" if "cbcs" in r["body"] else "cenc") for r in state["requests"] if r["time"] < first + 1)
        tap.ok(max(early.values()) == 1 and state["peak"] <= 3, "recovery without a stampede: one request a key, three at a time", (each, state["peak"]))
        tap.ok(s.wait_log("answers again"), "and the log says that it is back", s.log())
    # Past the limit nothing is served from old keys.
    short = "lifetime: 300ms, refresh: 100ms, stale: 700ms, negative: 50ms, attempts: 1, retry: 50ms, retry_max: 100ms"
    with KeyServer(cert) as ks, Server(SLUICE, media, *FLAGS, keys=provider("speke2.0", ks.url(), ca, short) + DRM) as s:
        tap.equal(judge_media(s, "hot0", "cbcs"), "", "stale: plays")
        ks.stop()
        end, last = time.monotonic() + 20, None
        while time.monotonic() < end and last != 503:
            last = s.get("/hot0/cbcs/1/t/init.mp4").status
            time.sleep(0.03)
        tap.equal(last, 503, "stale: past the limit 503")
        ks.start()
        end = time.monotonic() + 20
        while time.monotonic() < end and (why := judge_media(s, "hot0", "cbcs")):
            time.sleep(0.03)
        tap.equal(why, "", "stale: and plays again")


def main():
    with tempfile.TemporaryDirectory(prefix="sluice-exchange-") as name:
        work = pathlib.Path(name)
        authority = Authority(work / "ca")
        cert = authority.issue("server")
        for part in (retry_after, counts, away, outage):
            if not sys.argv[2:] or part.__name__ in sys.argv[2:]:
                undisturbed(tap, 0.2, part, work, authority.ca, cert)
        for part in (addresses, resolver):
            if not sys.argv[2:] or part.__name__ in sys.argv[2:]:
                undisturbed(tap, 0.2, part, work, authority)
    tap.end()


if __name__ == "__main__":
    main()
