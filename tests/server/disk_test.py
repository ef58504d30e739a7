#!/usr/bin/env python3
"""A worker never reads a file, faults one in or waits for a disk, neither when everything is in RAM nor when nothing is; and helpers wait
for one file once: disk_test.py SLUICE"""
import os
import pathlib
import re
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import synth  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.slow_disk import slow_disk  # noqa: E402
from judge.tap import Tap  # noqa: E402

TRACKS, ROUNDS = 16, 12


def threads(server, kind):
    """{thread: (read calls, bytes they gave, bytes from disk, major faults)} of the threads whose names begin so."""
    out = {}
    for task in pathlib.Path(f"/proc/{server.process.pid}/task").iterdir():
        if (task / "comm").read_text().startswith(kind):
            io = dict(line.split(": ") for line in (task / "io").read_text().splitlines())
            out[task.name] = (int(io["syscr"]), int(io["rchar"]), int(io["read_bytes"]), int((task / "stat").read_text().rpartition(")")[2].split()[9]))
    return out


def moved(before, after):
    return [sum(after[t][i] - before[t][i] for t in before) for i in range(4)]


def load(server, paths):
    def ask(some):
        c = server.client()
        for p in some:
            if c.get(p).status != 200:
                raise RuntimeError(p)
        c.close()
    jobs = [threading.Thread(target=ask, args=(paths[n::4],)) for n in range(4)]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join()


def one_slow_track(tap, work, env, still, io):
    """A track whose first opening takes long, or its next look because its mode has changed, asked for in all its forms, does not keep
    others from being opened."""
    media = work / f"slow-{io}"
    for asset in ("slow", "fast"):
        (media / asset).mkdir(parents=True)
        (media / asset / "t.mp4").write_bytes(synth.plain(50)[0])
    env = {**env, "SLOW_MEDIA": str(still), "SLOW_TRACK": str(media / "slow" / "t.mp4")}
    still.touch()
    with Server(sys.argv[1], media, "--io", io, "--helper-threads", "2", "--revalidate", "20ms", env=env) as server:
        paths = [f"/slow/{p}" for p in ("cbcs/master.m3u8", "cenc/manifest.mpd", "cbcs/1/t/media.m3u8", "cenc/1/t/init.mp4", "cbcs/1/t/1.m4s", "cbcs/1/t.mp4")]
        clients = [server.client() for _ in paths]

        def misses():
            return sum(int(n) for n in re.findall(r'lookups_total\{.*cache="(?:track|manifest)",result="miss"\} (\d+)', server.admin("/metrics").body.decode()))

        for when, others in (("a first time", ("cbcs/master.m3u8", "cenc/1/t.mp4")), ("with another mode", ("cenc/manifest.mpd", "cbcs/1/t.mp4"))):
            already = misses()
            for c, p in zip(clients, paths):
                c.send(p)
            end = time.monotonic() + 20
            while misses() < already + len(paths) and time.monotonic() < end:
                time.sleep(0.02)
            tap.equal(misses() - already, len(paths), f"{io}: a slow track is asked for, {when}")
            other = server.client(timeout=15)
            try:
                tap.equal([other.get(f"/fast/{p}").status for p in others], [200] * 2, f"{io}: others are opened meanwhile")
            except TimeoutError:
                tap.ok(False, f"{io}: others are opened meanwhile", "they wait for the slow one")
            still.unlink()
            before = [c.read() for c in clients]
            tap.equal([r.status for r in before], [200] * len(paths), f"{io}: and all who waited for the slow one are answered")
            still.touch()
            (media / "slow" / "t.mp4").chmod(0o640)
            time.sleep(0.5)  # what is in memory has to be looked at before it is served
        still.unlink()
        (media / "slow" / "new").write_bytes(synth.plain(60)[0])
        still.touch()
        (media / "slow" / "new").rename(media / "slow" / "t.mp4")
        time.sleep(0.5)  # what is in memory has to be looked at before it is served
        for c, p in zip(clients, paths):
            c.send(p)
        tap.equal([c.read()["etag"] for c in clients], [r["etag"] for r in before], f"{io}: one that is replaced and cannot be opened is served as it was")
        still.unlink()
        tap.equal(server.stop(), 0, f"{io}: the server ends in good order")


