#!/usr/bin/env python3
"""The server's life: start, reload, rotation, replaced media, logs, metrics, end. life.py SLUICE [PART...]"""
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.life_counts import counted, cut_off, limited, no_descriptors, not_accepted, observability, reasons, who_asked_what  # noqa: E402
from integration.life_media import descriptors_kept, full_disk, replaced, same_bytes, same_time, sidecars_in_turn  # noqa: E402
from integration.life_parts import ASSET, await_metrics, listing, media_with, total  # noqa: E402
from integration.life_start import bad_starts, confined, crashed, derived, one_fails, open_secrets, privileges, refused_calls, relative, tokens, warned  # noqa: E402
from integration.truth import keys_file, record, url  # noqa: E402
from judge import boxes, synth  # noqa: E402
from judge.disturbed import undisturbed  # noqa: E402
from judge.programs import Sluice  # noqa: E402
from judge.server import Server  # noqa: E402
from judge.tap import Tap  # noqa: E402


def rotation(tap, sluice, work):
    """A rotation changes KID, key, IVs and URLs at once, writes nothing to the media, and the old URLs still answer."""
    media = media_with(work)
    clear = boxes.audio((media / ASSET / "a.mp4").read_bytes())
    with Server(sluice.path, media, keys=keys_file([ASSET], epochs=(1, 2, 3)), state=work / "state") as server:
        c = server.client()
        old, masters = {}, {}
        for scheme in ("cenc", "cbcs"):
            masters[scheme] = c.get(url(ASSET, scheme, "master.m3u8")).body
            for path in (url(ASSET, scheme, 1, "a.mp4"), url(ASSET, scheme, 1, "a", "1.m4s"), url(ASSET, scheme, 1, "a", "media.m3u8")):
                old[path] = c.get(path)
            tap.equal(c.get(url(ASSET, scheme, 2, "a.mp4")).status, 404, f"{scheme}: epoch 2 does not exist yet")
        before = listing(media)
        r = sluice("rotate", ASSET, "--admin", f"127.0.0.1:{server.admin_port}")
        if not tap.ok(r.code == 0, "sluice rotate", r):
            return
        for scheme in ("cenc", "cbcs"):
            first, second = boxes.audio(old[url(ASSET, scheme, 1, "a.mp4")].body), None
            master = c.get(url(ASSET, scheme, "master.m3u8"))
            tap.ok(b"2/a/media.m3u8" in master.body and b"1/a/media.m3u8" not in master.body
                   and b"1/a/media.m3u8" in masters[scheme], f"{scheme}: the playlist has the new URLs at once", master.body.decode())
            mpd = c.get(url(ASSET, scheme, "manifest.mpd")).body.decode()
            kid = record(ASSET, scheme, 2)[0]
            dashed = f"{kid[:8]}-{kid[8:12]}-{kid[12:16]}-{kid[16:20]}-{kid[20:]}"
            tap.ok(dashed in mpd.lower(), f"{scheme}: the MPD has the new KID at once", mpd[:1500])
            r = c.get(url(ASSET, scheme, 2, "a.mp4"))
            if not tap.ok(r.status == 200, f"{scheme}: the new epoch answers", r):
                continue
            second = boxes.audio(r.body)
            tap.ok(second.tenc.kid.hex() == kid != first.tenc.kid.hex(), f"{scheme}: new KID", second.tenc)
            if scheme == "cbcs":
                tap.ok(second.tenc.constant_iv != first.tenc.constant_iv, "cbcs: new IV")
            else:
                tap.ok(not {s.iv for s in second.samples} & {s.iv for s in first.samples}, "cenc: new IVs")
            same = [s for s, t, u in zip(first.samples, second.samples, clear.samples) if s.size >= 16 and s.data == t.data]
            tap.ok(not same, f"{scheme}: every sample's ciphertext changed")
        for path, was in old.items():
            now = c.get(path)
            tap.ok(now.status == 200 and now.body == was.body and now["etag"] == was["etag"], f"the old epoch still answers: {path}", now)
        tap.equal(listing(media), before, "nothing was written to the media folder")
        c.close()
        r = sluice("rotate", ASSET, "--admin", f"127.0.0.1:{server.admin_port}", "--revoke")
        tap.ok(r.code == 0 and json.loads(r.out)["on_storage"] is True and not r.err, "sluice rotate --revoke", r)
        codes = [server.get(url(ASSET, "cenc", e, "a.mp4")).status for e in (1, 2, 3, 4)]
        tap.equal(codes, [410, 410, 200, 404], "a revoked epoch is gone")
        told = [server.get(url(ASSET, "cenc", e, "a.mp4"))["cache-control"] for e in (1, 4)]
        deep = media / "deep" / "album"
        (deep / "t").mkdir(parents=True)
        (deep / "t" / "init.mp4").write_bytes(b"")
        for name in ("nonexist", "deep", f"{ASSET}/a.mp4", "nonexist/", f"{ASSET}/", "deep/album/", "../outside"):
            r = sluice("rotate", name, "--revoke", "--admin", f"127.0.0.1:{server.admin_port}")
            known = r.code == 1 if name.startswith("..") else r.code == 0 and json.loads(r.out)["on_storage"] is False and "no asset of this name" in r.err
            tap.ok(known, f"rotate of {name}, which is nothing here, says so", r)
        for name in ("deep/", "deep/album"):
            r = sluice("rotate", name, "--admin", f"127.0.0.1:{server.admin_port}")
            tap.ok(r.code == 0 and not r.err and json.loads(r.out)["on_storage"] is True, f"rotate of {name} has no such note", r)
        for name, want in (("x y/é", "x y/é"), ("雨/𝄞", "雨/𝄞"), ('q"\\', 'q"\\'), (os.fsdecode(b"bad\xff\xc3("), "bad\u00ff\u00c3(")):
            r = sluice("rotate", name, "--admin", f"127.0.0.1:{server.admin_port}")
            scopes = [e["scope"] for e in json.loads(server.admin("/status").body)["epochs"]]
            tap.ok(r.code == 0 and json.loads(r.out)["scope"] == want and want in scopes, f"rotate and /status write {want!r} as UTF-8", (r, r.out, scopes))
        tap.equal(told, ["public, max-age=5", "public, max-age=1"], "caches keep a 410 like a manifest, and soon ask again for an epoch to come")
    with Server(sluice.path, media, keys=keys_file([ASSET], epochs=(1, 2, 3)), state=work / "state") as server:
        codes = [server.get(url(ASSET, "cenc", e, "a.mp4")).status for e in (1, 2, 3, 4)]
        tap.equal(codes, [410, 410, 200, 404], "rotations survive a restart")


