"""Media that are replaced or cannot be had, sidecars: parts of life.py."""
import os
import re
import resource
import socket
import time

from integration.life_parts import ASSET, media_with, parse_metrics, total
from integration.truth import keys_file, record, url
from judge import boxes, synth
from judge.programs import VECTORS, Sluice
from judge.server import Server


def full_disk(tap, sluice, work):
    """A sidecar that the disk has no room for: the answer is the same, and the log names the reason, not another folder."""
    media = media_with(work)
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        tap.equal(server.get(url(ASSET, "cbcs", 1, "a", "init.mp4")).status, 200, "no room for a sidecar: the track is served")
        tap.equal(sorted(p.name for p in (media / ASSET).iterdir()), ["a.mp4"], "and nothing half-written stays")
        said = [l for l in server.log() if "digest" in l]
        tap.ok(len(said) == 1 and "cannot be written: File too large" in said[0] and "cache_dir" not in said[0], "and the log says why", said)


def sidecars_in_turn(tap, sluice, work):
    """Tracks that cannot have a sidecar for one reason or another, in turn: each reason is said once."""
    media = media_with(work)
    names = ("1", "2" * 248, "3", "4" * 248)  # .mp4.slx behind it is too long for a name
    for name in names:
        (media / ASSET / f"{name}.mp4").write_bytes((media / ASSET / "a.mp4").read_bytes())
        if len(name) == 1:
            (media / ASSET / f"{name}.mp4.slx").mkdir()
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        tap.equal([server.get(url(ASSET, "cbcs", 1, name, "init.mp4")).status for name in names], [200] * 4, "no sidecar, for reasons in turn: each track is served")
        said = [re.search("cannot be written: ([^.(]*)", l).group(1).strip() for l in server.log() if "digest" in l]
        tap.ok(said in (["Is a directory", "File name too long"], ["Permission denied", "File name too long"]),  # the second: the sandbox
               "and each reason is said once", said)


