"""What bench/serve measures besides its rows: idle connections, stalled readers, whether a busy worker ever waits for a disk, the
first byte of cold media, a catalogue of a million assets, and two workers beside one. Each part returns (text, rows, claims)."""
import json, os, re, shutil, signal, socket, statistics, subprocess, sys, time
from pathlib import Path

import client, media, servers, vod

MILLION = 1_000_000
COLD = 20       # assets
ASKED = 30_000  # of the million
BUDGET = 32     # MB of each cache of the million
IDLE = 10_000   # connections
STALLED = 300   # readers
STALL_ROUNDS = 3
STEADY = 1.15   # a free request's CPU time at the end of a round to that at its begin, or the other way round
LOST = 5        # seconds: sluice's stall_timeout


def claim(name, value, bound, unit, peer=""):
    return dict(name=f"serve/{name}", value=value, bound=bound, unit=unit, holds=value <= bound, peer=peer)


def figure(name, value, unit, **more):
    """A row that is one figure, with what else is known of it."""
    return dict(name=f"serve/{name}", run_type="aggregate", aggregate_name="median", value=value, unit=unit, **more)


class Sluice:
    """A server of its own, for what the rows' servers are not set up for."""

    def __init__(self, farm, root, *lines):
        self.admin, port = ("127.0.0.1", servers.free_port()), servers.free_port()
        self.address = ("127.0.0.1", port)
        self.state = farm.run / f"state-{port}"
        self.state.mkdir()
        conf = farm.run / f"extra-{port}.yaml"
        conf.write_text("\n".join([f"listen: 127.0.0.1:{port}", f"admin: 127.0.0.1:{self.admin[1]}", f"media: {root}", f"state_dir: {self.state}",
                                   *lines]) + "\n")
        self.log = open(farm.run / f"extra-{port}.log", "w")
        begin = time.monotonic()
        self.proc = subprocess.Popen([str(farm.sluice), "serve", "-c", str(conf)], stderr=self.log, stdout=self.log)
        self.pid = self.proc.pid
        while True:
            try:
                if servers.get(self.admin, "/ready")[0] == 200:
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


def idle(farm):
    """What an idle connection costs in user memory."""
    lines, rows, claims = [], [], []
    for name in ("nginx", "sluice"):
        per = client.idle_memory(farm.get(plain(name)), IDLE)
        lines.append(f"{name}: {per:.0f} bytes of user memory per idle connection ({IDLE:,} keep-alive connections)")
        rows.append(figure(f"{name}, an idle connection", per, "bytes"))
    return lines, rows, [claim("idle connection, user bytes", per, 512, "bytes", "nginx")]


def plain(server):
    return dict(server=server, scheme="clear" if server == "nginx" else "cbcs", mode="sendfile" if server == "nginx" else "fresh", cc="bbr", tls=False, size="189K")


def sluice_unfinished(srv):
    m = servers.metrics(srv.admin)
    return m["sluice_connections"] - m["sluice_connections_idle"]


def nginx_unfinished(srv):
    """Of its "Writing" one is the answer to this question."""
    return int(re.search(rb"Writing: (\d+)", servers.get(srv.address, "/status")[2]).group(1)) - 1


def buffers(srv):
    return int(servers.metrics(srv.admin)["sluice_buffers_used"])


def rate(srv, paths, seconds):
    """(requests per second, CPU microseconds of the server for each)."""
    before = servers.process_cpu_s(srv.pid)
    r = client.wrk(srv.address, paths, 64, seconds)
    if r["errors"]:
        raise SystemExit(f"bench serve: {r['errors']} responses failed beside stalled readers")
    return r["requests"] / r["seconds"], 1e6 * (servers.process_cpu_s(srv.pid) - before) / r["requests"]


