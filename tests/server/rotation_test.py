#!/usr/bin/env python3
"""Rotation of a running server: token, schedule, revocation under load, kill -9, DRM configuration while running: rotation_test.py SLUICE"""
import contextlib
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import boxes, synth  # noqa: E402
from judge.programs import run  # noqa: E402
from judge.server import Client, Server  # noqa: E402
from judge.slow_disk import slow_disk  # noqa: E402
from judge.tap import Tap  # noqa: E402

TOKEN = "correct-horse-battery"


def media_in(work, assets):
    media = work / "media"
    for n, asset in enumerate(assets):
        (media / asset).mkdir(parents=True)
        (media / asset / "t.mp4").write_bytes(bytes(synth.plain(300 + n)[0]))
    return media


def epoch(server, asset):
    m = re.search(rb"(\d+)/t/media\.m3u8", server.get(f"/{asset}/cbcs/master.m3u8").body)
    return int(m.group(1))


def order(server, query, token=None):
    c = Client(server.admin_port, timeout=10)
    try:
        return c.get(f"/rotate?{query}", "POST", {"Connection": "close", **({"Authorization": f"Bearer {token}"} if token else {})})
    finally:
        c.close()


def reload(server, tap, name, wait="reloaded"):
    seen = len(server.log())
    server.signal(signal.SIGHUP)
    line = server.wait_log(wait, after=seen)
    return tap.ok(line, f"{name}: the log says '{wait}'", server.log()[seen:])


def told(server):
    """How many lines tell of orders without the right token, and of how many."""
    numbers = [int(line.rpartition(": ")[2]) for line in server.log() if "without the right token" in line]
    return len(numbers), sum(numbers)


def tokens(tap, sluice, work, media):
    file = work / "token"
    file.write_text(TOKEN + "\n")
    with Server(sluice, media, "--admin-token-file", str(file)) as server:
        admin = f"127.0.0.1:{server.admin_port}"
        for name, token in (("no token", None), ("another", "wrong-horse-battery"), ("a prefix", TOKEN[:-1]), ("more", TOKEN + "x")):
            r = order(server, "scope=", token)
            tap.ok(r.status == 401 and r["www-authenticate"] == "Bearer", f"{name}: 401", r)
        tap.equal(epoch(server, "a"), 1, "nothing was rotated")
        began = time.monotonic()
        for _ in range(50):
            order(server, "scope=", "wrong-horse-battery")
        lines, most = told(server)[0], 1 + (time.monotonic() - began + 10) / 10
        tap.ok(1 <= lines <= most, "who guesses fills no log", (lines, most))
        end = time.monotonic() + 30
        while told(server)[1] < 54 and time.monotonic() < end:
            time.sleep(0.05)
        tap.equal(told(server)[1], 54, "all that were refused are told in the end, though nobody asks any more")
        tap.equal([server.admin(p).status for p in ("/status", "/metrics", "/ready")], [200] * 3, "what changes nothing needs no token")
        tap.equal(order(server, "scope=a", TOKEN).status, 200, "the token rotates")
        r = run(sluice, "rotate", "--all", "--admin", admin)
        tap.ok(r.code == 1 and "401" in r.err, "sluice rotate without it is refused", r)
        r = run(sluice, "rotate", "--all", "--admin", admin, "--token-file", file)
        tap.ok(r.code == 0 and epoch(server, "a") == 3, "sluice rotate sends it from a file", r)
        file.write_text("another-token-now\n")
        reload(server, tap, "another token in the file")
        tap.equal([order(server, "scope=", t).status for t in (TOKEN, "another-token-now")], [401, 200], "the new token counts")
        tap.ok(not any(t in line for line in server.log() for t in (TOKEN, "another-token-now")), "no token in the log")
        file.write_text("short\n")
        reload(server, tap, "a token that is too short", "reload refused.*16 to 512")
        more = [order(server, "scope=", "wrong-horse-battery").status for _ in range(3)]
        tap.equal((more, server.stop()), ([401] * 3, 0), "three more, just before the end")
        tap.equal(told(server)[1], 54 + 2 + 3, "are told at the end")


