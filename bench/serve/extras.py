"""What bench/serve measures besides its rows: whether a busy worker ever waits for a disk, the first byte of cold media, a
catalogue of a million assets, and two workers beside one."""
import json, os, shutil, signal, socket, statistics, subprocess, time
from pathlib import Path

import client, media, servers, vod

MILLION = 1_000_000
COLD = 20       # assets
ASKED = 30_000  # of the million
BUDGET = 32     # MB of each cache of the million


def claim(name, value, bound, unit, peer=""):
    return dict(name=f"serve/{name}", value=value, bound=bound, unit=unit, holds=value <= bound, peer=peer)


class Sluice:
    """A server of its own, for what the rows' servers are not set up for."""

    def __init__(self, farm, root, *lines):
        self.admin, port = servers.free_port(), servers.free_port()
        self.address = ("127.0.0.1", port)
        self.state = farm.run / f"state-{port}"
        self.state.mkdir()
        conf = farm.run / f"extra-{port}.yaml"
        conf.write_text("\n".join([f"listen: 127.0.0.1:{port}", f"admin: 127.0.0.1:{self.admin}", f"media: {root}", f"state_dir: {self.state}",
                                   *lines]) + "\n")
        self.log = open(farm.run / f"extra-{port}.log", "w")
        begin = time.monotonic()
        self.proc = subprocess.Popen([str(farm.sluice), "serve", "-c", str(conf)], stderr=self.log, stdout=self.log)
        self.pid = self.proc.pid
        while True:
            try:
                if servers.get(("127.0.0.1", self.admin), "/ready")[0] == 200:
                    break
            except OSError:
                pass
            if self.proc.poll() is not None or time.monotonic() - begin > 60:
                raise SystemExit(f"bench serve: sluice does not get ready: see {self.log.name}")
            time.sleep(0.002)
        self.ready_s = time.monotonic() - begin

    def rss(self):
        return int(next(x.split()[1] for x in open(f"/proc/{self.pid}/status") if x.startswith("VmRSS"))) * 1024

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.proc.send_signal(signal.SIGTERM)
        self.proc.wait(15)


class Connection:
    """One keep-alive connection that times first bytes."""

    def __init__(self, address):
        self.s = socket.create_connection(address, 10)
        self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, path):
        """Microseconds from the request to the first byte of a whole 200; `whole` are those to its last."""
        begin = time.perf_counter()
        self.s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        data = self.s.recv(1 << 18)
        first = (time.perf_counter() - begin) * 1e6
        while b"\r\n\r\n" not in data:
            data += self.s.recv(1 << 18)
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"bench serve: {path}: {head[:60]!r}")
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
        while left:
            left -= len(self.s.recv(1 << 18))
        self.whole = (time.perf_counter() - begin) * 1e6
        return first


def worker_waits(pid):
    """{worker thread: (read calls, bytes from disk, major faults, ticks waiting for a disk)}"""
    out = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        if not (task / "comm").read_text().startswith("worker"):
            continue
        io = dict(x.split(": ") for x in (task / "io").read_text().splitlines())
        stat = (task / "stat").read_text().rpartition(")")[2].split()
        out[task.name] = (int(io["syscr"]), int(io["read_bytes"]), int(stat[9]), int(stat[39]))
    return out


def disk_waits(farm, seconds):
    """A worker at full load with everything in RAM: what it reads, faults in or waits for."""
    row = dict(server="sluice", scheme="cbcs", mode="fresh", cc="bbr", tls=False, size="189K")
    srv, paths = farm.get(row), farm.paths(row)
    client.wrk(srv.address, paths, 64, seconds)  # now all of it is in RAM
    before = worker_waits(srv.pid)
    res = client.wrk(srv.address, paths, 64, seconds)
    moved = [b - a for t, v in worker_waits(srv.pid).items() for a, b in zip(before[t], v)]
    text = f"{res['requests']} requests: the worker made {moved[0]} read calls, read {moved[1]} bytes from disk, took {moved[2]} major faults, waited {moved[3]} ticks for a disk"
    return text, [claim("a worker at full load: reads, disk bytes, major faults, disk waits", sum(moved), 0, "events")]


