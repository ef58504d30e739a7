#!/usr/bin/env python3
"""Honest time: stalls of the server, of the generator, and servers that never answer: timing.py SLUICE"""
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.disturbed import undisturbed  # noqa: E402
from judge.listening import Listening  # noqa: E402
from judge.load import Load, children, hdr_log, keys_text, media, under_way  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

STALL_S, RATE, FEW = 2, 400, 50
SCENARIO = f"""name: timing
seed: 2
mode: rate
rate: {RATE}
seconds: 4s
drain: 5s
connections: 16
catalogue: {{ assets: [one] }}
scheme: cenc
level: {{ lag_p99_ms: 400 }}
"""
LISTENERS = """name: listeners
seed: 2
arrivals: [{ for: 500ms, rate: 60 }]
drain: 500ms
catalogue: { assets: [one] }
scheme: cenc
player: { ahead: 1, tracks: 1, skip: 0, timeout: 600ms, retries: 0 }
level: { errors: 1, lag_p99_ms: 2000 }
"""


def above(counts, seconds):
    return sum(n for us, n in counts.items() if us >= seconds * 1e6)


def mean(counts):
    return sum(us * n for us, n in counts.items()) / 1e6 / sum(counts.values())


def stalled_server(tap, load, server):
    """SIGSTOP for 2 s: every request that was due meanwhile is late by what was left of the stall."""
    stalled = []

    def stall():
        under_way(server)
        time.sleep(0.7)
        begun = time.monotonic()
        server.signal(signal.SIGSTOP)
        time.sleep(STALL_S)
        server.signal(signal.SIGCONT)
        stalled.append(time.monotonic() - begun)
    thread = threading.Thread(target=stall)
    thread.start()
    r = load(SCENARIO, f"http://127.0.0.1:{server.port}")
    thread.join()
    length, t, latency = stalled[0], r.json["totals"], r.hdr["latency"]
    tap.ok(r.code == 0 and not t["errors"] and t["requests"] == sum(latency.values()) == RATE * 4, "a stall of the server: all that was due was asked and answered", r)
    # Those due in the first `length - x` seconds of the stall took longer than x. So did those that came while the server caught up:
    # until then all connections were waiting for it, as service times tell, which know nothing of when a request was due. And so may have
    # those that the generator itself sent late.
    busy = max(length, sum(r.hdr["service"].values()) * mean(r.hdr["service"]) / 16)
    for x in (0.25, 0.5, 1, 1.5, 1.9):
        got, least, most = above(latency, x), RATE * (length - x), RATE * (busy - x) + above(r.hdr["service"], x) + above(r.hdr["lag"], 0.02)
        tap.ok(least - 0.05 * RATE * STALL_S <= got <= most, f"a stall of 2 s: {x} s was exceeded as often as the rate says",
               f"{got}, not {least:.0f} to {most:.0f}")
    longest = max(latency) / 1e6
    tap.ok(length - 0.1 <= longest <= busy + 0.5, "a stall of 2 s: the longest latency is its length", f"{longest} of {length}")
    tap.ok(t["queued"] > 0.5 * RATE * STALL_S, "a stall of 2 s: what was due meanwhile found all connections taken", t)
    service = above(r.hdr["service"], 1)
    tap.ok(service <= 16, "a stall of 2 s: by service time only the open requests would have noticed", service)
    tap.ok(max(r.hdr["lag"]) < 1e6, "a stall of the server is not the generator's lag", max(r.hdr["lag"]))
    slow = above(latency, 0.5)
    by_due = [s["requests"] for s in r.json["seconds"]]
    tap.ok(min(by_due) < RATE / 4 and sum(by_due) == t["requests"] and slow > RATE, "a stall of 2 s: a second without answers stands in the time series", by_due)