def reload(tap, sluice, work):
    media = media_with(work)
    config = f"media: {media}\nschemes: [cenc, cbcs]\naccess_log: {work}/access.log\n"
    with Server(sluice.path, media, keys=keys_file([ASSET]), config=config) as server:
        whole = url(ASSET, "cbcs", 1, "a.mp4")
        clear = url(ASSET, "clear", 1, "a.mp4")
        first = server.get(whole)
        tap.equal((first.status, server.get(clear).status), (200, 403), "reload: before")
        keep = server.client()
        keep.get(whole)
        good_yaml, keys = server.folder / "sluice.yaml", server.folder / "keys.yaml"
        good_keys = keys.read_text()

        def hup(pattern):
            n = len(server.log())
            server.signal(signal.SIGHUP)
            return server.wait_log(pattern, after=n)

        for name, path, bad in (("configuration", good_yaml, config + "nonsense: 1\n"), ("keys", keys, good_keys + "  - nonsense\n")):
            was = path.read_text()
            path.write_text(bad)
            line = hup(r"(?i)reload|nonsense")
            tap.ok(line is not None, f"reload: bad {name}: the log says so", "\n".join(server.log()[-5:]))
            r = server.get(whole)
            tap.ok(r.status == 200 and r.body == first.body, f"reload: bad {name}: the old one still serves", r)
            path.write_text(was)
        good_yaml.write_text(config.replace("[cenc, cbcs]", "[cenc, cbcs, clear]"))
        kid, key, _ = record(ASSET, "cbcs", 77)
        old_kid, old_key, _ = record(ASSET, "cbcs")
        keys.write_text(good_keys.replace(old_kid, kid).replace(old_key, key))
        hup(r"info reloaded")
        tap.ok(any("warn the scheme `clear` is allowed for every asset" in l for l in server.log()), "reload: clear for everything is a warning")
        end = time.monotonic() + 10
        while time.monotonic() < end and server.get(clear).status != 200:
            time.sleep(0.05)
        tap.equal(server.get(clear).status, 200, "reload: the new configuration holds")
        r = server.get(whole)
        tap.ok(r.status == 200 and r["etag"] != first["etag"] and boxes.audio(r.body).tenc.kid.hex() == kid, "reload: the new keys hold", r)
        tap.equal(keep.get(whole).body, r.body, "reload: connections stay")
        told = server.wait_log(r"warn reload: changed: of the keys file: keys: .*rotate.*purge")
        tap.ok(told is not None, "reload: other keys under URLs that caches keep for a year are a warning", "\n".join(server.log()[-5:]))
        n = len(server.log())
        good_yaml.write_text(good_yaml.read_text() + "segment_target: 4s\ncbcs_senc: false\n")
        keys.write_text(keys.read_text() + "drm: { systems: [widevine] }\n")
        told = hup(r"warn reload: changed: segment_target, cbcs_senc, of the keys file: drm: .*rotate.*purge")
        tap.ok(told is not None, "reload: so are options that change segments and playlists, by name", "\n".join(server.log()[n:]))
        n = len(server.log())
        good_yaml.write_text(good_yaml.read_text() + "manifest_max_age: 7s\n")
        hup(r"info reloaded")
        tap.ok(not any("changed" in l for l in server.log()[n:]), "reload: others are not", "\n".join(server.log()[n:]))
        clear_file = (media / ASSET / "a.mp4").read_bytes()
        got = boxes.audio(server.get(clear).body)
        tap.ok([s.data for s in got.samples] == [s.data for s in boxes.audio(clear_file).samples] and got.scheme is None,
               "scheme clear: the samples as they are")
        log = work / "access.log"
        log.rename(work / "old.log")
        good_yaml.write_text(good_yaml.read_text() + "workers: 77\nlog_level: warn\n")
        tap.ok(hup(r"warn reload: workers changed but needs a restart; the old value stays"), "reload: what needs a restart is named", server.log()[-3:])
        end = time.monotonic() + 10
        while time.monotonic() < end and not (log.exists() and log.stat().st_size):
            keep.get(whole)
            time.sleep(0.05)
        tap.ok(log.exists() and log.stat().st_size, "reload: the access log is opened anew")
        n, good = len(server.log()), good_yaml.read_text()
        good_yaml.write_text(good + "nonsense: 1\n")
        hup(r"error reload refused")
        good_yaml.write_text(good)
        server.signal(signal.SIGHUP)
        ok, bad = (("sluice_reloads_total", f'result="{r}"') for r in ("ok", "failed"))
        counts = await_metrics(server, lambda m: total(m, *ok) == 5)
        tap.equal((total(counts, *ok), total(counts, *bad)), (5, 3), "reload: each is counted")
        tap.ok(not any(" info " in l for l in server.log()[n:]), "reload: log_level holds from then on", server.log()[n:])
        keep.close()


