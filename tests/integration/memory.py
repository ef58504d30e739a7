#!/usr/bin/env python3
"""Memory runs out: each command with its first allocation failing, its second, … until none does; the same with all that follow failing too;
then a server at its start and at a reload. memory.py SLUICE [PART...]

Either all is done, with status 0, or an error says what could not be: no other end, no half of anything, nothing left behind.
"""
import collections
import json
import mmap
import os
import pathlib
import signal
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.command_parts import ENCRYPT, KEY, KID, files  # noqa: E402
from judge import shim, synth  # noqa: E402
from judge.programs import Sluice, run  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402

ALL = 1 << 30


class Memory:
    """What fails in programs that run with `env`."""

    def __init__(self, work):
        self.library = work / "no_memory.so"
        self.why_not = shim.build(pathlib.Path(__file__).with_name("no_memory.c"), self.library)
        (work / "no_memory").write_bytes(bytes(mmap.PAGESIZE))
        self.fd = os.open(work / "no_memory", os.O_RDWR)
        self.words = mmap.mmap(self.fd, mmap.PAGESIZE)
        self.env = shim.preloaded(self.library, NO_MEMORY=str(work / "no_memory"))

    def fail(self, first, num):
        self.words[:20] = struct.pack("5I", first, num, 0, 0, 0)

    def fail_read(self, number):
        self.words[:20] = struct.pack("5I", 0, 0, 0, number, 0)

    def reads(self):
        return struct.unpack("I", self.words[16:20])[0]

    def fail_soon(self, first, num):
        """In a program that runs."""
        self.words[:8] = struct.pack("2I", self.count() + first, num)

    def count(self):
        return struct.unpack("I", self.words[8:12])[0]


def restore(folder, before):
    for name, data in files(folder).items():
        if name not in before:
            (folder / name).unlink()
        elif data != before[name]:
            (folder / name).write_bytes(before[name])


def turns(sanitized):
    """The numbers of the allocation that fails. A sanitizer makes a run ten times as long: some of them, there."""
    k = 0
    while True:
        k += 1 if k < 24 or not sanitized else 29
        yield k


def sweep(tap, sluice, memory, work, name, argv, prints="", changes=None, sanitized=False):
    """`prints`: what is on standard output beside an error, "any" or nothing. `changes`: judges the files after an error or success where
    they are not those of before, or of a run with memory."""
    restore(work, before := files(work))
    memory.fail(0, 0)
    good = run(sluice.path, *argv, cwd=work, env=memory.env)
    if not tap.equal(good.code, 0, f"{name}: done where there is memory"):
        return
    after = files(work)
    for num, which in ((1, "one fails"), (ALL, "all from one on fail")):
        bad, failed = [], 0
        for k in turns(sanitized):
            restore(work, before)
            memory.fail(k, num)
            r = run(sluice.path, *argv, cwd=work, env=memory.env)
            now = files(work)
            if r.code == 0:
                wrong = "" if (r.out == good.out or prints == "any") and (changes(now, False) if changes else now == after) else "status 0, but not all was done"
            elif r.code not in (1, 2) or not r.err.startswith("sluice: "):
                wrong = "ended without an error"
            elif r.out and not prints:
                wrong = "an error, and half of the output"
            else:
                wrong = "" if (changes(now, True) if changes else now == before) else "an error, and something is left behind"
            failed += r.code != 0
            if wrong:
                bad.append(f"allocation {k}: {wrong}: {r} {r.out[-100:]}")
            if memory.count() < k:
                break
        tap.ok(not bad, f"{name}, {which}: all or an error", "\n".join(bad[:20]))
        tap.ok(failed > 1, f"{name}, {which}: which was looked at", f"{failed} of {k}")
    restore(work, before)


def broken(tap, sluice, memory, work, name, argv):
    """The same of a disk, whose reads fail: inspect shows what it has got."""
    before, bad, k = files(work), [], 0
    memory.fail(0, 0)
    good = run(sluice.path, *argv, cwd=work, env=memory.env)
    while memory.reads() >= k:
        k += 1
        restore(work, before)
        memory.fail_read(k)
        r = run(sluice.path, *argv, cwd=work, env=memory.env)
        right = r.out == good.out if r.code == 0 else r.code == 1 and r.err.startswith("sluice: ") and files(work) == before
        if not right:
            bad.append(f"read {k}: {r} {r.out[-200:]}")
    restore(work, before)
    tap.ok(not bad, f"{name}, a read fails: all or an error", "\n".join(bad))
    tap.ok(k > 2, f"{name}, a read fails: which was looked at", k)


