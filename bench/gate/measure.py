"""What is measured, and how. A group is a program with its metrics; `sample` runs it once for each side, next to each other and
in random order, every time in a new process: address layout differs from process to process, and only then averages out.

CPU time wherever there is a choice: it holds on a machine that does other things, wall time does not. A sample during which
other programs had more than DISTURBED of the core is thrown away and taken again, at most RETRIES times."""
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import synthetic
from trees import Refused

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "serve"))
import client  # noqa: E402
import servers  # noqa: E402

DISTURBED, RETRIES = 0.15, 2
SERVER_CORE, CLIENT_CORE = 0, 1


@dataclass(frozen=True)
class Row:
    """A metric: lower is better, `bound` is how much more HEAD may cost."""
    name: str
    what: str  # the benchmark's own name for it
    bound: float
    unit: str
    quick: bool = True


def pinned(core, command):
    return ["taskset", "-c", str(core), *map(str, command)]


def core_seconds(core):
    return servers.core_busy_s(core), time.monotonic()


class Disturbance:
    """How much of a core went to others while a sample was taken."""

    def __init__(self, core):
        self.core, (self.busy, self.wall) = core, core_seconds(core)

    def share(self, own_cpu_s):
        busy, wall = core_seconds(self.core)
        # /proc/stat counts in ticks: two of them either way say nothing
        return max(0.0, busy - self.busy - own_cpu_s - 0.02) / max(wall - self.wall, 1e-9)


class Group:
    """Base: `rows`, and `one(side, rows)`, which returns ({metric: value}, CPU seconds used). A sample is the best of TURNS
    processes a side: what disturbs only adds."""
    name, program = "", "sluice"
    TURNS = 3

    def __init__(self, rows, quick):
        self.rows = [r for r in rows if r.quick or not quick]
        self.taken = self.discarded = 0

    def sample(self, sides, names, rng):
        """{side: {metric: value}} of the metrics `names`."""
        rows = [r for r in self.rows if r.name in names]
        out = {side: {} for side in sides}
        for _ in range(self.TURNS):
            for side in rng.sample(list(sides), len(sides)):
                for name, value in self.undisturbed(lambda: self.one(sides[side], rows)).items():
                    out[side][name] = min(value, out[side].get(name, value))
        return out

    def undisturbed(self, take):
        """take() returns (what was measured, CPU seconds used)."""
        for _ in range(RETRIES + 1):
            watch = Disturbance(SERVER_CORE)
            found, cpu = take()
            self.taken += 1
            if watch.share(cpu) <= DISTURBED:
                break
            self.discarded += 1
        return found

    def close(self):
        pass


def google_benchmark(command, key, of=min):
    """{benchmark name: `of` its repetitions}, and the CPU seconds of the process."""
    before = os.times()
    r = subprocess.run(pinned(SERVER_CORE, [*command, "--benchmark_format=json"]), capture_output=True, text=True)
    after = os.times()
    if r.returncode:
        raise Refused(f"{command[0]} failed: {r.stderr[-500:]}")
    out = {}
    for b in json.loads(r.stdout)["benchmarks"]:
        if b.get("run_type") != "aggregate":
            name = b["run_name"].split("/iterations:")[0]
            out.setdefault(name, []).append(b[key])
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {name: of(values) for name, values in out.items()}, cpu


def names_pattern(rows):
    return "^(" + "|".join(re.escape(r.what).replace("\\-", "-") for r in rows) + ")(/iterations|$)"