def asserted(srv, unfinished):
    """That the server has as many unfinished responses as there are stalled readers, now that the last client is gone."""
    until = time.monotonic() + 5
    while (now := unfinished(srv)) != STALLED and time.monotonic() < until:
        time.sleep(0.05)
    if now != STALLED:
        raise SystemExit(f"bench serve: {now:.0f} responses are unfinished, not {STALLED}: the readers do not stall the server")


def settled(srv):
    """Waits until a server has nothing to do: what the kernel takes of the stalled responses, megabytes of each, has been sent."""
    until, before = time.monotonic() + 20, servers.process_cpu_s(srv.pid)
    while time.monotonic() < until:
        time.sleep(0.2)
        now = servers.process_cpu_s(srv.pid)
        if now - before < 0.002:
            return
        before = now
    raise SystemExit("bench serve: a server with stalled readers only does not come to rest")


def stall_rounds(srv, paths, tracks, seconds, unfinished):
    """What rate() says [free, held, held, held for longer than the stall timeout, free], round by round; how many buffers the stalled held
    at first and after the timeout; how many rounds were thrown away, because the free requests at their two ends cost not the same."""
    rounds, held, disturbed = [], [], 0
    while len(rounds) < STALL_ROUNDS and disturbed < STALL_ROUNDS:
        first = rate(srv, paths, seconds)
        with client.Stalled(srv.address, tracks, STALLED):
            settled(srv)
            asserted(srv, unfinished)
            if srv.admin:
                held.append(buffers(srv))
            middle = [rate(srv, paths, seconds) for _ in range(2)]
            asserted(srv, unfinished)
            until = time.monotonic() + LOST + 2
            while time.monotonic() < until and (not srv.admin or buffers(srv)):
                time.sleep(0.1)
            if srv.admin:
                held.append(buffers(srv))
            late = rate(srv, paths, seconds)
            asserted(srv, unfinished)
        until = time.monotonic() + 5
        while unfinished(srv) and time.monotonic() < until:
            time.sleep(0.05)
        last = rate(srv, paths, seconds)
        if max(first[1], last[1]) > STEADY * min(first[1], last[1]):
            disturbed += 1
        else:
            rounds.append((first, *middle, late, last))
    return rounds, held, disturbed


def beside_free(rounds, which, at):
    """Of the figure `which` of rate(): the mean of the measurements `at` to that of the free ones; the median of the rounds."""
    return statistics.median(statistics.mean(r[i][which] for i in at) / statistics.mean((r[0][which], r[-1][which])) for r in rounds)


def stalled(farm, seconds):
    """What readers that ask for whole tracks and never read take from the others."""
    lines, rows, claims = [], [], []
    for name, unfinished in (("nginx", nginx_unfinished), ("sluice", sluice_unfinished)):
        row = plain(name)
        if name == "nginx":
            farm.fill_static()
            srv = farm.up["nginx, its status"] = farm.start_nginx(row["cc"], False, extra=servers.STATUS)
        else:
            srv = farm.get(row)
        tracks = [farm.path(row, a, "a.mp4") if name == "nginx" else f"/{a}/{row['scheme']}/1/a.mp4" for a in farm.files[row["size"]]]
        rounds, held, disturbed = stall_rounds(srv, farm.paths(row), tracks, max(2.0, seconds), unfinished)
        if held and not max(held):
            raise SystemExit("bench serve: the stalled readers hold no buffer of sluice: they measure nothing")
        if not rounds:
            lines.append(f"{name}: beside {STALLED} stalled readers: all of {disturbed} rounds were disturbed")
            continue
        share, cost, later, later_cost = (beside_free(rounds, which, at) for at in ((1, 2), (3,)) for which in (0, 1))
        lines.append(f"{name}: beside {STALLED} stalled readers of whole tracks, {STALLED} responses unfinished, the others get {100 * share:.1f} % of the "
                     f"requests per second without them, at {cost:.2f} times the CPU time; after {LOST} s {100 * later:.1f} %, {later_cost:.2f} times "
                     f"(medians of {len(rounds)} rounds, {disturbed} thrown away)"
                     + (f"; the stalled held {max(held)} buffers, after the stall timeout {min(held)}" if held else ""))
        what = f"{name}, {STALLED} stalled readers"
        for suffix, lost, times, more in (("", 1 - share, cost, dict(rounds=rounds, buffers=held)), (f", after {LOST} s", 1 - later, later_cost, {})):
            rows += [figure(f"{what}{suffix}: loss to the others", lost, "ratio", **more), figure(f"{what}{suffix}: CPU time of the others' requests", times, "ratio")]
        if name == "sluice":
            claims.append(claim(f"{STALLED} stalled readers, loss to the others", 1 - share, 0.05, "ratio", "nginx"))
    return lines, rows, claims