def orders(tap, sluice, work, media):
    """An order that cannot be understood whole is refused whole: nobody believes keys to be revoked that are not."""
    with Server(sluice, media) as server:
        for query in ("", "revoke=1", "scope", "scope=a&revoke=true", "scope=a&revoke=", "scope=a&revoke=2", "scope=a&grace_ms=1h", "scope=a&grace_ms=%3", "scope=a&grace=0",
                      "scope=a&grace_ms=0&grace_ms=5000", "scope=a&scope=b", "scope=%zz", "scope=" + "a" * 1025, "scope=a&revoke=1;x", "Scope=a", f"scope=a&grace_ms={'9' * 40}",
                      f"scope=a&grace_ms={365 * 86400000 + 1}"):
            r = order(server, query)
            tap.ok(r.status == 400 and b'"error"' in r.body, f"an order {query[:40]!r} is refused", r)
        for query in ("scope=a&revoke=1&grace_ms=1", "grace_ms=3600000&scope=a&revoke=1"):
            r = order(server, query)
            tap.ok(r.status == 400 and b"a revocation has no grace" in r.body, f"a revocation with a grace {query!r} is refused", r)
        tap.equal(epoch(server, "a"), 1, "nothing was rotated")
        r = order(server, "revoke=0&scope=%61&grace_ms=0")
        tap.ok(r.status == 200 and b'"epoch":2' in r.body and b'"revoked":false' in r.body, "an order in another sequence, encoded, is carried out", r)
        r = order(server, "scope=b&grace_ms=0&revoke=1")
        tap.ok(r.status == 200 and b'"grace_ms":0,"revoked":true' in r.body, "a revocation with a grace of nothing is carried out", r)
        r = order(server, "scope=%C2%9B1m%C3%A4")
        tap.ok(r.status == 200 and '"scope":"\\u009b1mä"'.encode() in r.body, "a control character of two bytes is escaped, as others are", r)
        r = order(server, "scope=two+words%2Bone/")
        tap.ok(r.status == 200 and b'"scope":"two words+one/"' in r.body, "+ is a space, %2B a plus", r)
    record = f"keys: [ {{ asset: a, epoch: 1, scheme: cbcs, kid: '{'1' * 32}', key: '{'2' * 32}' }} ]\n"
    with Server(sluice, media, keys=record) as server:
        r = order(server, "scope=a")
        tap.ok(r.status == 409 and b'"error"' in r.body and epoch(server, "a") == 1, "without a key for the next epoch: 409, and nothing is rotated", r)


def outside(tap, sluice, work, media):
    conf, far = work / "conf", work / "far"
    for d in (conf, far):
        d.mkdir()
        (d / "keys.yaml").write_text("derive: {}\n")
    (conf / "sluice.yaml").write_text(f"keys: {conf}/keys.yaml\n")
    with Server(sluice, media, "-c", str(conf / "sluice.yaml")) as server:
        if not server.wait_log("files and system calls are confined", timeout=1):
            tap.skip("a keys file in a folder that was not named at start", "no Landlock here, or a sanitizer")
            return
        (conf / "sluice.yaml").write_text(f"keys: {far}/keys.yaml\n")
        reload(server, tap, "a keys file in a folder that was not named at start", "reload refused.*far/keys.yaml.*sandbox.*restart")
        tap.equal(server.get("/a/cbcs/master.m3u8").status, 200, "it goes on with the old one")
        (conf / "sluice.yaml").write_text(f"keys: {conf}/new.yaml\n")
        (conf / "new.yaml").write_text("derive: {}\n")
        reload(server, tap, "one beside the old one")