def drop(path):
    """Takes a file out of the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def cold(farm):
    """First byte of a segment nobody asked for before, its file (and sidecar) not in the page cache."""
    root = farm.work / "cold"
    source = farm.work / "media" / farm.files["189K"][0] / "a.mp4"
    for kind in ("with", "without"):
        for i in range(COLD):
            p = root / kind / str(i) / "a.mp4"
            if not p.exists():
                p.parent.mkdir(parents=True)
                shutil.copyfile(source, p)
    subprocess.run([str(farm.sluice), "index", str(root / "with")], check=True, stdout=subprocess.DEVNULL)
    text = []

    def ask(name, c, paths):
        """Asks for the paths, each after its files are dropped."""
        times, whole = [], []
        for files, path in paths:
            for p in files:
                drop(p)
            times.append(c.get(path))
            whole.append(c.whole)
        text.append(f"{name}: {statistics.median(times):.0f} us (worst {max(times):.0f})"
                    + (f", whole response {statistics.median(whole):.0f} us" if farm.vod else ""))

    for kind, name in (("with", "with a sidecar"), ("without", "without a sidecar")):
        with Sluice(farm, root / kind, "workers: 1", "write_sidecars: false") as srv:
            ask(f"sluice cbcs, {name}", Connection(srv.address), [((root / kind / str(i)).iterdir(), f"/{i}/cbcs/1/a/50.m4s") for i in range(COLD)])
    nginx, asset = farm.get(dict(server="nginx", cc="bbr", tls=False)), farm.files["189K"][0]
    ask("nginx, clear file", Connection(nginx.address), [([farm.root / asset / f"{n}.m4s"], f"/{asset}/{n}.m4s") for n in range(20, 20 + COLD)])
    if farm.vod:  # sends its head before it reads the segment: hence the whole response beside the first byte
        c = Connection(farm.vod.server("bbr").address)
        c.get(vod.path("cbcs", "189K", asset, 1))  # has the key from now on
        ask("nginx-vod cbcs, a file it does not know", c, farm.vod.cold(COLD))
    return "first byte, cold:\n  " + "\n  ".join(text), []


def million(farm):
    """1,000,000 assets: names in folders of a thousand, over a few real files."""
    root = farm.work / "million"
    if not (root / ".made").exists():
        for size, assets in farm.files.items():
            (root / "real" / size).mkdir(parents=True, exist_ok=True)
            whole = farm.work / "media" / assets[0] / "a.mp4"  # its first three fragments: indexes of songs, not of hours
            (root / "real" / size / "a.mp4").write_bytes(whole.read_bytes()[:media.fragments(whole)[3][0]])
        sizes = list(farm.files)
        for d in range(1000):
            (root / f"{d:03}").mkdir(exist_ok=True)
            for n in range(MILLION // 1000):
                try:
                    os.symlink(f"../real/{sizes[n % len(sizes)]}", root / f"{d:03}" / f"{n:03}")
                except FileExistsError:
                    pass
        subprocess.run([str(farm.sluice), "index", str(root / "real")], check=True, stdout=subprocess.DEVNULL)
        (root / ".made").touch()
    path = "/{:03}/{:03}/cbcs/1/a/init.mp4"
    def ask_all(c):
        return [c.get(path.format(n % 1000, n * 7919 // 1000 % 1000)) for n in range(ASKED)]

    def asked_again(c):
        names = [path.format(n % 7, n % 89) for n in range(600)]
        for p in names:
            c.get(p)
        return statistics.median(c.get(p) for p in names * 4)

    # Room for all of them: what a lookup costs among few and among many. Without, a name may have been evicted meanwhile.
    with Sluice(farm, root, "workers: 1", "index_size: 1G", "revalidate: 1h") as srv:
        c = Connection(srv.address)
        few = asked_again(c)
        ask_all(c)
        many = asked_again(c)
    with Sluice(farm, root, "workers: 1", f"cache_size: {BUDGET}M", f"index_size: {BUDGET}M", "revalidate: 1h") as srv:
        c, base = Connection(srv.address), srv.rss()
        first = ask_all(c)
        grown = srv.rss() - base
        entries = json.loads(servers.get(("127.0.0.1", srv.admin), "/status")[2])["catalogue"]["entries"]
    text = (f"1,000,000 assets: ready after {srv.ready_s:.3f} s; {ASKED} different ones asked for: {statistics.median(first):.0f} us each the first time; "
            f"{grown / 1e6:.0f} MB more resident, of {2 * BUDGET} MiB allowed, {entries} still open; with room for all, a known name takes {few:.1f} us among 600 and "
            f"{many:.1f} us among {ASKED}")
    return text, [claim("1,000,000 assets: start", srv.ready_s, 2, "s"),
                  claim("1,000,000 assets: memory to its bound", grown / (2 * BUDGET << 20), 1, "ratio"),
                  claim("1,000,000 assets: a known name among 30,000 open to one among 600", many / few, 1.5, "ratio")]


def scaling(farm, seconds):
    """CPU-s/GB of two workers to that of one; clients share both cores, so throughput says nothing."""
    if os.cpu_count() < 2:
        return "two workers: one core here", []
    row = dict(server="sluice", scheme="cbcs", size="189K")
    cost = {}
    for turn in range(3):
        for workers in (1, 2):
            with Sluice(farm, farm.work / "media", f"workers: {workers}", f"keys: {farm.keys}", "cache_encrypted: off") as srv:
                client.wrk(srv.address, farm.paths(row), 64, 1)
                before = servers.process_cpu_s(srv.pid)
                res = client.wrk(srv.address, farm.paths(row), 64, seconds)
                cost.setdefault(workers, []).append((servers.process_cpu_s(srv.pid) - before) / (res["bytes"] / 1e9))
    one, two = statistics.median(cost[1]), statistics.median(cost[2])
    return f"two workers: {two:.3f} CPU-s/GB, one: {one:.3f} ({two / one:.2f})", []


def all_of_them(farm, seconds):
    text, claims = [], []
    for part in (lambda: disk_waits(farm, seconds), lambda: cold(farm), lambda: million(farm), lambda: scaling(farm, seconds)):
        t, c = part()
        text.append(t)
        claims += c
    return "\n".join(text), claims