WAITS = ("read", "pread64", "readv", "preadv", "preadv2", "open", "openat", "openat2", "fstat", "newfstatat", "statx", "fsync", "futex wait", "nanosleep",
         "clock_nanosleep")
DELAYS = Path("/proc/sys/kernel/task_delayacct")


class DelaysCounted:
    """The kernel counts what tasks wait for a disk: those that begin from now on, until the setting is put back."""

    def __enter__(self):
        self.before = DELAYS.read_text().strip() if DELAYS.exists() else None
        if self.before == "0":
            DELAYS.write_text("1")
        return self.before is not None

    def __exit__(self, *_):
        if self.before == "0":
            DELAYS.write_text(self.before)


def waits(task):
    """(read calls, bytes from disk, major faults, ticks waiting for a disk) of a thread."""
    io = dict(x.split(": ") for x in (task / "io").read_text().splitlines())
    stat = (task / "stat").read_text().rpartition(")")[2].split()
    return int(io["syscr"]), int(io["read_bytes"]), int(stat[9]), int(stat[39])


def worker(pid):
    """The thread of a server with one worker."""
    found = [t for t in Path(f"/proc/{pid}/task").iterdir() if (t / "comm").read_text().startswith("worker")]
    if len(found) != 1:
        raise SystemExit(f"bench serve: {len(found)} threads are workers of a server with one")
    return found[0]


READS_COLD = """
import os, sys
for path in sys.argv[1:]:
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    while os.read(fd, 4096):
        pass
print(open("/proc/self/stat").read().rpartition(")")[2].split()[39])
"""


def control(farm):
    """Ticks that a process waited which read the media from the disk: whether the kernel counts at all."""
    files = [farm.work / "media" / a / "a.mp4" for a in farm.files["189K"]]
    return int(subprocess.run([sys.executable, "-c", READS_COLD, *map(str, files)], check=True, capture_output=True, text=True).stdout)


def calls_of(trace):
    """{system call: how often} of strace's lines; a futex by what is done with it."""
    calls = {}
    for name, rest in re.findall(r"^(\w+)\((.*)", trace, re.M):
        if name == "futex":
            name += " wait" if re.search(r"FUTEX_(WAIT|LOCK_PI)", rest) else " wake"
        calls[name] = calls.get(name, 0) + 1
    return calls


def traced(farm, task, load):
    """(calls_of() a thread during load(), or None; why not)."""
    if not shutil.which("strace"):
        return None, "strace is not installed"
    out = farm.run / "strace"
    p = subprocess.Popen(["strace", "-s", "0", "-o", str(out), "-p", task.name], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        load()
    finally:
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=10)[1]
    calls = calls_of(out.read_text()) if out.exists() else {}
    return (calls, "") if calls else (None, f"strace says: {said.strip()[-200:]}")


def worker_at_load(farm, seconds, io):
    """(requests, waits() meanwhile, what traced() gives) of a worker at full load with everything in RAM."""
    row = plain("sluice")
    with Sluice(farm, farm.work / "media", "workers: 1", "cpu_affinity: [0]", f"keys: {farm.keys}", "cache_encrypted: off", f"io: {io}") as srv:
        paths, task = farm.paths(row), worker(srv.pid)
        for _ in range(2):
            client.wrk(srv.address, paths, 64, seconds)  # now all of it is in RAM
        before = waits(task)
        res = client.wrk(srv.address, paths, 64, seconds)
        moved = [b - a for a, b in zip(before, waits(task))]
        return res["requests"], moved, traced(farm, task, lambda: client.wrk(srv.address, paths, 64, 1))


