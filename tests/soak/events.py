"""What operators do to a running server, at random, one thing after the other."""
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
import urllib.parse

from judge.server import Client

from soak import media
from soak.clients import Ask
from soak.model import RECORD_EPOCHS, RECORDS, SECRETS, Config, Rotation, Timeline


class Events:
    def __init__(self, world, server, work, seed, makers, pairs, serials, certificates, note, fail):
        self.world, self.server, self.work, self.makers, self.note, self.fail = world, server, work, makers, note, fail
        self.pairs, self.serials, self.certificates = pairs, serials, certificates
        self.rng, self.stop, self.count, self.logs = random.Random(f"{seed}/events"), threading.Event(), 0, 0
        self.media = work / "media"
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.ways = [(self.rotate, 30), (self.replace, 18), (self.replace_part, 9), (self.overwrite, 5), (self.truncate, 4), (self.touch, 3),
                     (self.sidecar, 7), (self.reload_good, 6), (self.reload_bad, 6), (self.remove, 6), (self.add, 6), (self.reopen_log, 5),
                     (self.certificate, 4), (self.flood, 2), (self.replace_and_revoke, 8), (self.rotations, 2)]

    def _run(self):
        while not self.stop.is_set():
            way = self.rng.choices([w for w, _ in self.ways], [n for _, n in self.ways])[0]
            try:
                way()
            except Exception as e:  # of the test itself
                self.fail(f"event {way.__name__} fails: {e!r}")
            self.count += 1
            self.stop.wait(self.rng.expovariate(1 / 0.35))

    # ---- media

    def path(self, asset, track, version):
        return self.media / asset / (track if version.folder else f"{track}.mp4")

    def begin_with(self):
        for (asset, track), maker in self.makers.items():
            version = maker(self.rng)
            self.world.tracks[asset, track] = Timeline(version)
            path = self.path(asset, track, version)
            path.parent.mkdir(parents=True, exist_ok=True)
            version.write(path)

    def _there(self, folder=None):
        names = [n for n, line in self.world.tracks.items() if line.now() and folder in (None, line.now().folder)]
        return self.rng.choice(names) if names else None

    def replace(self, name=None):
        """By rename. A folder goes aside first: between the two renames it is not there."""
        name = name or self._there()
        if not name:
            return
        line, old = self.world.tracks[name], self.world.tracks[name].now()
        fresh = self.makers[name](self.rng)
        path = self.path(*name, fresh)
        hidden = path.with_name(f".new-{name[1]}")
        fresh.write(hidden)
        self.note(f"replace {name} by {fresh}")
        if old.folder:
            aside = path.with_name(f".old-{name[1]}")
            line.begin(None)
            path.rename(aside)
            line.end()
            line.begin(fresh)
            hidden.rename(path)
            line.end()
            shutil.rmtree(aside)
            return
        line.begin(fresh)
        hidden.rename(path)
        line.end()

    def replace_part(self):
        name = self._there(folder=True)
        if not name:
            return
        line = self.world.tracks[name]
        fresh, at = media.other_part(self.rng, line.now())
        path = self.path(*name, fresh)
        part, data = fresh.parts[at]
        (path / f".new-{part}").write_bytes(data)
        same = self.rng.random() < 0.7  # as of `cp -p` and `rsync -t`: of the same size and time
        if same:
            st = (path / part).stat()
            os.utime(path / f".new-{part}", ns=(st.st_atime_ns, st.st_mtime_ns))
        self.note(f"replace {name} {part}{', its time kept' if same else ''}: {fresh}")
        line.begin(fresh)
        (path / f".new-{part}").rename(path / part)
        line.end()
        asset, now = name[0], time.monotonic()  # before anybody looks at the folder again: old parts may be in RAM, the new one is not
        asks = [Ask(asset, scheme, self.world.epochs.current(asset, now, now)[0], name[1], kind, at)
                for scheme in ("cenc", "cbcs", "clear" if asset.startswith("free/") else "cenc") for kind in ("seg", "file")]
        for c, a in [(self.clients.ask(a), a) for a in asks]:
            self.clients.answers(c, [a])
            c.close()

    def _states(self, name, path, states):
        """Puts a file through states in place; each is a version of its own."""
        line = self.world.tracks[name]
        for note, change, data in states:
            line.begin(media.Version([("", data)], note))
            change(path)
            line.end()
            if self.rng.random() < 0.5:
                time.sleep(self.rng.random() * 0.4)

    def overwrite(self):
        name = self._there(folder=False)
        if not name:
            return
        old, fresh = self.world.tracks[name].now().data, self.makers[name](self.rng).data
        half = min(len(old), len(fresh)) // 2

        def put(at, data):
            def change(path):
                with open(path, "r+b", buffering=0) as f:
                    f.seek(at)
                    f.write(data)
            return change

        middle = fresh + old[len(fresh):]
        states = [("overwritten half", put(0, fresh[:half]), fresh[:half] + old[half:]), ("overwritten", put(half, fresh[half:]), middle)]
        if len(middle) > len(fresh):
            states.append(("overwritten and cut", lambda path: os.truncate(path, len(fresh)), fresh))
        self.note(f"overwrite {name} in place")
        self._states(name, self.path(*name, self.world.tracks[name].now()), states)

    def truncate(self):
        name = self._there(folder=False)
        if not name:
            return
        old = self.world.tracks[name].now()
        n = self.rng.randrange(len(old.data))
        path = self.path(*name, old)
        self.note(f"truncate {name} to {n} bytes, and put another in its place")
        self._states(name, path, [("cut short", lambda p: os.truncate(p, n), old.data[:n])])
        self._settle(name, path)

    def _settle(self, name, path):
        line, fresh = self.world.tracks[name], self.makers[name](self.rng)
        hidden = path.with_name(f".new-{name[1]}")
        fresh.write(hidden)
        line.begin(fresh)
        hidden.rename(path)
        line.end()

    def touch(self):
        """Another mode, another link, another time: the same bytes. A time is another state, and a moment of opening."""
        name = self._there(folder=False)
        if not name:
            return
        line = self.world.tracks[name]
        path = self.path(*name, line.now())
        how = self.rng.choice(["chmod", "link", "utime"])
        self.note(f"{how} {name}")
        line.begin(line.now())
        if how == "chmod":
            path.chmod(self.rng.choice([0o644, 0o640, 0o600]))
        elif how == "link":
            other = self.work / "link"
            other.unlink(missing_ok=True)
            os.link(path, other)
        else:
            os.utime(path)
        line.end()

    def sidecar(self):
        """Deleted, damaged, or another's: nobody notices."""
        found = sorted(self.media.rglob("*.slx"))
        if not found:
            return
        path = self.rng.choice(found)
        how = self.rng.choice(["delete", "delete all", "cut", "garble", "other"])
        self.note(f"sidecar {path.relative_to(self.media)}: {how}")
        try:
            if how == "delete":
                path.unlink()
            elif how == "delete all":
                for p in found:
                    p.unlink(missing_ok=True)
            elif how == "cut":
                os.truncate(path, self.rng.randrange(1 + path.stat().st_size))
            elif how == "garble":
                data = bytearray(path.read_bytes())
                for _ in range(5 if data else 0):
                    data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
                path.write_bytes(data)
            else:
                shutil.copyfile(self.rng.choice(found), path)
        except (FileNotFoundError, shutil.SameFileError):
            pass  # the server has replaced it meanwhile

    def remove(self):
        assets = sorted({a for a, _ in self.world.tracks if a.startswith("temp/")})
        asset = self.rng.choice(assets)
        if not (self.media / asset).exists():
            return
        self.note(f"remove {asset}")
        lines = self.world.of_asset(asset).values()
        for line in lines:
            line.begin(None)
        aside = self.media / ".removed"
        (self.media / asset).rename(aside)
        for line in lines:
            line.end()
        shutil.rmtree(aside)

    def add(self):
        assets = sorted({a for a, _ in self.world.tracks if a.startswith("temp/")})
        asset = self.rng.choice(assets)
        if (self.media / asset).exists():
            return
        hidden = self.media / ".added"
        hidden.mkdir()
        fresh = {}
        for track in self.world.of_asset(asset):
            fresh[track] = self.makers[asset, track](self.rng)
            fresh[track].write(hidden / (track if fresh[track].folder else f"{track}.mp4"))
        self.note(f"add {asset}")
        for track, version in fresh.items():
            self.world.tracks[asset, track].begin(version)
        hidden.rename(self.media / asset)
        for track in fresh:
            self.world.tracks[asset, track].end()

    # ---- keys, configuration, logs, certificates

    def rotate(self, scope=None, revoke=None, grace=0):
        if scope is None:
            revoke, grace = self.rng.random() < 0.3, self.rng.choice([0, 0.3, 1, 3, 10, 60])
            scope = self.rng.choice(["", "album/", "live/", "temp/", *(a for a, _ in self.world.tracks)] if self.rng.random() < 0.7 else
                                    ["album/one", "free/clear", "live/codecs"])
        now, limit = time.monotonic(), RECORD_EPOCHS
        self.note(f"rotate {scope!r} {'--revoke' if revoke else f'grace {grace} s'}")
        pending = Rotation(now, float("inf"), scope, 0 if revoke else grace, revoke)
        self.world.epochs.rotations.append(pending)
        if self.rng.random() < 0.2:
            argv = [self.server.argv[0], "rotate", *([scope] if scope else ["--all"]), "--admin", f"127.0.0.1:{self.server.admin_port}"]
            r = subprocess.run(argv + (["--revoke"] if revoke else ["--grace", f"{int(grace * 1000)}ms"]), capture_output=True, text=True, timeout=60)
            good, said = r.returncode == 0, r.stdout + r.stderr
        else:
            query = f"scope={urllib.parse.quote(scope)}" + ("&revoke=1" if revoke else f"&grace_ms={int(grace * 1000)}")
            r = self.server.admin(f"/rotate?{query}", "POST")
            good, said = r.status == 200, repr(r)
        if good:
            self.world.epochs.rotations[-1] = pending._replace(end=time.monotonic())
            return
        self.world.epochs.rotations.pop()
        if self.world.epochs.current(RECORDS, now, now)[0] < limit and not self.world.fails(now, time.monotonic()):
            self.fail(f"rotation of {scope!r} fails: {said}")

    def rotations(self):
        scope = self.rng.choice(["", "album/", "live/codecs"])
        for _ in range(self.rng.randrange(3, 12)):
            self.rotate(scope, False, 10)

    def replace_and_revoke(self):
        """Revoked while somebody asks for what was just put there, and is therefore being opened. Who asks after the answer to the
        revocation gets nothing of the revoked epoch, though the others' opening is under way."""
        name = self._there()
        if not name:
            return
        asset, scheme, now = name[0], self.rng.choice(["cenc", "cbcs"]), time.monotonic()
        self.replace(name)
        self.rotate(asset, False, 60)
        epoch = self.world.epochs.current(asset, now, time.monotonic())[1]

        def ask():
            asks = [Ask(asset, scheme, epoch, name[1], "init"), Ask(asset, scheme, epoch, name[1], "master"), Ask(asset, scheme, epoch, name[1], "media")]
            return [(self.clients.ask(a), [a]) for a in asks]
        waiting = ask()
        time.sleep(self.rng.random() * 0.03)
        self.rotate(asset, True, 0)
        waiting += ask()
        for c, asks in waiting:
            self.clients.answers(c, asks)
            c.close()

    def write_config(self, config, more=""):
        schemes = "[cenc, cbcs, clear]" if config.free_clear else "[cenc, cbcs]"
        (self.server.folder / "sluice.yaml").write_text(
            f"segment_target: {config.target_s}s\nassets:\n  - {{ prefix: free/, schemes: {schemes} }}\nkeepalive_requests: {config.keepalive}\n"
            f"{self.fixed}{more}")

    def hup(self, pattern):
        while True:
            seen, begin = len(self.server.log()), time.monotonic()
            self.server.signal(signal.SIGHUP)
            line = self.server.wait_log(r"info reloaded|reload refused", 30, seen)
            if line and pattern in line:
                return
            if not self.world.fails(begin, time.monotonic()):
                self.fail(f"SIGHUP: {line!r}, not {pattern!r}")
                return

    def reload_good(self):
        config = Config(self.rng.choice([1, 2]), self.rng.random() < 0.7, self.rng.choice([0, 0, 40]),
                        self.rng.choice([0, 0, 1]))
        self.note(f"reload {config}")
        (self.work / "master.new").write_bytes(SECRETS[config.secret])
        (self.work / "master.new").chmod(0o600)
        self.world.config.begin(config)
        (self.work / "master.new").rename(self.work / "master.key")
        self.write_config(config)
        self.hup("info reloaded")
        self.world.config.end()

    def reload_bad(self):
        how = self.rng.choice(["option", "keys", "certificate", "no keys"])
        self.note(f"bad reload: {how}")
        config, keys = self.world.config.now(), self.server.folder / "keys.yaml"
        was = keys.read_text()
        if how == "option":
            self.write_config(config, "nonsense: 1\n")
        elif how == "keys":
            keys.write_text(was + "  - nonsense\n")
        elif how == "no keys":
            keys.rename(keys.with_suffix(".away"))
        else:
            (self.work / "server.key").write_text("no key\n")
        self.hup("reload refused")
        if how == "no keys":
            keys.with_suffix(".away").rename(keys)
        keys.write_text(was)
        self.write_config(config)
        shutil.copyfile(self.pairs[self.serials.index(self.certificates.now())][1], self.work / "server.key")

    def certificate(self):
        n = self.rng.randrange(len(self.pairs))
        self.note(f"certificate {n}")
        for source, name in zip(self.pairs[n], ("server.crt", "server.key")):
            shutil.copyfile(source, self.work / ".fresh")
            (self.work / ".fresh").rename(self.work / name)
        self.certificates.begin(self.serials[n])
        self.hup("info reloaded")
        self.certificates.end()

    def reopen_log(self):
        """As logrotate does: renamed, then the signal."""
        log = self.work / "logs" / "access.log"
        self.logs += 1
        self.note(f"access log number {self.logs}")
        log.rename(log.with_suffix(f".{self.logs}"))
        self.server.signal(signal.SIGUSR1)
        begin = sent = time.monotonic()
        while not log.exists():
            now = time.monotonic()
            if now > begin + 20:
                self.fail("SIGUSR1: no new access log within 20 s")
                return
            if now > sent + 1 and self.world.fails(begin, now):  # it could not be opened then
                self.server.signal(signal.SIGUSR1)
                sent = now
            time.sleep(0.02)

    def flood(self):
        """More connections than there may be, for a moment."""
        self.note("flood")
        self.world.flood.begin(True)
        crowd = []
        for _ in range(self.crowd):
            s = socket.socket()
            s.settimeout(5)
            try:
                s.connect(("127.0.0.1", self.server.port))
                crowd.append(s)
            except OSError:
                s.close()
        time.sleep(self.rng.random() * 0.5)
        for s in crowd:
            s.close()
        self.world.flood.end()
        self.world.flood.begin(False)
        time.sleep(0.5)
        self.world.flood.end()