def drain(tap, sluice, work):
    media = media_with(work, synth.long_samples)
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        whole = url(ASSET, "cbcs", 1, "a.mp4")
        body = server.get(whole).body
        busy, idle = server.client(), server.client()
        idle.get(whole)
        busy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        busy.socket.sendall(busy.request_bytes(whole) * 40)
        busy.socket.recv(1, socket.MSG_PEEK)  # they are being answered
        server.signal(signal.SIGTERM)
        tap.ok(idle.closed(10), "SIGTERM: idle connections end")
        refused, end = False, time.monotonic() + 10
        while not refused and time.monotonic() < end:  # each worker closes its own listener
            try:
                server.get(whole)
            except (OSError, EOFError):
                refused = True
        tap.ok(refused, "SIGTERM: no new connections")
        got = 0
        try:
            while busy.read().body == body:
                got += 1
        except (EOFError, OSError):
            pass
        tap.ok(got >= 1 and not busy.buffer, "SIGTERM: responses under way are finished, none is cut short",
               f"{got} whole responses, {len(busy.buffer)} stray bytes")
        try:
            code = server.process.wait(40)
        except subprocess.TimeoutExpired:
            code = None
        tap.equal(code, 0, "SIGTERM: ends with status 0")
    with Server(sluice.path, media, "--workers", "1", keys=keys_file([ASSET])) as server:
        half, idle = server.client(), server.client()
        request = half.request_bytes(whole)
        half.socket.sendall(request + request[:20])
        kept = half.read()["connection"]
        idle.get(whole)
        server.signal(signal.SIGTERM)
        tap.ok(kept == "" and idle.closed(10), "SIGTERM: the worker drains")
        half.socket.sendall(request[20:])
        r = half.read()
        tap.ok(r.body == body and r["connection"] == "close" and half.closed(10), "a request that had begun is answered, and told to be the last one", r)
        tap.equal(server.stop(), 0, "ends with status 0")
    for number in (signal.SIGTERM, signal.SIGINT):
        undisturbed(tap, 0.05, drain_twice, tap, sluice, media, whole, number)