def disk_waits(farm, seconds):
    """What a worker at full load reads, faults in or waits for, and which system calls it makes. The kernel takes waiting in io_uring, for
    sockets too, for waiting for a disk: the ticks are those of a worker that waits in epoll."""
    with DelaysCounted() as counted:
        control_ticks = control(farm) if counted else 0
        requests, (reads, disk, faults, _), (calls, why) = worker_at_load(farm, seconds, "auto")
        ticks = worker_at_load(farm, seconds, "epoll")[1][3] if control_ticks else None
    lines = [f"{requests} requests: the worker made {reads} read calls, read {disk} bytes from disk, took {faults} major faults"]
    figures = [("read calls", reads), ("bytes from disk", disk), ("major faults", faults)]
    if ticks is None:
        lines.append("whether it waits for a disk is not known: " + ("a process that read the media from the disk waited no tick" if counted else
                                                                     "this kernel does not count that"))
    else:
        lines.append(f"with io: epoll the worker waited {ticks} ticks for a disk; a process that read the media from the disk {control_ticks}")
        figures.append(("ticks waiting for a disk", ticks))
    rows = [figure(f"a worker at full load: {what}", n, "events", requests=requests) for what, n in figures]
    claims = [claim("a worker at full load: " + ", ".join(what for what, _ in figures), sum(n for _, n in figures), 0, "events")]
    if calls is None:
        lines.append(f"no trace of the worker's system calls: {why}")
    else:
        lines.append("its system calls in a second at full load, under strace: " + ", ".join(f"{k} {n}" for k, n in sorted(calls.items(), key=lambda x: -x[1])))
        found = sum(n for k, n in calls.items() if k in WAITS)
        rows.append(figure("a worker at full load: system calls that can wait", found, "calls", calls=calls))
        claims.append(claim("a worker at full load: calls of read, open, stat, sleep, futex wait", found, 0, "calls"))
    return lines, rows, claims


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
    lines, rows = [], []

    def ask(name, c, paths):
        """Asks for the paths, each after its files are dropped."""
        times, whole = [], []
        for files, path in paths:
            for p in files:
                drop(p)
            times.append(c.get(path))
            whole.append(c.whole)
        lines.append(f"first byte, cold, {name}: {statistics.median(times):.0f} us (worst {max(times):.0f})"
                     + (f", whole response {statistics.median(whole):.0f} us" if farm.vod else ""))
        rows.append(figure(f"first byte, cold: {name}", statistics.median(times), "us", worst=max(times), whole_us=statistics.median(whole), times_us=times))

    for kind, name in (("with", "with a sidecar"), ("without", "without a sidecar")):
        with Sluice(farm, root / kind, "workers: 1", "write_sidecars: false") as srv:
            ask(f"sluice cbcs, {name}", Connection(srv.address), [((root / kind / str(i)).iterdir(), f"/{i}/cbcs/1/a/50.m4s") for i in range(COLD)])
    nginx, asset = farm.get(plain("nginx")), farm.files["189K"][0]
    ask("nginx, clear file", Connection(nginx.address), [([farm.root / "cbcs" / asset / f"{n}.m4s"], f"/cbcs/{asset}/{n}.m4s") for n in range(20, 20 + COLD)])
    if farm.vod:  # sends its head before it reads the segment: hence the whole response beside the first byte
        c = Connection(farm.vod.server("bbr").address)
        c.get(vod.path("cbcs", "189K", asset, 1))  # has the key from now on
        ask("nginx-vod cbcs, a file it does not know", c, farm.vod.cold(COLD))
    return lines, rows, []


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
    roomy = ("workers: 1", "index_size: 1G", "revalidate: 1h")
    with Sluice(farm, root, *roomy) as one, Sluice(farm, root, *roomy) as other:
        among_few, among_many = Connection(one.address), Connection(other.address)
        ask_all(among_many)
        turns = [(asked_again(among_few), asked_again(among_many)) for _ in range(5)]
    few, many = (statistics.median(x) for x in zip(*turns))
    with Sluice(farm, root, "workers: 1", f"cache_size: {BUDGET}M", f"index_size: {BUDGET}M", "revalidate: 1h") as srv:
        c, base = Connection(srv.address), srv.rss()
        first = ask_all(c)
        grown = srv.rss() - base
        entries = json.loads(servers.get(srv.admin, "/status")[2])["catalogue"]["entries"]
    text = (f"1,000,000 assets: ready after {srv.ready_s:.3f} s; {ASKED} different ones asked for: {statistics.median(first):.0f} us each the first time; "
            f"{grown / 1e6:.0f} MB more resident, of {2 * BUDGET} MiB allowed, {entries} still open; with room for all, a known name takes {few:.1f} us among 600 and "
            f"{many:.1f} us among {ASKED}")
    rows = [figure("1,000,000 assets: start to ready", srv.ready_s, "s"), figure("1,000,000 assets: first request of one", statistics.median(first), "us"),
            figure("1,000,000 assets: resident memory gained", grown / 1e6, "MB", entries=entries),
            figure("1,000,000 assets: a known name among 600", few, "us"), figure(f"1,000,000 assets: a known name among {ASKED:,}", many, "us")]
    return [text], rows, [claim("1,000,000 assets: start", srv.ready_s, 2, "s"),
                  claim("1,000,000 assets: memory to its bound", grown / (2 * BUDGET << 20), 1, "ratio"),
                  claim("1,000,000 assets: a known name among 30,000 open to one among 600", statistics.median(b / a for a, b in turns), 1.5, "ratio")]