def secret_away(tap, sluice, work, media):
    """A secret that is not there at a reload is not made anew: every key would be another. One that nothing derived from yet is."""
    with Server(sluice, media) as server:
        path, secret, want = server.state / "derive.secret", None, server.get("/a/cbcs/1/t.mp4").body
        secret = path.read_bytes()
        path.unlink()
        reload(server, tap, "the secret is away", "reload refused.*derive.secret: the secret that keys in force come from is not there: put it back")
        tap.ok(not path.exists() and server.get("/a/cbcs/1/t.mp4").body == want, "none is made, and the keys are those that were", sorted(server.state.iterdir()))
        path.write_bytes(secret)
        path.chmod(0o600)
        reload(server, tap, "the secret is back")
        tap.equal(server.get("/a/cbcs/1/t.mp4").body == want, True, "and so are its keys")
    other = work / "other-state"
    other.mkdir(mode=0o700)
    (other / "derive.secret").write_bytes(bytes(32))
    (other / "derive.secret").chmod(0o600)
    with Server(sluice, media, config="{}\n") as server:
        at = server.argv.index("--state-dir")  # the file is to name it: a flag stays
        del server.argv[at:at + 2]
        (server.folder / "sluice.yaml").write_text(f"state_dir: {server.state}\n")
        tap.equal(server.restart(), 0, "state_dir in the configuration")
        want = server.get("/a/cbcs/1/t.mp4").body
        (server.folder / "sluice.yaml").write_text(f"state_dir: {other}\n")
        reload(server, tap, "another state folder", "reload: state_dir changed but needs a restart")
        tap.equal(server.get("/a/cbcs/1/t.mp4").body == want, True, "the secret is that of the folder in use, as the journal is")
    record = f"keys: [ {{ asset: a, epoch: 1, scheme: cbcs, kid: '{'1' * 32}', key: '{'2' * 32}' }} ]\n"
    with Server(sluice, media, keys=record) as server:
        (server.folder / "keys.yaml").write_text("derive: {}\n")
        reload(server, tap, "keys are derived from now on")
        tap.equal(((server.state / "derive.secret").exists(), server.get("/a/cbcs/1/t.mp4").status), (True, 200), "the first secret is made")


def keys_emptied(tap, sluice, work, media):
    """A full disk leaves a keys file of no bytes. Read as `derive: {}` it would be other keys for all, and a new secret for them."""
    record = f"keys: [ {{ asset: a, epoch: 1, scheme: cbcs, kid: '{'1' * 32}', key: '{'2' * 32}' }} ]\n"
    with Server(sluice, media, keys=record) as server:
        keys, want = server.folder / "keys.yaml", server.get("/a/cbcs/1/t.mp4").body
        for name, text in ("no bytes", ""), ("a line feed", "\n"), ("white space", " \n\t\n \n"):
            keys.write_text(text)
            reload(server, tap, f"a keys file of {name}", "reload refused.*keys.yaml: the file is empty now, and every key would be another")
        tap.ok(server.get("/a/cbcs/1/t.mp4").body == want and not (server.state / "derive.secret").exists(), "the keys stay, and no secret is made",
               sorted(server.state.iterdir()))
        keys.write_text(record)
        reload(server, tap, "the keys file is back")
    with Server(sluice, media, keys="") as server:
        want = server.get("/a/cbcs/1/t.mp4").body
        reload(server, tap, "one that had no bytes at the start either")
        tap.equal(server.get("/a/cbcs/1/t.mp4").body == want, True, "means derivation, as it did")
    with Server(sluice, media, config="schemes: [cbcs]\n") as server:
        for name, text in ("no bytes", ""), ("a line feed", "\n"):
            (server.folder / "sluice.yaml").write_text(text)
            reload(server, tap, f"a configuration of {name}", "reload refused.*sluice.yaml: the file is empty now")
        tap.equal(server.get("/a/cenc/1/t.mp4").status, 403, "what it said stays in force")
        (server.folder / "sluice.yaml").write_text("# nothing\n")
        reload(server, tap, "one that says nothing")
        tap.equal(server.get("/a/cenc/1/t.mp4").status, 200, "is taken")