def drain_twice(tap, sluice, media, whole, number):
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        busy = server.client()
        busy.socket.sendall(busy.request_bytes(whole) * 40)
        busy.socket.recv(1, socket.MSG_PEEK)
        server.signal(number)
        server.wait_log("draining")
        server.signal(number)  # as timeout(1) sends it, to the process and to its group
        ready, live, status = (server.admin(p) for p in ("/ready", "/live", "/status"))
        tap.equal((ready.status, ready.body, live.status, json.loads(status.body)["state"]), (503, b"draining\n", 200, "draining"), f"{number.name}: no longer ready, and alive")
        time.sleep(1)  # it should not end: there is nothing else to wait for
        there = server.process.poll() is None
        server.signal(number)
        try:
            code = server.process.wait(20)  # less than drain_timeout
        except subprocess.TimeoutExpired:
            code = None
        tap.equal((there, code), (True, 0), f"a second {number.name} while clients are waited for: the end at once")
        busy.close()


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    began = time.monotonic()
    for part in (bad_starts, relative, observability, who_asked_what, counted, limited, cut_off, reasons, no_descriptors, not_accepted, warned, tokens, full_disk, sidecars_in_turn, descriptors_kept, rotation, replaced, same_time, same_bytes, reload, privileges, confined, refused_calls, one_fails, crashed, drain, derived,
                 open_secrets):
        if len(sys.argv) > 2 and part.__name__ not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory(prefix="sluice-life-") as work:
            try:
                part(tap, sluice, pathlib.Path(work))
            except (OSError, EOFError, ValueError, KeyError, IndexError, RuntimeError) as e:
                tap.ok(False, f"{part.__name__}: runs to its end", repr(e))
        tap.note(f"{part.__name__}: until second {time.monotonic() - began:.1f}")
    tap.end()


if __name__ == "__main__":
    main()