class Kernels(Group):
    """bench/kernels: cycles a byte, so that the clock's changes do not show. The clock is measured and sometimes wrong, hence the
    median of a process; where its buffers lie makes some processes slower, hence the best of several."""
    name, program = "kernels", "kernels"
    TURNS, REPETITIONS = 3, 3
    BEST = ("vaes512", "vaes256", "aesni-vex", "aesni")

    def __init__(self, sides, quick):
        r = subprocess.run([sides["base"].program("kernels"), "--benchmark_list_tests"], capture_output=True, text=True)
        chosen = re.search(r"^cbc/const1024/([^/]+)/", r.stdout, re.M)  # by the program
        best = chosen[1] if chosen else next((k for k in self.BEST if f"cbc/A/{k}/" in r.stdout), None)
        rows = []
        for kernel in filter(None, dict.fromkeys((best, "aesni", *self.BEST))):
            first = kernel in (best, "aesni")  # the others are what other processors choose
            for op, shape in (("cbc", "A"), ("ctr", "A")) + ((("cbc", "B"), ("cbc", "C"), ("ctr", "C"), ("cbc-decrypt", "A")) if first else ()):
                if f"{op}/{shape}/{kernel}/" in r.stdout:
                    quick = first and shape == "A" and op != "cbc-decrypt"
                    rows.append(Row(f"kernel {op}/{shape} {kernel}", f"{op}/{shape}/{kernel}", 0.02, "cycles/byte", quick=quick))
        super().__init__(rows, quick)

    def one(self, side, rows):
        found, cpu = google_benchmark([side.program("kernels"), f"--rounds={self.REPETITIONS}", f"--benchmark_filter={names_pattern(rows)}"], "cycles/byte",
                                      statistics.median)
        return {r.name: found[r.what] for r in rows if r.what in found}, cpu


class Core(Group):
    """bench/core: CPU nanoseconds of one call, the best of a few interleaved repetitions."""
    name, program = "core", "core"
    TURNS, REPETITIONS, MIN_SECONDS = 2, 5, 0.005

    def __init__(self, sides, quick):
        rows = [Row(name, what, 0.02, "ns", quick) for name, what, quick in (
            ("index a track", "index_build/128k_30min", True), ("open an index", "index_open/128k_30min", True),
            ("plan", "plan_init/128k_30min", True), ("tag", "plan_tag/128k_30min", False),
            ("render clear 32K", "render/clear/32K/hot", False), ("render cbcs 32K", "render/cbcs/32K/hot", True),
            ("render cenc 32K", "render/cenc/32K/hot", True), ("render cbcs 189K", "render/cbcs/189K/hot", True),
            ("render cenc 189K", "render/cenc/189K/hot", True), ("render cbcs 189K, cold", "render/cbcs/189K/cold", False),
            ("render cenc 32K, cold", "render/cenc/32K/cold", False), ("render a range", "range/cbcs/1000", False))]
        super().__init__(rows, quick)

    def one(self, side, rows):
        found, cpu = google_benchmark([side.program("core"), f"--benchmark_filter={names_pattern(rows)}", f"--benchmark_min_time={self.MIN_SECONDS}",
                                       f"--benchmark_repetitions={self.REPETITIONS}", "--benchmark_enable_random_interleaving=true"], "cpu_time")
        return {r.name: found[r.what] for r in rows if r.what in found}, cpu


