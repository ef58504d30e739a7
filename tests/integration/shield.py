#!/usr/bin/env python3
"""Two nodes behind nginx as a caching shield that fetches in slices: shield.py SLUICE"""
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.truth import keys_file, url  # noqa: E402
from judge import synth  # noqa: E402
from judge.certs import Authority  # noqa: E402
from judge.ports import free_port  # noqa: E402
from judge.programs import Sluice  # noqa: E402
from judge.server import Client, Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSET = "album/a song"
SLICE = 65536
CONF = """
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log info; user {user};
events {{ worker_connections 1000; }}
http {{
  access_log off; proxy_temp_path {dir}/p; client_body_temp_path {dir}/b; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  proxy_cache_path {dir}/cache keys_zone=k:4m;
  proxy_cache k; proxy_cache_key $server_port$uri$slice_range; proxy_cache_revalidate on; proxy_cache_lock on;
  proxy_cache_use_stale error timeout http_503; proxy_next_upstream off;
  proxy_ssl_trusted_certificate {ca}; proxy_ssl_verify on; proxy_ssl_name localhost;
  slice {slice}; add_header X-Cache $upstream_cache_status always;
  upstream plain {{ {plain} keepalive 8; }}
  upstream secure {{ {secure} keepalive 8; }}
  {servers}
}}
"""
SLICED = "proxy_set_header Range $slice_range;"  # beside the other one: a location that sets one inherits none
KEPT = f'proxy_http_version 1.1; {SLICED} proxy_set_header Connection "";'
WAYS = {"HTTP/1.1": f"{KEPT} proxy_pass http://plain;", "TLS": f"{KEPT} proxy_pass https://secure;", "HTTP/1.0": f"{SLICED} proxy_pass http://plain;"}


class Shield:
    def __init__(self, folder, plain, secure, ca):
        folder.mkdir()
        self.folder, self.ports = folder, {way: free_port() for way in WAYS}
        nodes = lambda ports: " ".join(f"server 127.0.0.1:{p};" for p in ports)  # noqa: E731
        servers = "\n  ".join(f"server {{ listen 127.0.0.1:{self.ports[w]}; location / {{ {to} }} }}" for w, to in WAYS.items())
        (folder / "conf").write_text(CONF.format(dir=folder, user="root" if os.getuid() == 0 else os.environ.get("USER", "nobody"), slice=SLICE,
                                                 ca=ca, plain=nodes(plain), secure=nodes(secure), servers=servers))
        self.process = subprocess.Popen(["nginx", "-c", str(folder / "conf"), "-p", str(folder)], stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.ports["TLS"]), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise RuntimeError("nginx does not listen:\n" + self.faults())

    def get(self, way, path, method="GET", **headers):
        c = Client(self.ports[way])
        try:
            return c.get(path, method, {k.replace("_", "-"): v for k, v in headers.items()})
        finally:
            c.close()

    def faults(self):
        """What it has to say of its upstream."""
        log = self.folder / "error.log"
        return "\n".join(l for l in (log.read_text() if log.exists() else "").splitlines() if re.search(r"\[(warn|error|crit|alert|emerg)\]", l))

    def stop(self):
        self.process.terminate()
        self.process.wait(20)


def counted(nodes, name, labels=""):
    return sum(float(x) for n in nodes for x in re.findall(rf"^{name}\{{[^}}]*{labels}[^}}]*\}} (\S+)$", n.admin("/metrics").body.decode(), re.M))


def connections_made(nodes):
    return counted(nodes, "sluice_connections_total", 'event="accepted"')


