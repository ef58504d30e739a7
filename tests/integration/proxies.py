#!/usr/bin/env python3
"""The caching proxies of docs/cdn.md, as configured there, in front of two nodes: proxies.py SLUICE"""
import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.truth import keys_file, url  # noqa: E402
from judge import synth  # noqa: E402
from judge.ports import free_port  # noqa: E402
from judge.programs import ROOT, Sluice, run  # noqa: E402
from judge.server import Client, Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ASSET = "album/a song"
SEGMENTS = 1790
NGINX = """daemon off; worker_processes 1; pid {dir}/pid; error_log stderr warn; user {user};
events {{ worker_connections 1000; }}
http {{
access_log off; proxy_temp_path {dir}/p; client_body_temp_path {dir}/b; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
{conf}
}}
"""
PROGRAMS = {  # name: program, its arguments
    "nginx": ("nginx", "-p", "{dir}", "-e", "stderr", "-c", "{dir}/conf"),
    "vcl": ("varnishd", "-F", "-n", "{dir}/work", "-a", "127.0.0.1:{port}", "-f", "{dir}/conf", "-s", "malloc,64m", "-j", "none"),
    "haproxy": ("haproxy", "-db", "-f", "{dir}/conf"),
}


def documented(kind):
    """The first block of that kind on the page."""
    return re.search(rf"```{kind}\n(.*?)```", (ROOT / "docs" / "cdn.md").read_text(), re.S).group(1)


class Proxy:
    def __init__(self, kind, folder, nodes):
        folder.mkdir()
        self.kind, self.folder, self.port, self.program = kind, folder, free_port(), PROGRAMS[kind][0]
        conf = documented(kind)
        for address, node in zip(("10.0.0.1", "10.0.0.2"), nodes):
            conf = conf.replace(f"{address}:8080", f"127.0.0.1:{node.port}")
            conf = conf.replace(f'"{address}"; .port = "8080"', f'"127.0.0.1"; .port = "{node.port}"')
        for there, here in (("/var/cache/nginx", f"{folder}/cache"), ("listen 80;", f"listen 127.0.0.1:{self.port};"), ("slice 1m", "slice 64k"),
                            ("bind :80", f"bind 127.0.0.1:{self.port}"), ("total-max-size 1024", "total-max-size 64")):
            conf = conf.replace(there, here)
        if kind == "nginx":
            conf = NGINX.format(dir=folder, user="root" if os.getuid() == 0 else os.environ.get("USER", "nobody"), conf=conf)
        (folder / "conf").write_text(conf)
        self.log = open(folder / "log", "w")
        self.process = subprocess.Popen([a.format(dir=folder, port=self.port) for a in PROGRAMS[kind]], stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT)

    def up(self):
        for _ in range(600):
            try:
                if self.get("/").status == 404:
                    return True
            except (OSError, EOFError):
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        return False

    def get(self, path, method="GET", **headers):
        c = Client(self.port)
        try:
            return c.get(path, method, {k.replace("_", "-"): v for k, v in headers.items()})
        finally:
            c.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def until(good, timeout=20):
    end = time.monotonic() + timeout
    while not (r := good()) and time.monotonic() < end:
        time.sleep(0.05)
    return r


def counted(nodes, name, labels):
    return sum(float(x) for n in nodes for x in re.findall(rf"^{name}\{{[^}}]*{labels}[^}}]*\}} (\S+)$", n.admin("/metrics").body.decode(), re.M))


def bytes_arrive(tap, proxy, nodes):
    name, whole = proxy.program, url(ASSET, "cbcs", 1, "t.mp4")
    paths = [url(ASSET, s, *rest) for s in ("cbcs", "cenc", "clear")
             for rest in (("manifest.mpd",), ("master.m3u8",), (1, "t", "media.m3u8"), (1, "t", "init.mp4"), (1, "t", "7.m4s"), (1, "t", "1700.m4s"), (1, "t.mp4"))]
    want, wrong = {p: nodes[1].get(p) for p in paths}, []
    tap.equal({r.status for r in want.values()}, {200}, f"{name}: what a node gives by itself")
    asked = lambda: counted(nodes, "sluice_requests_total", 'method="GET"')  # noqa: E731
    for turn in ("fetched", "kept"):
        before = asked()
        for p in paths:
            got = proxy.get(p)
            if got.status != 200 or any(got[h] != want[p][h] for h in ("etag", "content-type", "cache-control", "access-control-allow-origin")) or got.body != want[p].body:
                wrong.append(f"{turn}: {p}: {got}")
    tap.equal(wrong, [], f"{name}: playlists, segments and whole tracks of every scheme, fetched and kept")
    tap.ok(asked() - before <= 6, f"{name}: keeps all but the six manifests, whole tracks too", asked() - before)
    before = asked()
    got = [proxy.get(p + "?token=1", Cookie="a=b").body == want[p].body for p in paths if p.endswith("/7.m4s")]
    tap.equal((got, asked() - before), ([True] * 3, 0), f"{name}: queries and cookies ask for what is kept")
    body, etag = want[whole].body, want[whole]["etag"]
    n, wrong = len(body), []
    for a, b in ((0, 0), (65530, 65540), (n - 70000, n - 1), (200000, n + 5)):
        got = proxy.get(whole, Range=f"bytes={a}-{b}", If_Range=etag)
        if (got.status, got["content-range"], got.body) != (206, f"bytes {a}-{min(b, n - 1)}/{n}", body[a:b + 1]):
            wrong.append(f"{a}-{b}: {got}")
    tap.equal(wrong, [], f"{name}: parts of a whole track that is kept")
    tap.equal(len(proxy.get(whole, Range="bytes=0-9", If_Range='"other"').body), n, f"{name}: If-Range with another tag")
    tap.equal(proxy.get(whole, Range=f"bytes={n}-").status, 416, f"{name}: a range beyond the end")
    tap.equal([proxy.get(p, If_None_Match=want[p]["etag"]).status for p in (whole, paths[0])], [304, 304], f"{name}: If-None-Match")
    head = proxy.get(url(ASSET, "cenc", 1, "t", "9.m4s"), "HEAD")
    tap.equal((head.status, head["content-length"]), (200, nodes[0].get(url(ASSET, "cenc", 1, "t", "9.m4s"), "HEAD")["content-length"]), f"{name}: HEAD")
    preflight = proxy.get(whole, "OPTIONS", Origin="https://player.example", Access_Control_Request_Method="GET", Access_Control_Request_Headers="range")
    tap.ok(preflight.status == 204 and "Range" in preflight["access-control-allow-headers"], f"{name}: a preflight", preflight)