class Serve(Group):
    """`sluice serve` with one worker on core 0, the client on core 1. New servers in every round; the slices of load take turns
    between the sides. First, while everything is cold, the spike; last, in the same servers, idle connections. Servers that keep
    what they encrypted (`hot`) come after those that do not."""
    name = "serve"
    SLICES, SECONDS, CONNECTIONS = 4, 0.11, 64
    SPIKE_RATE, SPIKE_SECONDS = 15000, 0.5
    IDLE_CONNECTIONS = 2000
    HOT_PATHS = 64  # few enough to be in the cache, many enough to be no single one

    @staticmethod
    def metrics():
        rows = [Row(f"serve {what.replace('/', ' ')}", what, 0.02, "CPU-s/GB", quick) for what, quick in (
            ("cbcs/189K", True), ("cenc/32K", True), ("cenc/189K", False), ("cbcs/32K", False), ("clear/32K", False),
            ("cbcs/189K/tls", True), ("cbcs/32K/tls", False), ("cenc/32K/hot", True), ("cbcs/189K/hot", False))]
        return rows + [Row("spike p99", "p99", 0.25, "us"), Row("spike p50", "p50", 0.15, "us", False), Row("memory per connection", "idle", 0.05, "bytes")]

    def __init__(self, sides, quick, work):
        super().__init__(self.metrics(), quick)
        self.work = Path(work)
        self.segments = synthetic.make(self.work / "media")
        self.load = sides["head"].program("sluice")  # one generator for all sides
        self.spike = self.work / "spike.yaml"
        self.spike.write_text(f"name: spike\nmode: rate\nrate: {self.SPIKE_RATE}\nseconds: {self.SPIKE_SECONDS}\nconnections: 256\n"
                              "catalogue: { assets: [gate/32K/0] }\nlevel: { lag_p99_ms: 1000 }\n")
        self.cert, self.key = self.work / "cert.pem", self.work / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj",
                        "/CN=localhost", "-keyout", str(self.key), "-out", str(self.cert)], check=True, capture_output=True)
        self.running = {}

    def paths(self, what):
        scheme, size, *how = what.split("/")
        segments = self.segments[size][:self.HOT_PATHS] if "hot" in how else self.segments[size]
        return [f"/{asset}/{scheme}/1/a/{n}.m4s" for asset, n in segments]

    def start(self, side, hot=False):
        folder = self.work / f"state-{side.name}"
        folder.mkdir(exist_ok=True)
        port, tls, admin = servers.free_port(), servers.free_port(), servers.free_port()
        conf = folder / "sluice.yaml"
        conf.write_text("\n".join([f"listen: 127.0.0.1:{port}", f"tls_listen: 127.0.0.1:{tls}", f"tls_certificate: {self.cert}", f"tls_key: {self.key}",
                                   f"admin: 127.0.0.1:{admin}", f"media: {self.work / 'media'}", "workers: 1", f"cpu_affinity: [{SERVER_CORE}]",
                                   "congestion_control: cubic", "clear: true", f"cache_encrypted: {'on' if hot else 'off'}", "write_sidecars: false",
                                   f"state_dir: {folder}"]) + "\n")
        log = open(folder / "log", "w")
        p = subprocess.Popen([str(side.program("sluice")), "serve", "-c", str(conf)], stdout=log, stderr=log)
        self.running[side.name] = p
        try:
            servers.wait_port(port, p, f"{side.name}, sluice serve")
        except SystemExit:
            raise Refused(f"{side.name.upper()}'s server does not start:\n{(folder / 'log').read_text()[-800:]}") from None

        def stop():
            p.send_signal(signal.SIGTERM)
            try:
                p.wait(10)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
            del self.running[side.name]
        server = servers.Server(p, p.pid, ("127.0.0.1", port), stop)
        server.admin, server.tls = ("127.0.0.1", admin), ("127.0.0.1", tls)
        return server

    def sample(self, sides, names, rng):
        rows = [r for r in self.rows if r.name in names]
        out = {name: {} for name in sides}
        hot = [r for r in rows if r.what.endswith("/hot")]
        for kind in (False, True):
            wanted = [r for r in rows if (r in hot) == kind]
            if wanted:
                up = {}
                try:
                    for name in sides:
                        up[name] = self.start(sides[name], kind)
                    self.sample_servers(up, wanted, out, rng)
                finally:
                    for server in up.values():
                        server.stop()
        return out

    def sample_servers(self, up, rows, out, rng):
        """Adds to `out` what `rows` ask of the servers `up`, one a side."""
        spikes, idle = [r for r in rows if r.what in ("p50", "p99")], [r for r in rows if r.what == "idle"]
        for name in rng.sample(list(up), len(up)) if spikes else []:
            found = self.one_spike(up[name])
            out[name].update({r.name: found[r.what] for r in spikes})
        for row in [r for r in rows if "/" in r.what]:
            for name, value in self.cpu_per_gb(up, row, rng).items():
                out[name][row.name] = value
        for row in idle:
            for name in rng.sample(list(up), len(up)):
                out[name][row.name] = max(client.idle_memory(up[name], self.IDLE_CONNECTIONS, 100, 0.05), 1)

    def cpu_per_gb(self, up, row, rng):
        """The sides take turns in short slices. A machine shared with others drifts within seconds, so what counts is a side's
        share of its turn, and the median over the turns."""
        paths, turns, clients = self.paths(row.what), [], {}
        try:
            for name in up:
                warm(up[name].address, paths[:: max(1, len(paths) // 8)])
                tls = row.what.endswith("/tls")
                clients[name] = Wrk(up[name].tls if tls else up[name].address, paths, self.CONNECTIONS, "https" if tls else "http")
            for turn in range(self.SLICES + 1):
                taken = {name: self.slice_of(up[name], clients[name]) for name in rng.sample(list(up), len(up))}
                if turn:  # the first fills caches
                    turns.append(taken)
        finally:
            for c in clients.values():
                c.end()
        return of_turns(turns)

    def slice_of(self, server, wrk):
        """CPU seconds per GB of one slice; bytes as the server counts them."""
        wrk.go_on()
        cpu, sent = server.cpu_s(), sent_bytes(server)
        time.sleep(self.SECONDS)
        used, sent = server.cpu_s() - cpu, sent_bytes(server) - sent
        wrk.pause()
        if sent <= 0:
            raise Refused(f"a server sent nothing to wrk: {wrk.end()}")
        return 1e9 * used / sent

    def one_spike(self, server):
        paths, report = self.work / "paths", self.work / "spike.json"
        paths.write_text("".join(p + "\n" for p in self.paths("cbcs/32K")))
        report.unlink(missing_ok=True)
        r = subprocess.run(pinned(CLIENT_CORE, [self.load, "load", self.spike, "--target", "http://%s:%d" % server.address, "--paths", paths,
                                                "--json", report]), capture_output=True, text=True)
        if not report.exists():
            raise Refused(f"sluice load failed: {(r.stderr or r.stdout)[-500:]}")
        found = json.loads(report.read_text())
        if found["totals"]["errors"]:
            raise Refused(f"the spike met {found['totals']['errors']} errors: {found['totals']['errors_by_kind']}")
        at = dict(found["latency"]["percentiles_us"])
        return {"p50": max(at[50.0], 1), "p99": max(at[99.0], 1)}

    def close(self):
        for p in list(self.running.values()):
            p.kill()
            p.wait()


def of_turns(turns):
    """{side: value} from a list of {side: value}: medians of the shares of a turn, at the level of all turns."""
    level = [statistics.fmean(math.log(v) for v in turn.values()) for turn in turns]
    return {side: math.exp(statistics.fmean(level) + statistics.median(math.log(turn[side]) - at for turn, at in zip(turns, level)))
            for side in turns[0]}


def warm(address, paths):
    """Opens the tracks: the first request of each reads its file."""
    for path in paths:
        status = servers.get(address, path)[0]
        if status != 200:
            raise Refused(f"the server answers {status} to {path}")


def sent_bytes(server):
    text = servers.get(server.admin, "/metrics")[2].decode()
    return int(re.search(r"^sluice_sent_bytes_total(?:{[^}]*})? (\d+)", text, re.M).group(1))


class Wrk:
    """A client that stands still between its slices, so that starting and connecting are not measured."""

    def __init__(self, address, paths, connections, scheme="http"):
        self.script = tempfile.NamedTemporaryFile("w", suffix=".lua")
        self.script.write(client.LUA % ",".join(json.dumps(p) for p in paths))
        self.script.flush()
        self.p = subprocess.Popen(pinned(CLIENT_CORE, ["wrk", "-t1", f"-c{connections}", "-d60s", "--timeout", "60s", "-s", self.script.name,
                                                       "%s://%s:%d/" % (scheme, *address)]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(0.02)
        self.pause()

    def go_on(self):
        self.p.send_signal(signal.SIGCONT)

    def pause(self):
        self.p.send_signal(signal.SIGSTOP)

    def end(self):
        """Ends it, and refuses what it measured when responses failed."""
        if self.script.closed:
            return ""
        self.go_on()  # first: a stopped process may hand the interrupt to a thread that does not sleep
        time.sleep(0.01)
        self.p.send_signal(signal.SIGINT)
        try:
            text, err = self.p.communicate(timeout=20)
        finally:
            self.p.kill()
            self.script.close()
        line = next((x for x in text.splitlines() if x.startswith("RESULT ")), None)
        if not line:
            raise Refused(f"wrk said: {text[-300:]} {err[-300:]}")
        if json.loads(line[7:])["errors"]:
            raise Refused(f"responses failed: wrk says {line[7:]}")
        return line
