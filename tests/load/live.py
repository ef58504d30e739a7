#!/usr/bin/env python3
"""The live view on a terminal, and nothing of it elsewhere: live.py SLUICE"""
import json
import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.disturbed import undisturbed  # noqa: E402
from judge.load import children, keys_text, media, under_way  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

RATE = """name: live
seed: 3
mode: rate
rate: 300
seconds: 3s
connections: 8
catalogue: { assets: [one] }
scheme: cenc
level: { lag_p99_ms: 5000 }
"""
LISTENERS = """name: live
seed: 4
arrivals: [{ for: 500ms, rate: 80 }]
drain: 7s
catalogue: { assets: [one] }
scheme: cbcs
player: { ahead: 1, tracks: 1, skip: 0 }
level: { deadline_miss: 100%, lag_p99_ms: 5000 }
"""
SEARCH = """name: live
seed: 3
mode: capacity
search: { from: 100, to: 300, probes: 4, spike: 0 }
seconds: 1s
connections: 8
catalogue: { assets: [one] }
scheme: cenc
level: { latency_p99_ms: 60000, lag_p99_ms: 60000, errors: 100% }
"""
LINE = re.compile(r"^ *(?P<at>[\d.]+)/(?P<of>\d+) s +(?P<rate>\d+) req/s  p99 (?P<p99>[\d.]+) ms  (?P<active>\d+) active  (?P<late>\d+) late  "
                  r"(?P<failed>\d+) failed  lag p99 (?P<lag>[\d.]+) ms  (?P<gb>[\d.]+) GB$")
BEGIN = "\r\033[K"  # each view wipes the one before


class Terminal:
    """A pseudo-terminal; `text` is what was written to it, once `close` was called."""

    def __init__(self):
        self.ours, self.theirs = pty.openpty()
        self.parts, self.thread = [], threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            while part := os.read(self.ours, 65536):
                self.parts.append(part)
        except OSError:  # EIO: nobody has the other end any more
            pass

    def close(self):
        os.close(self.theirs)
        self.thread.join(10)
        os.close(self.ours)
        self.text = b"".join(self.parts).decode()


def on_terminal(argv, meanwhile=lambda process: None):
    """(views, what is left at the end, standard output, status) of a run whose standard error is a terminal."""
    terminal = Terminal()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal.theirs, text=True)
    meanwhile(p)
    out = p.communicate(timeout=60)[0]
    terminal.close()
    first, *views, last = terminal.text.split(BEGIN)
    return [LINE.match(v) or v for v in views], first + last, out, p.returncode


def numbers(views, name):
    return [float(v[name]) for v in views]


def rate_line(tap, argv, processes):
    views, left, out, code = on_terminal([*argv, "--processes", str(processes)])
    name = f"{processes} process{'es' if processes > 1 else ''}"
    if not tap.ok(code == 0 and len(views) >= 8 and not any(isinstance(v, str) for v in views), f"{name}: one line, written anew, with everything in it", (views, out)):
        return
    at = numbers(views, "at")
    tap.ok(at == sorted(at) and at[0] < 0.5 and at[-1] >= 2.5 and set(numbers(views, "of")) == {3.0}, f"{name}: progress, from the start to the end of the run", at)
    running = numbers(views, "rate")[2:-2]
    tap.ok(200 < sum(running) / len(running) < 400, f"{name}: the rate at which requests are answered, of all processes", running)
    tap.ok(max(numbers(views, "failed")) == 0 and numbers(views, "active")[-1] >= 8 and numbers(views, "gb")[-1] > 0, f"{name}: failures, connections, bytes", views[-1].groups())
    tap.equal(left, "", f"{name}: wiped at the end")
    tap.ok("requests in" in out and "\033" not in out and "\r" not in out, f"{name}: the summary goes to standard output, without it", out)


def generator_lag(tap, argv, server):
    """The generator's processes are stopped for 0.6 s of 3: a fifth of the requests is sent late, and the line says by how much. There are
    connections enough: what waits for one is not the generator's lag."""
    argv = [*argv, "--rate", "50", "--connections", "200"]

    def stop(p):
        under_way(server)
        time.sleep(1)
        kids = children(p)
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for kid in kids:
                os.kill(int(kid), number)
            time.sleep(0.6)
    views, _, out, _ = on_terminal(argv, stop)
    before = [float(v["lag"]) for v in views if float(v["at"]) < 0.9]
    lag, p99 = numbers(views, "lag")[-1], numbers(views, "p99")[-1]
    tap.ok(before and max(before) < 400 < lag < 2000 and p99 > 400, "a generator that was stopped for 0.6 s: its lag is shown", (before, lag, p99, out))


def interrupted(tap, argv, server, result):
    """A minute's run that is ended in its first seconds, all its processes by a signal to one: its results are written, and prove nothing."""
    def end(p):
        under_way(server)
        p.send_signal(number)
    for number in (signal.SIGINT, signal.SIGTERM):
        result.unlink(missing_ok=True)
        _, _, out, code = on_terminal([*argv, "--seconds", "60", "--processes", "2"], end)
        told = json.loads(result.read_text())
        tap.ok(code == 3 and "INVALID: interrupted" in out and told["valid"] is False and 0 < told["totals"]["requests"] < 60 * 300,
               f"{number.name}: status 3, with the results so far", (code, out))


def one_interrupted(tap, argv, server, result):
    """A signal to one of the generator's processes alone ends all of them: without its part the run is none."""
    for number in (signal.SIGINT, signal.SIGTERM):
        result.unlink(missing_ok=True)

        def end(p):
            under_way(server)
            os.kill(int(children(p, 3)[1]), number)
        _, _, out, code = on_terminal([*argv, "--seconds", "60", "--processes", "3"], end)
        told = json.loads(result.read_text())
        tap.ok(code == 3 and "INVALID: interrupted" in out and told["valid"] is False and 0 < told["totals"]["requests"] < 60 * 300,
               f"{number.name} to one process of three: the same", (code, out))