def signalled(server, asset, scheme="cbcs"):
    r = server.get(f"/{asset}/{scheme}/manifest.mpd")
    known = {b"edef8ba9": "widevine", b"9a04f079": "playready", b"e2719d58": "clearkey"}
    return sorted(known[u] for u in set(re.findall(rb'schemeIdUri="urn:uuid:(\w{8})', r.body)) & set(known)) if r.status == 200 else r.status


def inband(server, asset):
    init = server.get(f"/{asset}/cbcs/1/t/init.mp4").body
    return sorted(init[b.start + 12:b.start + 16].hex() for b in boxes.find(init, b"moov/pssh"))


def systems(tap, sluice, work, media):
    keys = work / "drm.yaml"
    keys.write_text("drm: { systems: [widevine] }\n")
    with Server(sluice, media, "--keys", str(keys)) as server:
        tap.equal([signalled(server, a) for a in ("a", "live/b", "live/c")], [["widevine"]] * 3, "one system for everything")
        tap.equal([inband(server, a) for a in ("a", "live/b")], [[], []], "no box in the init segments")
        keys.write_text("drm:\n  systems: [playready]\n  rules:\n    - { match: live/, systems: [widevine, playready], in_band: [widevine] }\n"
                        "    - { match: live/c, systems: [clearkey], schemes: [cenc] }\n")
        reload(server, tap, "other systems for everything, a prefix and an asset")
        tap.equal([signalled(server, a) for a in ("a", "live/b")], [["playready"], ["playready", "widevine"]], "everything and a prefix")
        tap.equal([signalled(server, "live/c", s) for s in ("cenc", "cbcs")], [["clearkey"], 403], "an asset, and its schemes")
        tap.equal([inband(server, a) for a in ("a", "live/b")], [[], ["edef8ba9"]], "boxes in the init segments of the prefix")
        tap.equal(server.get("/live/c/cbcs/1/t.mp4").status, 403, "segments of a scheme that was taken away: 403")
        keys.write_text("drm: { systems: [none-such] }\n")
        reload(server, tap, "a system that does not exist", "reload refused.*unknown system")
        tap.equal(signalled(server, "a"), ["playready"], "the old ones stay")


def schedules(tap, sluice, work, media):
    keys, state = work / "schedule.yaml", work / "schedule"
    state.mkdir(mode=0o700)
    keys.write_text("epochs: { schedule: [ { match: live/, every: 1s, grace: 1h } ] }\n")
    with Server(sluice, media, "--keys", str(keys), "--manifest-max-age", "0", state=state) as server:
        end = time.monotonic() + 30
        while epoch(server, "live/b") < 3 and time.monotonic() < end:
            time.sleep(0.05)
        n = epoch(server, "live/b")
        tap.ok(n >= 3 and epoch(server, "a") == 1, f"every second: epoch {n}; what is not scheduled stays in epoch 1")
        keys.write_text("derive: {}\n")
        reload(server, tap, "no schedule any more")
        for _ in range(3):  # but for one that was under way; one that goes on is never still for so long
            n = epoch(server, "live/b")
            time.sleep(1.3)
            if epoch(server, "live/b") == n:
                break
        tap.equal(epoch(server, "live/b"), n, "it has ended")
        tap.ok(f'sluice_rotations_total{{worker="shared"}} {n - 1}\n' in server.admin("/metrics").body.decode(), "each is counted")
    lines = [x.split() for x in (state / "rotations.journal").read_text().splitlines()]
    slots = [int(x[5]) for x in lines if x[1] == "scheduled"]
    tap.ok(len(slots) == n - 1 == len(set(slots)) and all(s % 1000 == 0 for s in slots), "one line for each slot, none twice", lines)