def commands(tap, sluice, memory, work, sanitized):
    folder = work / "commands"
    (folder / "media" / "a").mkdir(parents=True)
    (folder / "media" / "a" / "t.mp4").write_bytes(synth.plain(1)[0])
    (folder / "parts").mkdir()
    (folder / "secret").write_bytes(bytes(range(32)))
    (folder / "kek").write_bytes(bytes(range(32)))
    state = folder / "state"
    state.mkdir(mode=0o700)
    (state / "derive.secret").write_bytes(bytes(range(32)))
    for secret in (folder / "secret", folder / "kek", state / "derive.secret"):
        secret.chmod(0o600)
    (folder / "c.yaml").write_text(f"media: {folder / 'media'}\nstate_dir: {state}\n")
    clear, locked, document = folder / "media" / "a" / "t.mp4", folder / "locked.mp4", folder / "document.xml"
    sluice.encrypt(clear, locked, "cbcs", KID, KEY)
    sluice("keys", "export", "a", "--out", document, "--state-dir", state)
    before = files(folder)

    def rewrapped(now, error):
        return {k: v for k, v in now.items() if k != "secret"} == {k: v for k, v in before.items() if k != "secret"} and (now["secret"] == before["secret"]) == error

    def indexed(now, error):
        more = set(now) - set(before)
        return more <= {"media/a/t.mp4.slx"} if error else more == {"media/a/t.mp4.slx"}
    for name, argv, more in (
            ("inspect", ["inspect", clear], {"prints": "some"}), ("inspect of an encrypted file", ["inspect", locked], {"prints": "some"}),
            ("inspect --json", ["inspect", "--json", clear], {}), ("inspect --json of an encrypted file", ["inspect", "--json", locked], {}),
            ("encrypt", ["encrypt", clear, "out.mp4", *ENCRYPT, "--drm", "widevine,playready"], {}), ("encrypt to standard output", ["encrypt", clear, "-", *ENCRYPT], {}),
            ("decrypt", ["decrypt", locked, "out.mp4", "--key", f"{KID}:{KEY}"], {}),
            ("keys export", ["keys", "export", "a", "--out", "new.xml", "-c", "c.yaml"], {}), ("keys import", ["keys", "import", document, "--keys", "keys.yaml"], {}),
            ("keys rewrap", ["keys", "rewrap", "secret", "--new-kek", "kek"], {"changes": rewrapped}), ("serve --check", ["serve", "--check", "-c", "c.yaml"], {}),
            ("index", ["index", "media", "--threads=1"], {"prints": "some", "changes": indexed})):
        if sanitized and name == "index":
            continue  # a sanitizer ends a thread that it finds no memory for
        sweep(tap, sluice, memory, folder, name, argv, sanitized=sanitized, **more)
        if argv[0] in ("inspect", "encrypt", "decrypt", "index"):
            broken(tap, sluice, memory, folder, name, argv)
    for number in range(3, 12):  # too few descriptors at each step
        before = files(folder)
        r = run("bash", "-c", f'ulimit -n {number}; exec "$@"', "bash", sluice.path, "keys", "rewrap", "secret", "--new-kek", "kek", cwd=folder)
        tap.ok((r.code != 0) == (files(folder) == before), f"keys rewrap with {number} descriptors: done, or an error", r)
        restore(folder, before)
    memory.fail(0, 0)
    r = run(sluice.path, "version", env=memory.env)
    memory.fail(1, ALL)
    tap.equal(run(sluice.path, "version", env=memory.env).out, r.out, "version needs no memory")
    with Server(sluice.path, folder / "media") as server:
        sweep(tap, sluice, memory, folder, "rotate", ["rotate", "a", "--admin", f"127.0.0.1:{server.admin_port}"], prints="any", sanitized=sanitized)


def starts(tap, sluice, memory, work, sanitized):
    """A server that starts answers, with what there is or 503; else it says what failed."""
    if sanitized:
        return  # as with index
    media = work / "starts"
    (media / "a").mkdir(parents=True)
    (media / "a" / "t.mp4").write_bytes(synth.plain()[0])
    path, ended, bad = "/a/cbcs/1/t/init.mp4", collections.Counter(), []
    for k in turns(False):
        memory.fail(k, 1)
        server = Server(sluice.path, media, "--workers", "1", env=memory.env)
        try:
            with server:
                status = server.get(path).status
                code = server.stop()
            ended["ready"] += 1
            if code != 0 or status not in (200, 503):
                bad.append(f"allocation {k}: {status}, {code}: {server.lines[-4:]}")
        except (RuntimeError, OSError, EOFError) as e:
            code, log = server.process.returncode, server.lines
            ended["refused"] += 1
            if code not in (1, 2) or not log or not log[-1].startswith("sluice: "):
                bad.append(f"allocation {k}: {code}: {e!r} {log[-3:]}")
        if memory.count() < k:
            break
    tap.ok(not bad, "serve: it starts, or says what failed", "\n".join(bad[:20]))
    tap.ok(ended["ready"] > 1 and ended["refused"] > 20, "serve: which was looked at", dict(ended))