def late_generator(tap, sluice, folder, server):
    """The generator itself is stopped: the run is invalid, status 3. There are connections enough: what waits for one is not its lag."""
    (folder / "late.yaml").write_text(SCENARIO)
    p = subprocess.Popen([sluice, "load", folder / "late.yaml", "--target", f"http://127.0.0.1:{server.port}", "--seconds", "2", "--rate", str(FEW), "--connections", "200",
                          "--hdr", folder / "late.hdr", "--json", folder / "late.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    under_way(server)
    time.sleep(0.5)
    kids = children(p)
    for kid in kids:
        subprocess.run(["kill", "-STOP", kid], check=True)
    time.sleep(0.6)
    for kid in kids:
        subprocess.run(["kill", "-CONT", kid], check=True)
    out, err = p.communicate(timeout=30)
    t = json.loads((folder / "late.json").read_text())["totals"]
    tap.ok(t["queued"] == 0 and (t["cpu_wait_s"] > 0 or not pathlib.Path("/proc/self/schedstat").exists()), "with connections enough none queues", t)
    tap.ok(p.returncode == 3 and "INVALID: the generator was late" in out, "a generator that was late: status 3, and it says so", f"{p.returncode} {out}{err}")
    lag = hdr_log((folder / "late.hdr").read_text())["lag"]
    tap.ok(above(lag, 0.3) > 0.2 * FEW, "the generator's own lag is recorded", above(lag, 0.3))


def never_answers(tap, load, server):
    """A server that hangs to the end: what is open counts by how long it has waited, and fails the run."""
    def stop():
        under_way(server)
        time.sleep(0.5)
        server.signal(signal.SIGSTOP)
    thread = threading.Thread(target=stop)
    thread.start()
    r = load(SCENARIO.replace("drain: 5s", "drain: 500ms"), f"http://127.0.0.1:{server.port}", "--seconds", "2")
    thread.join()
    t = r.json["totals"]
    tap.ok(r.code == 1 and t["unanswered"] > 0.3 * RATE and t["errors_by_kind"]["timeout"] == t["unanswered"], "a server that hangs: what was not answered is counted, status 1", r)
    tap.equal(sum(r.hdr["latency"].values()), 2 * RATE, "a server that hangs: every request that was due has a latency")
    tap.ok(above(r.hdr["latency"], 1) > 0.3 * RATE, "a server that hangs: they are as late as they have waited", above(r.hdr["latency"], 1))
    r = load(LISTENERS, f"http://127.0.0.1:{server.port}")
    t = r.json["totals"]
    tap.ok(t["errors_by_kind"]["timeout"] == t["sessions"] == t["sessions_unheard"] > 10, "listeners give up after player.timeout", t)
    server.signal(signal.SIGCONT)
    time.sleep(0.2)
    r = load(LISTENERS, f"http://127.0.0.1:{server.port}")
    tap.ok(r.code == 0 and r.json["totals"]["errors"] == 0, "and are served again afterwards", r.out.decode())


def never_answered(tap, load, server):
    """A server that hangs from the start: the service level is missed, not the generator at fault."""
    paths = load.folder / "paths"
    paths.write_text("/one/cenc/1/aac/1.m4s\n")
    server.signal(signal.SIGSTOP)
    r = load(SCENARIO.replace("drain: 5s", "drain: 300ms"), f"http://127.0.0.1:{server.port}", "--seconds", "0.5", "--paths", paths)
    server.signal(signal.SIGCONT)
    tap.ok(r.code == 1 and r.json["valid"] and re.search(r"MISSED  requests failed +1\.000 of all", r.out.decode()), "a server that never answers: all requests failed, status 1", r)


class Swallowing(Listening):
    """Takes every request and answers all but each nth."""

    def __init__(self, nth):
        self.nth, self.asked, self.lock = nth, 0, threading.Lock()
        super().__init__()

    def handle(self, s):
        buffer = b""
        try:
            while more := s.recv(65536):
                buffer += more
                while b"\r\n\r\n" in buffer:
                    _, _, buffer = buffer.partition(b"\r\n\r\n")
                    with self.lock:
                        self.asked += 1
                        swallow = self.asked % self.nth == 0
                    if not swallow:
                        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except OSError:
            pass
        finally:
            s.close()


def swallowed(tap, load):
    """Requests that are taken and never answered fail after player.timeout, and their connections are replaced: the others go on."""
    paths = load.folder / "paths"
    paths.write_text("/one/cenc/1/aac/1.m4s\n")
    give_up_s = 1.5  # what is answered is answered before
    text = SCENARIO.replace("rate: 400", "rate: 100").replace("seconds: 4s", "seconds: 2s") + f"player: {{ timeout: {give_up_s}s }}\n"
    for mode, nth in (("rate", 10), ("rate", 1), ("idle", 10), ("saturate", 10)):
        connections = 400 if nth == 1 else 50
        with Swallowing(nth) as server:
            r = load(text.replace("mode: rate", f"mode: {mode}").replace("connections: 16", f"connections: {connections}"), server.url, "--paths", paths,
                     "--seconds", "5" if mode == "saturate" else "2")  # which does not wait for the last ones
        t, late = r.json["totals"], above(r.hdr["latency"], 0.99 * give_up_s)
        name = f"mode {mode}, each {nth}. request is swallowed"
        tap.ok(r.code == 1 and 0 < t["errors_by_kind"]["timeout"] == t["errors"] == late and t["unanswered"] == 0 and t["elapsed_s"] < 6,
               f"{name}: those time out, and are as late as they have waited", f"{t} {r.hdr['latency']}\n{r.out.decode()}{r.err}")
        if mode == "saturate":  # closed: it ends with requests under way
            tap.ok(t["errors"] > 20 and t["requests"] > 9 * t["errors"], f"{name}: connections are replaced", t)
        else:
            asked = 200 if mode == "rate" else connections
            tap.ok(nth > 1 or t["elapsed_s"] > 3, f"{name}: the run lasts until the last one has timed out", t)
            tap.ok(t["requests"] == server.asked == asked and t["errors"] == asked // nth, f"{name}: every other one is answered", f"{server.asked} {t}")


def silence(tap, load, server):
    """Who waits for a segment until giving up has waited, and the report says so."""
    def stop():
        under_way(server, 1)
        time.sleep(1.2)
        server.signal(signal.SIGSTOP)
    thread = threading.Thread(target=stop)
    thread.start()
    r = load("""name: silence
seed: 4
arrivals: [{ for: 500ms, rate: 40 }]
drain: 8s
catalogue: { assets: [one] }
scheme: cbcs
player: { ahead: 1, tracks: 1, skip: 0, timeout: 4s, retries: 0 }
level: { errors: 1, rebuffer: 1%, lag_p99_ms: 2000 }
""", f"http://127.0.0.1:{server.port}")
    thread.join()
    server.signal(signal.SIGCONT)
    t = r.json["totals"]
    # The third segment is asked for 2 s after the first came, and needed 2 s later; it is given up 4 s after it was asked for.
    tap.ok(t["errors"] == t["sessions"] > 5 and 1.5 - mean(r.hdr["startup"]) < t["rebuffer_s"] / t["sessions"] < 2.6 + max(r.hdr["lag"]) / 1e6, "listeners who give up have waited", f"{t} {r.out.decode()}")
    tap.ok(r.code == 1 and "MISSED  time spent waiting" in r.out.decode(), "and the level for that is missed", r.out.decode())


def killed_process(tap, sluice, folder, server):
    """A process of the generator that is killed takes its numbers with it."""
    (folder / "killed.yaml").write_text(SCENARIO)
    p = subprocess.Popen([sluice, "load", folder / "killed.yaml", "--target", f"http://127.0.0.1:{server.port}", "--seconds", "1.5", "--processes", "2",
                          "--json", folder / "killed.json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    under_way(server)
    subprocess.run(["kill", "-KILL", children(p)[0]], check=True)
    _, err = p.communicate(timeout=30)
    result = json.loads((folder / "killed.json").read_text())
    tap.ok(p.returncode == 1 and "ended by signal 9" in err and not result["valid"], "a process that is killed: said, and the result is not valid", (p.returncode, err, result["valid"]))


def deadlines(tap, load, server):
    """Who plays while the server hangs from 1.5 s to 5.5 s. One segment is kept ahead, so who came at a (up to 0.5 s) asks for the
    third at a + 2 s, gets it at 5.5 s and needed it at a + 4 s."""
    stalled = []

    def stall():
        under_way(server, 1)
        begun = time.monotonic()
        time.sleep(1.5)
        server.signal(signal.SIGSTOP)
        time.sleep(4)
        server.signal(signal.SIGCONT)
        stalled.append(time.monotonic() - begun)
    thread = threading.Thread(target=stall)
    thread.start()
    r = load("""name: deadlines
seed: 4
arrivals: [{ for: 500ms, rate: 80 }]
drain: 2.2s
catalogue: { assets: [one] }
scheme: cbcs
player: { ahead: 1, tracks: 1, skip: 0 }
level: { errors: 0, deadline_miss: 1%, lag_p99_ms: 2000 }
""", f"http://127.0.0.1:{server.port}")
    thread.join()
    t = r.json["totals"]
    tap.ok(t["sessions"] > 20 and t["misses"] == t["sessions"], "a stall longer than what is buffered: everybody misses one segment", t)
    waited, most = t["rebuffer_s"] / t["sessions"], stalled[0] - 4
    # Who began to hear later needed it later; and it came later where the server had to catch up: the longest latency says by how much.
    late = max(0, max(r.hdr["latency"]) / 1e6 - (stalled[0] - 2))
    tap.ok(most - 0.6 - mean(r.hdr["startup"]) < waited < most + late, "and waits for as long as it came too late", f"{waited} of {most}, {late} {mean(r.hdr['startup'])}")
    tap.ok(sum(s["misses"] for s in r.json["seconds"]) == t["misses"] and sum(r.hdr["startup"].values()) == t["sessions"], "the seconds add up to that, and everybody started once", r.json["seconds"])
    tap.ok(r.code == 1 and "MISSED  segments late" in r.out.decode(), "a missed service level: status 1, and which", r.out.decode())
    tap.ok(max(r.hdr["startup"]) < 1.5e6, "startup is not touched: everybody had started before", max(r.hdr["startup"]))


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ["one"])
        load = Load(sluice, folder)
        with Server(sluice, folder / "media", keys=keys_text(["one"])) as server:
            undisturbed(tap, 0.03, stalled_server, tap, load, server)
            undisturbed(tap, 0.1, late_generator, tap, sluice, folder, server)
            undisturbed(tap, 0.1, deadlines, tap, load, server)
            undisturbed(tap, 0.1, never_answers, tap, load, server)
            undisturbed(tap, 0.1, never_answered, tap, load, server)
            undisturbed(tap, 0.1, swallowed, tap, load)
            undisturbed(tap, 0.1, silence, tap, load, server)
            killed_process(tap, sluice, folder, server)
    tap.end()


if __name__ == "__main__":
    main()