def due(tap, sluice, work, media):
    """A rotation that cannot be made is tried, and said, once a minute, not with every look; and as soon as the keys file is another."""
    keys, state = work / "due.yaml", work / "due"
    state.mkdir(mode=0o700)
    text = "epochs: { schedule: [ { match: a, every: 1s } ] }\nkeys:\n  - { asset: a, scheme: cbcs, kid: %032x, key: %032x }\n" % (1, 2)
    keys.write_text(text)
    said = "is due and failed"
    with Server(sluice, media, "--keys", str(keys), state=state) as server:
        server.wait_log(said)
        time.sleep(3)
        tap.equal(sum(said in line for line in server.log()), 1, "said once in three seconds")
        reload(server, tap, "the same keys file", said)
        keys.write_text(text + "  - { asset: a, epoch: 2, scheme: cbcs, kid: %032x, key: %032x }\n" % (3, 4))
        reload(server, tap, "with the next key", "rotated a, by schedule")


def shared(tap, sluice, work, media):
    """A second server on the same state folder; the epoch to begin with, changed while running."""
    state, keys = work / "shared", work / "shared.yaml"
    state.mkdir(mode=0o700)
    keys.write_text("epochs: { default: 1 }\n")
    with Server(sluice, media, "--keys", str(keys), "--manifest-max-age", "0", state=state) as server:
        r = run(sluice, "serve", "--media", media, "--state-dir", state, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", timeout=20)
        tap.ok(r.code == 1 and str(state) in r.err and "state_dir of its own" in r.err, "a second server on a state folder: refused, with the folder named", r)
        tap.equal(order(server, "scope=a").status, 200, "the first one goes on")
        keys.write_text("epochs: { default: 5 }\n")
        reload(server, tap, "epochs.default changed", "epochs.default changed from 1 to 5 but needs a restart")
        tap.equal((epoch(server, "a"), epoch(server, "live/b")), (2, 1), "the epochs stay")
    with Server(sluice, media, "--keys", str(keys), "--manifest-max-age", "0", state=state) as server:
        tap.equal((epoch(server, "a"), epoch(server, "live/b")), (6, 5), "a restart takes both over")


def killed(tap, sluice, work, media):
    """The whole server killed while it is ordered to rotate as fast as it can."""
    state, acked, wrong = work / "killed", 0, []
    state.mkdir(mode=0o700)
    for _ in range(4):
        server = Server(sluice, media, state=state)
        with server:
            found = epoch(server, "a") - 1
            if found not in (acked, acked + 1):
                wrong.append((acked, found))
            acked = found
            first = acked
            try:
                c = Client(server.admin_port)
                while c.get("/rotate?scope=a&grace_ms=0", "POST").status == 200:
                    acked += 1
                    if acked == first + 1:
                        threading.Timer(random.uniform(0.02, 0.15), server.process.kill).start()
            except (OSError, EOFError):
                pass
            server.process.wait()
    tap.ok(acked >= 4 and not wrong, f"{acked} acknowledged rotations outlived kill -9", wrong)


def revoked(tap, sluice, work, media):
    """Everything asked for after the answer to a revocation is 410, whoever has it in a cache; what was under way is whole."""
    flags = ("--cache-encrypted", "8M", "--segment-target", "0")
    with Server(sluice, media, *flags) as server:
        paths = [f"/{a}/{s}/1/{rest}" for a in ("a", "live/b", "live/c") for s in ("cenc", "cbcs")
                 for rest in ("t.mp4", "t/1.m4s", "t/init.mp4", "t/media.m3u8")]
        want = {p: server.get(p).body for p in paths}
        stop, lock, log, broken = threading.Event(), threading.Lock(), [], []

        def ask(seed):
            r, c = random.Random(seed), server.client()
            while not stop.is_set():
                p, at = r.choice(paths), time.monotonic()
                got = c.get(p)
                with lock:
                    log.append((p, at, time.monotonic(), got.status))
                    if got.status == 200 and got.body != want[p]:
                        broken.append(p)

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        asked, done = {}, {}

        def enough(scope, since):
            """Waits until so many were asked for and answered since then, for as long as a busy machine needs."""
            end = time.monotonic() + 60
            while time.monotonic() < end:
                with lock:
                    if sum(p.startswith("/" + scope) and at > since for p, at, _, _ in log) > 60:
                        return
                time.sleep(0.02)
        for scope in ("live/", "a"):
            enough(scope, 0)
            asked[scope] = time.monotonic()
            tap.equal(order(server, f"scope={scope}&revoke=1").status, 200, f"{scope} is revoked under load")
            done[scope] = time.monotonic()
            enough(scope, done[scope])
        stop.set()
        for t in threads:
            t.join()
        for scope, at in done.items():
            mine = [x for x in log if x[0].startswith("/" + scope)]
            late = [x for x in mine if x[1] > at]
            before = [x for x in mine if x[2] < asked[scope]]
            tap.ok(len(late) > 50 and all(x[3] == 410 for x in late), f"{scope}: {len(late)} requests after the answer, all 410",
                   [x for x in late if x[3] != 410][:5])
            tap.ok(len(before) > 50 and all(x[3] == 200 for x in before), f"{scope}: {len(before)} before it, all served")
        tap.ok(not broken, "no response was cut or mixed", broken[:5])
        tap.equal([epoch(server, a) for a in ("a", "live/b")], [2, 2], "manifests name the next epoch")
        tap.equal(server.get("/live/b/cbcs/2/t/1.m4s").status, 200, "which is served")
        ranged = server.get("/a/cbcs/1/t.mp4", headers={"Range": "bytes=0-99"}).status
        cond = server.get("/a/cbcs/1/t.mp4", headers={"If-None-Match": "*"}).status
        tap.equal([ranged, cond], [410, 410], "ranges and conditional requests too")


def asked_to_end(server):
    """Exit status of a server that is asked to end, once; None when it does not."""
    server.signal(signal.SIGTERM)
    try:
        return server.process.wait(20)
    except subprocess.TimeoutExpired:
        return None


def slow_schedule(tap, sluice, work, media):
    """While the disk of the journal stands still and a schedule is due, signals are heard."""
    keys, state = work / "slow_schedule.yaml", work / "slow_schedule"
    state.mkdir(mode=0o700)
    env, still = slow_disk(tap, work)
    if not env:
        return
    keys.write_text("epochs: { schedule: [ { match: live/, every: 1s, grace: 1h } ] }\n")

    def held_up(server, name):
        still.touch()
        for _ in range(2):  # a line that was being written when the disk stopped may reach it yet
            n = epoch(server, "live/b")
            time.sleep(2.5)
            if epoch(server, "live/b") == n:
                break
        tap.equal(epoch(server, "live/b"), n, f"{name}: a rotation is due and held up")
        return n

    def begun():
        return Server(sluice, media, "--keys", str(keys), "--manifest-max-age", "0", env=env, state=state)
    with begun() as server:
        tap.ok(server.wait_log("rotated live/, by schedule"), "a disk that does not stand still: rotated by schedule", server.log())
        n = held_up(server, "the disk stands still")
        reload(server, tap, "SIGHUP is heard meanwhile")
        tap.equal([server.admin(x).status for x in ("/ready", "/status", "/metrics")], [200] * 3, "the admin listener answers")
        still.unlink()
        end = time.monotonic() + 20
        while epoch(server, "live/b") < n + 2 and time.monotonic() < end:
            time.sleep(0.1)
        tap.ok(epoch(server, "live/b") >= n + 2, "when the disk is back the schedule goes on")
        held_up(server, "again")
        tap.equal(asked_to_end(server), 0, "SIGTERM is heard meanwhile and ends the server")
        tap.ok(server.wait_log("by schedule.*not waited for"), "which says what it did not wait for", server.log()[-5:])
        still.unlink()
    with begun() as server:
        held_up(server, "once more")
        c = Client(server.admin_port)
        c.send("/rotate?scope=a", "POST")
        tap.equal(server.admin("/live").status, 200, "an order waits for the schedule")
        tap.equal(asked_to_end(server), 0, "SIGTERM, once, ends the server")
        tap.ok(server.wait_log("not waited for"), "which says so", server.log()[-5:])
        c.close()
        still.unlink()
    with begun() as server:
        tap.equal(epoch(server, "a"), 1, "the order was not made behind its back")
        tap.ok(server.wait_log("rotated live/, by schedule"), "the next start makes it", server.log())
        tap.equal(server.stop(), 0, "and ends in good order")
    lines = [x.split() for x in (state / "rotations.journal").read_text().splitlines()]
    slots = [x[5] for x in lines if x[1] == "scheduled"]
    tap.ok(len(slots) == len(set(slots)), "no moment of the schedule has two rotations", lines)


def answered(port):
    """Whether somebody who connects is answered soon."""
    try:
        with contextlib.closing(Client(port, timeout=0.3)) as c:
            return c.get("/live").status == 200
    except (OSError, EOFError):
        return False


def slow(tap, sluice, work, media):
    """While the disk of the journal stands still, whoever gave no order notices nothing."""
    env, still = slow_disk(tap, work)
    if not env:
        return
    with Server(sluice, media, env=env) as server:
        tap.equal(order(server, "scope=a").status, 200, "a rotation on a disk that does not stand still")
        still.touch()
        clients = [Client(server.admin_port, timeout=30) for _ in range(9)]
        for c in clients[:8]:
            c.send("/rotate?scope=a&grace_ms=600000", "POST")
        refused = clients[8].get("/rotate?scope=a", "POST")
        tap.ok(refused.status == 503 and b"state_dir" in refused.body, "eight orders wait, the ninth is refused", refused)
        clients[8].send("/live")
        tap.equal(clients[8].read().status, 200, "on a connection that goes on")
        tap.equal([server.admin(x).status for x in ("/live", "/ready", "/status", "/metrics", "/")], [200] * 5, "the admin listener answers")
        tap.equal([server.get(x).status for x in ("/a/cbcs/2/t/1.m4s", "/live/c/cenc/manifest.mpd", "/live/b/cbcs/1/t/init.mp4")], [200] * 3, "media and manifests are made")
        tap.equal(epoch(server, "a"), 2, "nothing is in force before it is on disk")
        for _ in range(40):
            server.admin("/live")
        crowd = [Client(server.admin_port) for _ in range(40)]  # more than there is room for, who say nothing
        time.sleep(0.5)
        tap.equal(server.admin("/live").status, 200, "of a crowd somebody gives way")
        for c in crowd:
            c.close()
        clients[3].close()
        still.unlink()
        got = [c.read() for i, c in enumerate(clients[:8]) if i != 3]
        tap.equal([int(re.search(rb'"epoch":(\d+)', r.body).group(1)) for r in got], [3, 4, 5, 7, 8, 9, 10], "then they are carried out in turn")
        clients[0].send("/live")
        tap.equal(clients[0].read().status, 200, "their connections go on")
        still.touch()
        clients[0].send("/rotate?scope=a&grace_ms=600000", "POST")
        tap.equal(server.admin("/live").status, 200, "another waits")
        server.signal(signal.SIGTERM)
        tap.ok(server.wait_log("draining"), "the end is asked for meanwhile")
        while answered(server.admin_port):  # until the drain is over and nobody else is taken; of the seconds for the end most are left
            pass
        still.unlink()
        r = clients[0].read()
        tap.ok(r.status == 200 and b'"epoch":11,' in r.body, "and waits for it: who gave it is told", r)
        tap.equal(server.process.wait(20), 0, "then it ends")
        tap.ok(server.wait_log("stopped$"), "though that connection stays", server.log()[-3:])
        for c in clients:
            c.close()
    with Server(sluice, media, env=env) as server:
        still.touch()
        c = Client(server.admin_port)
        c.send("/rotate?scope=a", "POST")
        tap.equal(server.admin("/live").status, 200, "another order waits")
        tap.equal(asked_to_end(server), 0, "the end does not wait for it for long")
        tap.ok(server.wait_log("an order to rotate that .* is not waited for"), "which is said", server.log()[-3:])
        c.close()
        still.unlink()
    del env["SLOW_DISK"]
    with Server(sluice, media, env={**env, "SLOW_FOLDERS": str(still)}) as server:
        tap.equal([server.get(f"/{x}/cbcs/1/t/init.mp4").status for x in ("a", "live/b", "live/c")], [200] * 3, "two assets and one more")
        still.touch()

        def revoke(scope):
            try:
                return order(server, f"scope={scope}&revoke=1")
            except TimeoutError:
                return None
        answers = [revoke(x) for x in ("a", "live/b", "live/")]
        tap.ok(all(r and r.status == 200 and b"on_storage" not in r.body for r in answers),
               "revoking waits for no folder that does not answer", answers)
        tap.equal([server.get(f"/{x}/cbcs/1/t/init.mp4").status for x in ("a", "live/b", "live/c")], [410] * 3, "and is in force")
        still.unlink()
        end = time.monotonic() + 20
        while b'"on_storage":true' not in (r := order(server, "scope=a")).body and time.monotonic() < end:
            time.sleep(0.2)
        tap.ok(b'"on_storage":true' in r.body, "when folders answer again the asset is seen", r)
    env["SLOW_MEDIA"] = str(still)
    with Server(sluice, media, "--drain-timeout", "500ms", env=env) as server:
        still.touch()
        c = server.client()
        c.send("/live/b/cbcs/1/t.mp4")
        time.sleep(0.3)
        tap.equal(asked_to_end(server), 0, "media that do not answer hold up nobody's end either")
        tap.ok(server.wait_log("storage that does not answer is not waited for"), "which is said too", server.log()[-3:])
        c.close()
        still.unlink()


def revoked_while_opening(tap, sluice, work, media):
    """Who asks after the answer to a revocation does not get what somebody's question before it is still being answered with: a file that
    was changed a moment ago takes its time to open."""
    late = {"init.mp4": [], "media.m3u8": [], "master.m3u8": []}
    file, tries = media / "a" / "t.mp4", 25
    with Server(sluice, media) as server:
        for n in range(tries):
            old = 2 * n + 2
            fresh = file.with_name(".new")
            fresh.write_bytes(synth.plain(100 + n)[0])
            fresh.rename(file)
            order(server, "scope=a&grace_ms=60000")
            paths = [f"/a/cbcs/{old}/t/init.mp4", f"/a/cbcs/{old}/t/media.m3u8", "/a/cbcs/master.m3u8"]
            clients = [server.client() for _ in range(2 * len(paths))]
            for c, p in zip(clients, paths):
                c.send(p)
            time.sleep(0.001 * n)
            order(server, "scope=a&revoke=1")
            for c, p in zip(clients[len(paths):], paths):
                c.send(p)
            for c, p in zip(clients[len(paths):], paths):
                r = c.read()
                late[p.rpartition("/")[2]].append(r.status if f"/{old}/" in p else (r.status, f"\n{old + 1}/t/media.m3u8".encode() in r.body))
            for c in clients:
                c.close()
    for name, want in (("init.mp4", 410), ("media.m3u8", 410), ("master.m3u8", (200, True))):
        tap.equal(late[name], [want] * tries, f"revoked while the file is being opened for another: {name}")


def main():
    tap = Tap()
    sluice = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory(prefix="sluice-rotation-") as folder:
        work = pathlib.Path(folder)
        media = media_in(work, ["a", "live/b", "live/c"])
        for part in (tokens, orders, outside, secret_away, keys_emptied, systems, schedules, due, shared, killed, revoked, revoked_while_opening, slow,
                     slow_schedule):
            part(tap, sluice, work, media)
    tap.end()


if __name__ == "__main__":
    main()