def scaling(farm, seconds):
    """CPU-s/GB of two workers to that of one; clients share both cores, so throughput says nothing."""
    if os.cpu_count() < 2:
        return ["two workers: one core here"], [], []
    row, cost = plain("sluice"), {1: [], 2: []}
    for turn in range(3):
        for workers in (1, 2):
            with Sluice(farm, farm.work / "media", f"workers: {workers}", f"keys: {farm.keys}", "cache_encrypted: off") as srv:
                client.wrk(srv.address, farm.paths(row), 64, 1)
                before = servers.process_cpu_s(srv.pid)
                res = client.wrk(srv.address, farm.paths(row), 64, seconds)
                cost[workers].append((servers.process_cpu_s(srv.pid) - before) / (res["bytes"] / 1e9))
    one, two = statistics.median(cost[1]), statistics.median(cost[2])
    ratio = statistics.median(b / a for a, b in zip(cost[1], cost[2]))
    rows = [figure("one worker, cbcs 189K", one, "CPU-s/GB", rounds=cost[1]), figure("two workers, cbcs 189K", two, "CPU-s/GB", rounds=cost[2]),
            figure("two workers beside one, cbcs 189K", ratio, "ratio")]
    return [f"two workers: {two:.3f} CPU-s/GB, one: {one:.3f} ({ratio:.2f})"], rows, []


PARTS = {"idle": lambda farm, seconds: idle(farm), "stalled": stalled, "disk-waits": disk_waits, "cold": lambda farm, seconds: cold(farm),
         "million": lambda farm, seconds: million(farm), "two-workers": scaling}


def all_of_them(farm, seconds, wanted):
    """The parts whose name the regular expression `wanted` finds."""
    lines, rows, claims = [], [], []
    for name, part in PARTS.items():
        if re.search(wanted, name):
            for mine, its in zip((lines, rows, claims), part(farm, seconds)):
                mine += its
    return dict(text=lines, rows=rows, claims=claims)