def one_is_told_of_a_rotation(tap, proxies, nodes):
    """Where half of the nodes know no epoch yet nobody gets their 404."""
    paths = [url(ASSET, "cbcs", 2, "t", f"{n}.m4s") for n in range(300, 330)] + [url(ASSET, "cbcs", 2, "t", "media.m3u8")]
    known = [{n.get(p).status for p in paths} for n in nodes]
    tap.equal(known, [{200}, {404}], "one node knows the next epoch")
    for p in proxies:
        tap.equal(collections.Counter(p.get(path).status for path in paths), {200: len(paths)}, f"{p.program}: asks the other node where one answers 404")
        tap.equal(p.get(url(ASSET, "cbcs", 1, "t", "9999.m4s")).status, 404, f"{p.program}: what neither has is a 404")


def restarts(tap, proxies, nodes):
    """The nodes are restarted one after the other; nobody notices."""
    checking = sum(p.kind != "nginx" for p in proxies)
    end, got = threading.Event(), {p.program: collections.Counter() for p in proxies}

    def ask(p, scheme, first):
        c, n = Client(p.port), first
        while not end.is_set():
            n += 2
            path = url(ASSET, scheme, 1, "t", f"{n % SEGMENTS + 1}.m4s")
            try:
                answer = c.get(path)
                got[p.program][answer.status] += 1
                if answer["connection"] == "close":  # nginx ends each after 1,000 requests
                    c.close()
                    c = Client(p.port)
            except (OSError, EOFError, ValueError) as e:
                got[p.program][repr(e)] += 1
                c.close()
                c = Client(p.port)
            time.sleep(0.002)
        c.close()

    threads = [threading.Thread(target=ask, args=(p, scheme, first)) for p in proxies for scheme in ("cbcs", "cenc") for first in (20, 21)]
    for t in threads:
        t.start()
    codes = []
    for node in nodes:
        codes.append(node.restart())
        tap.ok(until(lambda n=node: counted([n], "sluice_requests_total", 'method="other"') >= 2 * checking, 60), "checks see the node that came back")
    end.set()
    for t in threads:
        t.join()
    tap.equal(codes, [0, 0], "the nodes restart")
    for p in proxies:
        tap.ok(set(got[p.program]) == {200}, f"{p.program}: no answer is lost while the nodes restart", got[p.program])


def main():
    tap, sluice = Tap(), Sluice(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-proxies-") as work:
        work = pathlib.Path(work)
        work.chmod(0o755)
        (work / "media" / ASSET).mkdir(parents=True)
        synth.day(work / "media" / ASSET / "t.mp4", hours=1)
        keys, proxies = keys_file([ASSET], epochs=(1, 2)), []
        config = "clear: true\nmanifest_max_age: 1s\n"
        with Server(sluice.path, work / "media", "--io", "epoll", keys=keys, config=config) as one, Server(sluice.path, work / "media", keys=keys, config=config) as two:
            nodes = [one, two]
            try:
                for kind, (program, *_) in PROGRAMS.items():
                    if not shutil.which(program):
                        tap.skip(f"{program} in front", f"{program} is not here")
                        continue
                    proxies.append(Proxy(kind, work / kind, nodes))
                if not proxies:
                    tap.end()
                started = [p for p in proxies if tap.ok(p.up(), f"{p.program}: takes what the page says", (p.folder / "log").read_text()[-2000:])]
                for p in started:
                    bytes_arrive(tap, p, nodes)
                restarts(tap, started, nodes)
                tap.equal(run(sluice.path, "rotate", ASSET, "--admin", f"127.0.0.1:{one.admin_port}").code, 0, "one node is told of a rotation")
                one_is_told_of_a_rotation(tap, started, nodes)
                tap.equal(run(sluice.path, "rotate", ASSET, "--admin", f"127.0.0.1:{two.admin_port}").code, 0, "and the other")
                master = url(ASSET, "cbcs", "master.m3u8")
                time.sleep(2.1)  # what is kept of the playlist is over
                for p in started:
                    tap.ok(b"\n2/t/media.m3u8" in p.get(master).body, f"{p.program}: no playlist is given out that is over")
                time.sleep(2.1)
                tap.equal([n.stop() for n in nodes], [0, 0], "the nodes end")
                for p in started:
                    if p.kind != "haproxy":
                        tap.ok(until(lambda p=p: p.get(master).status == 200), f"{p.program}: goes on with the playlist that it has")
            finally:
                for p in proxies:
                    p.stop()
    tap.end()


if __name__ == "__main__":
    main()