def opened_once(tap, work, env, still):
    """Who waits for one track of an asset until another has opened it keeps the ones before that it has opened itself."""
    asset = work / "once" / "a"
    asset.mkdir(parents=True)
    for name in ("fast", "slow"):
        (asset / f"{name}.mp4").write_bytes(synth.plain(50)[0])
    still.touch()
    with Server(sys.argv[1], work / "once", "--helper-threads", "2", "--write-sidecars=false", env={**env, "SLOW_MEDIA": str(still), "SLOW_TRACK": str(asset / "slow.mp4")}) as server:
        def opened():
            return sum(int(n) for n in re.findall(r'sluice_index_total\{.*from="media"\} (\d+)', server.admin("/metrics").body.decode()))
        one, all_of_it = server.client(), server.client()
        one.send("/a/cbcs/1/slow/init.mp4")
        time.sleep(0.2)
        all_of_it.send("/a/cbcs/master.m3u8")
        end = time.monotonic() + 20
        while opened() < 1 and time.monotonic() < end:
            time.sleep(0.02)
        still.unlink()
        tap.equal([one.read().status, all_of_it.read().status, opened()], [200, 200, 2], "a playlist of a track that another request opens, and one before it: each is opened once")


def main():
    tap = Tap()
    if not pathlib.Path("/proc/self/task/self/io").exists() and not pathlib.Path(f"/proc/self/task/{os.getpid()}/io").exists():
        tap.skip("workers and disks", "this kernel does not count input and output of threads")
        tap.end()
    pathlib.Path(sys.argv[1]).read_bytes()  # the program's own pages are in RAM: a worker that faults one in reads no media
    with tempfile.TemporaryDirectory(prefix="sluice-disk-") as work:
        env, still = slow_disk(tap, pathlib.Path(work))
        if env:
            opened_once(tap, pathlib.Path(work), env, still)
        for io in ("auto", "epoll") if env else ():
            one_slow_track(tap, pathlib.Path(work), env, still, io)
        media = pathlib.Path(work) / "media"
        for n in range(TRACKS):
            (media / f"a{n}").mkdir(parents=True)
            (media / f"a{n}" / "t.mp4").write_bytes(synth.plain(200 + n)[0])
        paths = [f"/a{n}/{scheme}/1/t.mp4" for n in range(TRACKS) for scheme in ("cenc", "cbcs")]
        for io in ("auto", "epoll"):
            with Server(sys.argv[1], media, "--io", io, "--cache-encrypted", "off", "--workers", "2", "--helper-threads", "2") as server:
                end = time.monotonic() + 10  # threads name themselves, perhaps after the server is ready
                while len(threads(server, "worker")) < 2 or len(threads(server, "helper")) < 2:
                    if time.monotonic() > end:
                        break
                    time.sleep(0.02)
                workers, helpers = threads(server, "worker"), threads(server, "helper")
                tap.equal(len(workers), 2, f"{io}: the workers are found")
                load(server, paths)
                cold = moved(workers, threads(server, "worker"))
                tap.ok(moved(helpers, threads(server, "helper"))[0] > 0, f"{io}: the files were read by others meanwhile")
                # epoll: being woken is a read of eight bytes
                tap.equal(cold[1:], [8 * cold[0], 0, 0], f"{io}: nothing in RAM: no worker reads more than that it was woken")
                before = threads(server, "worker")
                load(server, paths * ROUNDS)
                tap.equal(moved(before, threads(server, "worker")), [0, 0, 0, 0], f"{io}: all in RAM: no worker reads, faults or waits")
    tap.end()


if __name__ == "__main__":
    main()