def in_slices(tap, shield, way, nodes):
    """That it is slices which the origin is asked for."""
    path, responses = url(ASSET, "cbcs", 1, "s.mp4"), ("sluice_responses_total", 'class="2xx"')
    before, connections = counted(nodes, *responses), connections_made(nodes)
    slices = -(-len(shield.get(way, path).body) // SLICE)
    end = time.monotonic() + 20  # a response is counted a moment after its client has it
    while (grew := counted(nodes, *responses) - before) < slices and time.monotonic() < end:
        time.sleep(0.05)
    tap.equal(grew, slices, f"{way}: a whole track is fetched in slices")
    made = connections_made(nodes) - connections
    if way != "HTTP/1.0":
        tap.ok(made <= len(nodes), f"{way}: over connections that stay", f"{made} for {slices} slices")


def bytes_arrive(tap, shield, way, nodes):
    origin, whole_url = nodes[0], url(ASSET, "cbcs", 1, "t.mp4")
    for path in (whole_url, url(ASSET, "cbcs", 1, "t", "7.m4s"), url(ASSET, "clear", 1, "t.mp4"), url(ASSET, "cbcs", "manifest.mpd")):
        want, name = origin.get(path), f"{way}: {path.split('/', 3)[3]}"
        for turn in ("fetched", "kept"):
            got = shield.get(way, path)
            tap.ok(got.status == 200 and got.body == want.body and got["etag"] == want["etag"] and got["content-type"] == want["content-type"]
                   and got["cache-control"] == want["cache-control"], f"{name}: {turn}: the bytes and the lines that count", got)
            good = ("MISS",) if turn == "fetched" else ("HIT",) if "immutable" in want["cache-control"] else ("HIT", "REVALIDATED")
            tap.ok(got["x-cache"] in good, f"{name}: {turn}", got)
        head = shield.get(way, path, "HEAD")
        tap.equal((head.status, head["content-length"], head["etag"]), (200, str(len(want.body)), want["etag"]), f"{name}: HEAD")
        tap.equal(shield.get(way, path, If_None_Match=want["etag"]).status, 304, f"{name}: If-None-Match")
    etag, rng, wrong = origin.get(whole_url)["etag"], random.Random(5), []
    for path in (whole_url, url(ASSET, "cenc", 1, "t.mp4")):  # kept, and not yet
        whole = origin.get(path).body
        n = len(whole)
        for _ in range(150):
            a = rng.choice((rng.randrange(n), rng.randrange(n // SLICE) * SLICE))
            b = min(n - 1, a + int(rng.expovariate(1 / SLICE)))
            text, a, b = rng.choice(((f"bytes={a}-{b}", a, b), (f"bytes={a}-", a, n - 1), (f"bytes={a}-{b + n}", a, n - 1)))
            r = shield.get(way, path, Range=text)
            if (r.status, r["content-range"], r.body == whole[a:b + 1]) != (206, f"bytes {a}-{b}/{n}", True):
                wrong.append(f"{path} {text}: {r}")
    tap.ok(n > 4 * SLICE and not wrong, f"{way}: 300 ranges across slices", f"{n} bytes; {len(wrong)} wrong\n" + "\n".join(wrong[:5]))
    tap.equal(shield.get(way, whole_url, Range=f"bytes={n + SLICE}-").status, 416, f"{way}: a range beyond the end")
    tap.equal(len(shield.get(way, whole_url, Range="bytes=0-9", If_Range='"other"').body), len(origin.get(whole_url).body), f"{way}: If-Range with another tag")
    tap.equal(shield.get(way, whole_url, Range="bytes=0-9", If_Range=etag).status, 206, f"{way}: If-Range with the tag")


def crowds(tap, shield, way, origin):
    """Many ask at once for what is not there yet."""
    paths = [url(ASSET, "cbcs", 1, "t", f"{n}.m4s") for n in range(100, 160)]
    want, wrong = {p: origin.get(p).body for p in paths}, []

    def ask():
        c = Client(shield.ports[way])
        wrong.extend(p for p in paths if c.get(p).body != want[p])
        c.close()

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    tap.equal(wrong, [], f"{way}: 20 clients ask for 60 segments at once")


def spellings(tap, shield):
    """The shield names its answers by the path that it makes of what was written, and asks for what was written: nobody may put an error in
    the place of what others ask for."""
    asset = "/album/a%20song"
    for n, odd in enumerate(("/{a}/cbcs/1/t/{n}.m4s", "{a}//cbcs/1/t/{n}.m4s", "/.{a}/cbcs/1/t/{n}.m4s", "/x/..{a}/cbcs/1/t/{n}.m4s", "{a}/%2e/cbcs/1/t/{n}.m4s",
                             "{a}%2Fcbcs/1/t/{n}.m4s", "{a}/cbcs/1/t%2f{n}.m4s", "{a}/cbcs/1/y/%2e%2e/t/{n}.m4s", "/" + "/" * 1100 + "{a}/cbcs/1/t/{n}.m4s"), 200):
        first = shield.get("HTTP/1.1", odd.format(a=asset, n=n)).status
        tap.equal((first, shield.get("HTTP/1.1", f"{asset}/cbcs/1/t/{n}.m4s").status), (404, 200), f"{odd[-40:]} stands in nobody's way")


def clients_do_not_end_upstream_connections(tap, shield, nodes):
    c = Client(shield.ports["HTTP/1.1"])
    before = [connections_made([n]) for n in nodes]
    statuses = {c.get(f"/nothing/{n}", headers={"Proxy-Connection": "close", "Keep-Alive": "timeout=1", "Upgrade": "h2c"}).status for n in range(40)}
    c.close()
    made = [connections_made([n]) - b for n, b in zip(nodes, before)]  # one of them is that of the second look
    tap.ok(statuses == {404} and before[0] > 0 and max(made) <= 4, "what clients say of connections does not reach the shield's", f"{statuses}, {made} connections")


def epoch_of(response):
    return int(re.search(rb"(\d+)/t/media\.m3u8", response.body).group(1))


def later(shield, path, good, timeout=15):
    """What the shield answers once that is `good`, or after that time."""
    end = time.monotonic() + timeout
    while not good(r := shield.get("HTTP/1.1", path)) and time.monotonic() < end:
        time.sleep(0.1)
    return r


def is_asked_for(response):
    """The age of what the shield kept is over."""
    return response["x-cache"] != "HIT"


def what_changes(tap, sluice, shield, nodes, media):
    master, way = url(ASSET, "cbcs", "master.m3u8"), "HTTP/1.1"
    first = shield.get(way, master)
    tap.equal((first.status, first["cache-control"], epoch_of(first)), (200, "public, max-age=1", 1), "a playlist of the first epoch")
    again = later(shield, master, is_asked_for)
    tap.equal((again.status, again["x-cache"], again.body), (200, "REVALIDATED", first.body), "its age over, 304 says that it is still good")
    kept, new = url(ASSET, "cbcs", 1, "t", "100.m4s"), url(ASSET, "cbcs", 1, "t", "400.m4s")

    def rotate(*more):
        for n in nodes:
            r = sluice("rotate", ASSET, *more, "--admin", f"127.0.0.1:{n.admin_port}")
            tap.equal(r.code, 0, f"rotate {' '.join(more)}".strip())

    rotate()
    r = later(shield, master, is_asked_for)
    tap.ok(r["x-cache"] == "EXPIRED" and epoch_of(r) == 2, "the next epoch's playlist goes through", r)
    tap.equal(shield.get(way, new).status, 200, "what the shield has not yet of the epoch before is served within its grace")
    rotate("--revoke")
    tap.equal(epoch_of(later(shield, master, is_asked_for)), 3, "behind a revocation, too")
    r = shield.get(way, url(ASSET, "cbcs", 1, "t", "401.m4s"))
    tap.equal((r.status, r["cache-control"]), (410, "public, max-age=1"), "410 goes through")
    tap.equal(shield.get(way, kept)["x-cache"], "HIT", "what the shield has is its own matter: purge")
    late = url("late", "cbcs", "master.m3u8")
    tap.equal(shield.get(way, late).status, 404, "an asset that is not there yet")
    (media / "late").mkdir()
    shutil.copy(media / ASSET / "t.mp4", media / "late" / "t.mp4")
    tap.equal(later(shield, late, lambda r: r.status != 404).status, 200, "and is there")  # negative_ttl at both
    return master


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    if not shutil.which("nginx"):
        tap.skip("a shield in front", "nginx is not here")
        tap.end()
    if "http_slice_module" not in subprocess.run(["nginx", "-V"], capture_output=True, text=True).stderr:
        tap.skip("a shield in front", "nginx is without its slice module")
        tap.end()
    with tempfile.TemporaryDirectory(prefix="sluice-shield-") as work:
        work = pathlib.Path(work)
        media = work / "media"
        (media / ASSET).mkdir(parents=True)
        synth.day(media / ASSET / "t.mp4", hours=1)
        shutil.copy(media / ASSET / "t.mp4", media / ASSET / "s.mp4")
        authority = Authority(work / "ca")
        cert, key = authority.issue("origin")
        secure = [free_port(), free_port()]
        text = f"clear: true\nmanifest_max_age: 1s\ntls_listen: 127.0.0.1:%d\ntls_certificate: {cert}\ntls_key: {key}\n"
        keys = keys_file([ASSET, "late"], epochs=(1, 2, 3))
        with Server(sluice.path, media, "--io", "epoll", keys=keys, config=text % secure[0]) as one, \
             Server(sluice.path, media, keys=keys, config=text % secure[1]) as two:
            shield = Shield(work / "shield", (one.port, two.port), secure, authority.ca)
            try:
                for way in WAYS:
                    in_slices(tap, shield, way, (one, two))
                    bytes_arrive(tap, shield, way, (one, two))
                    crowds(tap, shield, way, two)
                spellings(tap, shield)
                clients_do_not_end_upstream_connections(tap, shield, (one, two))
                master = what_changes(tap, sluice, shield, (one, two), media)
                tap.equal(shield.faults(), "", "the shield finds no fault with its origin")
                tap.equal([one.stop(), two.stop()], [0, 0], "the nodes end")
                r = shield.get("HTTP/1.1", master)
                tap.equal((r.status, r["x-cache"]), (200, "STALE"), "and the shield goes on with what it has")
            finally:
                shield.stop()
    tap.end()


if __name__ == "__main__":
    main()