def descriptors_kept(tap, sluice, work):
    """Idle clients, however many, leave the descriptors that media need."""
    media = media_with(work)
    few = work / "few"
    few.write_text(f'#!/bin/bash\nulimit -n 120\nexec {sluice.path} "$@"\n')
    few.chmod(0o755)
    for io in ("auto", "epoll"):
        r = Sluice(few)("serve", "--media", media, "--io", io, "--workers", "30", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--state-dir", work / "st")
        tap.ok(r.code == 1 and "\nsluice: 30 workers need 182 descriptors and this process may open 120 (ulimit -n): " in "\n" + r.err,
               f"{io}: more workers than descriptors are refused at start", r)
        with Server(str(few), media, "--io", io, "--workers", "2", "--clear", keys=keys_file([ASSET])) as server:
            said = server.wait_log(r"max_connections: 17 for each of 2 workers, not 20000: .*120 descriptors .*kept for media")
            tap.ok(said is not None, f"{io}: the log says how many connections there can be", server.log())
            metrics = parse_metrics(server.admin("/metrics").body.decode())
            tap.equal(total(metrics, "sluice_connections_limit"), 34.0, f"{io}: and so do the metrics")
            c = server.client()
            tap.equal(c.get("/nothing").status, 404, f"{io}: a client")
            idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
            time.sleep(1.5)  # from now on they give way
            c = server.client()
            got = [c.get(url(ASSET, "cbcs", 1, "a", f"{n}.m4s")).status for n in (1, 2)]
            tap.equal(got, [200, 200], f"{io}: beside 200 idle ones gets media that nobody had asked for")
            for s in idle:
                s.close()
            for name in (f"{io}{n}" for n in range(400)):
                (media / name).mkdir()
                (media / name / "a.mp4").write_bytes((media / ASSET / "a.mp4").read_bytes())
            got = {c.get(url(f"{io}{n}", "clear", 1, "a", "1.m4s")).status for n in range(200)}
            tap.equal(got, {200}, f"{io}: nor do more tracks than there can be descriptors use them up")
            clients, got = [server.client() for _ in range(20)], []
            for first in range(200, 400, 20):
                for n, one in enumerate(clients, first):
                    one.send(url(f"{io}{n}", "clear", 1, "a", "1.m4s"))
                got += [one.read().status for one in clients]
            tap.equal(set(got), {200}, f"{io}: nor do many that are read at once")
            for one in clients:
                one.close()


def replaced(tap, sluice, work):
    """A file replaced in place: new IVs, new entity tags, and never a response of mixed bytes."""
    media = media_with(work)
    path = media / ASSET / "a.mp4"
    whole = url(ASSET, "cenc", 1, "a.mp4")
    kid, key, _ = record(ASSET, "cenc")
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        c = server.client()
        first = c.get(whole)
        versions = {first["etag"]: first.body}
        ivs = {s.iv for s in boxes.audio(first.body).samples}
        data = path.read_bytes()
        changed = bytearray(data)
        at = boxes.audio(data).samples[0].offset
        changed[at] ^= 1
        for how in ("by rename", "in place", "by rename to another length"):
            if how == "by rename":
                fresh = media / ASSET / ".new"
                fresh.write_bytes(bytes(changed))
                fresh.rename(path)
            elif how == "in place":
                changed[at] ^= 2
                with open(path, "r+b") as f:
                    f.write(changed)
            else:
                fresh = media / ASSET / ".new"
                fresh.write_bytes(synth.plain(5)[0])
                fresh.rename(path)
            end, r = time.monotonic() + 15, None
            while time.monotonic() < end:
                try:
                    r = c.get(whole)
                except (EOFError, ConnectionResetError):
                    c = server.client()
                    continue
                if r.status == 200 and r["etag"] not in versions:
                    break
                time.sleep(0.1)
            if not tap.ok(r is not None and r.status == 200 and r["etag"] not in versions, f"replaced {how}: a new entity tag", r):
                continue
            versions[r["etag"]] = r.body
            now = {s.iv for s in boxes.audio(r.body).samples}
            tap.ok(not now & ivs, f"replaced {how}: new IVs")
            ivs |= now
            (work / "x.mp4").write_bytes(r.body)
            back = sluice.decrypt(work / "x.mp4", work / "y.mp4", {kid: key})
            good = back.code == 0 and [s.data for s in boxes.audio((work / "y.mp4").read_bytes()).samples] == \
                [s.data for s in boxes.audio(path.read_bytes()).samples]
            tap.ok(good, f"replaced {how}: the new bytes decrypt to the new file", back)
            old = c.get(whole, headers={"If-None-Match": first["etag"]})
            tap.equal(old.status, 200, f"replaced {how}: the old tag does not match")
        wrong, served = [], 0
        end = time.monotonic() + 5
        flip = 0
        while (now := time.monotonic()) < end or (served <= 10 and now < end + 60):
            flip += 1
            fresh = media / ASSET / ".new"
            fresh.write_bytes(synth.plain(2 + flip % 3)[0])
            fresh.rename(path)
            for _ in range(10):
                try:
                    r = c.get(whole)
                    if r.status == 200:
                        served += 1
                        t = boxes.audio(r.body)
                        if len(t.samples) not in (6, 9, 12, 15) or versions.setdefault(r["etag"], r.body) != r.body:
                            wrong.append(repr(r))
                    elif r.status != 503:
                        wrong.append(repr(r))
                except (EOFError, ConnectionResetError):
                    c = server.client()
                except (ValueError, IndexError) as e:
                    wrong.append(repr(e))
        tap.ok(served > 10 and not wrong, f"{flip} replacements under load: whole versions or an error, never mixed bytes",
               f"{served} served\n" + "\n".join(wrong[:5]))
        path.unlink()
        end = time.monotonic() + 15
        # 503 as long as what is remembered is an opening during which the file was replaced again, a reset where its bytes are gone
        while time.monotonic() < end:
            try:
                if c.get(whole).status not in (200, 503):
                    break
            except (EOFError, ConnectionResetError):
                c = server.client()
            time.sleep(0.1)
        tap.equal(c.get(whole).status, 404, "a removed file is not there any more")


def flipped(path):
    """Replaces a file by one of the same size, layout and mtime in which most bytes of each sample differ."""
    data, st = bytearray(path.read_bytes()), path.stat()
    for s in boxes.audio(bytes(data)).samples:
        for at in range(s.offset + 8, s.offset + s.size):
            data[at] ^= 0x5A
    fresh = path.with_name(".new")
    fresh.write_bytes(bytes(data))
    os.utime(fresh, ns=(st.st_atime_ns, st.st_mtime_ns))
    fresh.rename(path)


def same_time(tap, sluice, work):
    """A file replaced by one of the same size and mtime: no keystream twice, no tag for two bodies. Of the same bytes: no harm."""
    media = media_with(work)
    path = media / ASSET / "a.mp4"
    vector = VECTORS / "androidx-media" / "mp4" / "sample_ac3_fragmented.mp4"  # frames of one size, as in every file of this kind
    path.write_bytes(vector.read_bytes() if vector.is_file() else synth.plain(40)[0])
    os.utime(path, ns=(10 ** 18, 10 ** 18))
    whole = url(ASSET, "cenc", 1, "a.mp4")
    kid, key, _ = record(ASSET, "cenc")

    def differs(name, one, two):
        a, b = boxes.audio(one.body), boxes.audio(two.body)
        reused = [i for i, (s, t) in enumerate(zip(a.samples, b.samples))
                  if s.iv == t.iv or {x ^ y for x, y in zip(s.data[8:], t.data[8:])} == {0x5A}]
        tap.ok(one.status == two.status == 200 and one["etag"] != two["etag"], f"{name}: another entity tag", (one, two))
        tap.ok(len(a.samples) == len(b.samples) > 3 and not reused, f"{name}: no keystream twice", reused[:5])

    def get():
        with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
            r = server.get(whole)
            return r, parse_metrics(server.admin("/metrics").body.decode())
    first, _ = get()
    again, m = get()
    tap.ok(again["etag"] == first["etag"] and total(m, "sluice_index_total", "sidecar") == 1, "the sidecar is used at the next start", m.get("sluice_index_total"))
    flipped(path)
    second, _ = get()
    differs("replaced while the server was down", first, second)
    flipped(path)
    r = sluice("index", media)
    tap.ok(r.code == 0 and "1 indexed, 0 up to date" in r.out.decode(), "replaced: index makes the sidecar anew", r)
    third, m = get()
    tap.ok(third.body == first.body and third["etag"] == first["etag"], "the first bytes again: the first response again")
    flipped(path)
    out = []
    for n in range(2):
        r = sluice.encrypt(path, work / f"{n}.mp4", "cenc", kid, key)
        out.append((work / f"{n}.mp4").read_bytes() if r.code == 0 else repr(r).encode())
        if not n:
            path.with_name("a.mp4.slx").unlink()
    tap.ok(out[0] == out[1], "replaced: encrypt does not believe the sidecar")
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        c = server.client()
        one = c.get(whole)
        flipped(path)
        end, two = time.monotonic() + 15, one
        while time.monotonic() < end and (two.status != 200 or two["etag"] == one["etag"]):
            time.sleep(0.1)
            two = c.get(whole)
        differs("replaced under the running server", one, two)
    if os.getuid():
        os.chmod(path.parent, 0o500)
    else:
        path.with_name("a.mp4.slx").unlink()
        path.with_name("a.mp4.slx").mkdir()  # nothing can be written there, not even by root
    for n in range(2):
        with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
            tap.equal(server.get(whole)["etag"], two["etag"], f"no sidecar can be written, start {n}: the same response")
            server.get(url(ASSET, "cbcs", 1, "a.mp4"))
            said = [l for l in server.log() if "digest" in l]
            tap.ok(len(said) == 1 and "cannot be written: " in said[0] and "cache_dir" in said[0],
                   "and the log says once why, what that costs and what helps", said)
    os.chmod(path.parent, 0o700)


def same_bytes(tap, sluice, work):
    """Modes and links change under the running server, between reads of segments: no response notices."""
    media = media_with(work, lambda: synth.plain(200))
    path = media / ASSET / "a.mp4"
    with Server(sluice.path, media, config="segment_target: 1s\n", keys=keys_file([ASSET])) as server:
        body = server.get(url(ASSET, "cenc", 1, "a.mp4")).body
    for io in ("auto", "epoll"):
        with Server(sluice.path, media, "--io", io, config="segment_target: 1s\n", keys=keys_file([ASSET])) as server:
            c, got = server.client(), []
            for n in range(1, 9):  # of each the source is read for the first time
                r = c.get(url(ASSET, "cenc", 1, "a", f"{n}.m4s"))
                got.append((n, r.status, len(r.body) > 100 and r.body in body))
                if n % 2:
                    os.chmod(path, 0o600 + n)
                else:
                    os.link(path, work / f"{io}{n}")
            m = parse_metrics(server.admin("/metrics").body.decode())
            tap.ok(all(status == 200 and same for _, status, same in got), f"{io}: chmod and links under the running server: every segment as before", got)
            tap.equal(total(m, "sluice_errors_total", "source_changed"), 0.0, f"{io}: chmod and links are no change")