def search_interrupted(tap, argv, server):
    """As a run is, so is a search: what it had found by then is no limit."""
    for name, whom in (("to all", lambda p: p.pid), ("to one process", lambda p: int(children(p)[0]))):
        def end(p):
            under_way(server)
            os.kill(whom(p), signal.SIGTERM)
        _, _, out, code = on_terminal([*argv, "--processes", "2"], end)
        tap.ok(code == 3 and "INVALID: interrupted" in out, f"a search, SIGTERM {name}: status 3", (code, out))


def over(pid):
    """Whether a process has ended, also where its parent has not asked for its status yet."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except FileNotFoundError:
        return True


def too_late(tap, argv, server):
    """A signal when all has been answered: the run is whole. The generator's parent is held until its processes have ended."""
    def end(p):
        kids, until = children(p), time.monotonic() + 30
        under_way(server, 1)
        p.send_signal(signal.SIGSTOP)
        while not all(map(over, kids)) and time.monotonic() < until:
            time.sleep(0.05)
        p.send_signal(signal.SIGTERM)
        p.send_signal(signal.SIGCONT)
    _, _, out, code = on_terminal([*argv, "--processes", "2"], end)
    tap.ok(code == 0 and "INVALID" not in out, "a signal after the last answer: the run is whole", (code, out))


def misses(tap, argv, server, result):
    """The server hangs from 1.5 s to 5.5 s: everybody misses a segment, and the line says so while it runs."""
    def stall():
        under_way(server, 1)
        time.sleep(1.5)
        server.signal(signal.SIGSTOP)
        time.sleep(4)
        server.signal(signal.SIGCONT)
    thread = threading.Thread(target=stall)
    thread.start()
    views, _, out, _ = on_terminal(argv)
    thread.join()
    late = numbers(views, "late")
    total = json.loads(result.read_text())["totals"]["misses"]
    tap.ok(total > 20 and late[0] == 0 and late[-1] == total and late == sorted(late), "segments that came too late are counted as they come", (late, total, out))
    p99, lag = numbers(views, "p99")[-1], numbers(views, "lag")[-1]
    tap.ok(2500 < p99 < 6000 and lag < 1000 and max(numbers(views, "p99")[:5]) < 1000, "latency is shown, from the intended moment; the generator was not late", (p99, lag))
    stalled = [float(v["rate"]) for v in views if 2.2 < float(v["at"]) < 5]
    tap.ok(stalled and max(stalled) == 0, "while the server hangs the rate is nothing", stalled)


def no_terminal(tap, argv):
    r = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    tap.ok(r.returncode == 0 and r.stderr == "" and "\033" not in r.stdout and "req/s" not in r.stdout, "no terminal: nothing of it on either stream", r)
    terminal = Terminal()
    p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=terminal.theirs, stderr=subprocess.PIPE, text=True)
    err = p.communicate(timeout=60)[1]
    terminal.close()
    tap.ok(p.returncode == 0 and err == "" and "req/s" not in terminal.text and "requests in" in terminal.text, "standard error is no terminal, standard output is: nothing of it",
           (err, terminal.text))


def search_line(tap, argv):
    """Mode capacity is run after run: what the line shows begins anew with each."""
    views, _, out, code = on_terminal(argv)
    views = [re.sub(r"^ *(probe \d+, \d+/s|spike): ", "", v) for v in (v if isinstance(v, str) else v[0] for v in views) if v]
    rates = [float(m["rate"]) for m in map(LINE.match, views) if m]
    tap.ok(len(rates) == len(views) > 5 and 0 < max(rates) < 20000, "a search: no rate that nobody asked for", (max(rates, default=None), views[:3], out))
    failed = set(re.findall(r"\d+ ([^,\n]+)", "".join(re.findall(r"(?m)^failed: .*", out))))
    tap.ok(code == 1 and "every probe passed" in out and failed <= {"timed out"}, "a search that ends without a limit: status 1, nothing failed but for what a busy machine left over",
           (code, out))


def main():
    tap, sluice = Tap(), sys.argv[1]
    with tempfile.TemporaryDirectory(prefix="sluice-load-") as work:
        folder = pathlib.Path(work)
        media(folder / "media", ["one"])
        (folder / "rate.yaml").write_text(RATE)
        (folder / "listeners.yaml").write_text(LISTENERS)
        with Server(sluice, folder / "media", keys=keys_text(["one"])) as server:
            target = ["--target", f"http://127.0.0.1:{server.port}"]
            rate = [sluice, "load", str(folder / "rate.yaml"), *target]
            undisturbed(tap, 0.1, rate_line, tap, rate, 1)
            undisturbed(tap, 0.1, rate_line, tap, rate, 2)
            undisturbed(tap, 0.1, generator_lag, tap, rate, server)
            (folder / "search.yaml").write_text(SEARCH)
            search_line(tap, [sluice, "load", str(folder / "search.yaml"), *target])
            no_terminal(tap, [*rate, "--seconds", "1"])
            for ends in (interrupted, one_interrupted):
                ends(tap, [*rate, "--json", str(folder / "out.json")], server, folder / "out.json")
            search_interrupted(tap, [sluice, "load", str(folder / "search.yaml"), *target, "--seconds", "60"], server)
            too_late(tap, rate, server)
            undisturbed(tap, 0.1, misses, tap, [sluice, "load", str(folder / "listeners.yaml"), *target, "--json", str(folder / "out.json")], server, folder / "out.json")
    tap.end()


if __name__ == "__main__":
    main()