class Watch:
    """An operator's monitoring: probes that answer in time, memory within its bounds."""

    def __init__(self, server, fail, bounds):
        self.server, self.fail, self.bounds = server, fail, bounds
        self.stop, self.slowest, self.most, self.probes = threading.Event(), 0, {}, 0
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _probe(self, path):
        begin = time.monotonic()
        c = Client(self.server.admin_port)
        try:
            r = c.get(path, headers={"Connection": "close"})
        finally:
            c.close()
        took = time.monotonic() - begin
        self.slowest, self.probes = max(self.slowest, took), self.probes + 1
        if r.status != 200 or took > self.bounds["probe"]:
            self.fail(f"{path}: {r.status} after {took:.1f} s, bound {self.bounds['probe']} s")
        return r

    def _run(self):
        while not self.stop.is_set():
            try:
                self.look()
            except Exception as e:
                self.fail(f"the admin listener: {e!r}")
            self.stop.wait(0.5)

    def look(self):
        self._probe("/ready")
        status = json.loads(self._probe("/status").body)
        found = {"cache": status["cache"]["memory"], "index": status["catalogue"]["index_bytes"] + status["catalogue"]["manifest_bytes"],
                 "rss": rss(self.server.process.pid)}
        for what, n in found.items():
            self.most[what] = max(n, self.most.get(what, 0))
            if n > self.bounds[what]:
                self.fail(f"{what}: {n} bytes, bound {self.bounds[what]}")
        return status


def rss(pid):
    with open(f"/proc/{pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