def reloads(tap, sluice, memory, work, sanitized):
    """A reload is done, or refused with a word; the server goes on."""
    media = work / "reloads"
    (media / "a").mkdir(parents=True)
    (media / "a" / "t.mp4").write_bytes(synth.plain()[0])
    memory.fail(0, 0)
    path, bad, ended = "/a/cbcs/1/t/init.mp4", [], collections.Counter()
    keys = f"keys:\n  - {{ asset: a, epoch: 1, scheme: cbcs, kid: {KID}, key: {KEY}, iv: {KID} }}\n"
    with Server(sluice.path, media, "--workers", "1", keys=keys, config="negative_ttl: 0s\n", env=memory.env) as server:
        want = server.get(path).body
        for k in turns(sanitized):
            lines = len(server.log())
            memory.fail_soon(k, 1)
            last = memory.count() + k
            server.signal(signal.SIGHUP)
            said = server.wait_log("reloaded|reload refused", after=lines) or ""
            ended[said.partition(" ")[2].partition(":")[0][:20]] += 1
            r = server.get(path)
            if not said or r.body != want or server.process.poll() is not None:
                bad.append(f"allocation {k}: {said!r} {r} {server.process.poll()} {server.log()[lines:]}")
                break
            if memory.count() < last:
                break
        memory.fail(0, 0)
        tap.equal(server.stop(), 0, "reload: the server ends in good order")
    tap.ok(not bad, "reload: done, or refused with a word", "\n".join(bad))
    tap.ok(sum(ended.values()) > 20, "reload: which was looked at", dict(ended))


def shape(run):
    """What stands in a result, whatever was measured."""
    return sorted(run), sorted(run["totals"]), sorted(run["totals"]["errors_by_kind"]), [[None not in p and len(p) for p in run[at]["percentiles_us"]] for at in ("latency", "service", "lag", "startup")]


def load(tap, sluice, memory, work, sanitized):
    """The results of a run: whole, or not there. They are what is made last."""
    media = work / "load"
    (media / "a").mkdir(parents=True)
    (media / "a" / "t.mp4").write_bytes(synth.plain()[0])
    (work / "run.yaml").write_text("mode: rate\narrivals: [{ for: 0.1s, rate: 50 }]\ncatalogue: { assets: [a] }\nscheme: cbcs\n")
    results, want, bad, failed = [work / "run.json", work / "run.html"], None, [], 0
    with Server(sluice.path, media) as server:
        for back in (None, *range(3, 600, 50 if sanitized else 20)):
            for file in results:
                file.unlink(missing_ok=True)
            memory.fail(0 if back is None else last - back, 1)
            r = run(sluice.path, "load", work / "run.yaml", "--target", f"http://127.0.0.1:{server.port}", "--threads", "1", "--json", results[0], "--html", results[1], env=memory.env)
            last = memory.count() if back is None else last
            there = [file.exists() for file in results]
            try:
                got = shape(json.loads(results[0].read_text())) if there[0] else want
            except (ValueError, KeyError) as e:
                got = repr(e)
            want = want or got
            whole = got == want and (not there[1] or '"heat_base_us"' in results[1].read_text())
            failed += not all(there)
            if not whole or (not all(there) and (r.code == 0 or not r.err.startswith("sluice: "))) or (back is None and not all(there)):
                bad.append(f"{back} before the last of {last}: {there} {r} {got if got != want else ''}")
    tap.ok(not bad, "load: results that are whole, or an error", "\n".join(bad))
    tap.ok(failed > 3, "load: which was looked at", failed)


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    sanitized = b"__asan_init" in pathlib.Path(sluice.path).read_bytes()
    with tempfile.TemporaryDirectory(prefix="sluice-memory-") as work:
        memory = Memory(pathlib.Path(work))
        if tap.equal(memory.why_not, "", "a system without memory is built"):
            for part in (commands, load, starts, reloads):
                if len(sys.argv) < 3 or part.__name__ in sys.argv[2:]:
                    part(tap, sluice, memory, pathlib.Path(work), sanitized)
    tap.end()


if __name__ == "__main__":
    main()
