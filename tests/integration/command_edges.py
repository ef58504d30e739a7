"""Calls that fail, odd trees, and exactly what inspect shows: parts of command.py."""
import errno
import json
import os
import platform
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import threading

from integration.command_parts import CALLS, ENCRYPT, IV, KEY, KID, files, no_nameless_files, one_line
from judge import boxes, no_uring, synth
from judge.server import environment


def half_written(tap, sluice, work):
    """A call that fails amid the output: status 1, why, and everything as it was; also where the file system has no nameless files."""
    clear, locked, out = work / "clear.mp4", work / "locked.mp4", work / "out"
    out.mkdir()
    clear.write_bytes(synth.plain()[0])
    encrypt = ["encrypt", clear, out / "o.mp4", *ENCRYPT, "--iv", IV]
    sluice("encrypt", clear, locked, *ENCRYPT)
    decrypt = ["decrypt", locked, out / "o.mp4", "--key", f"{KID}:{KEY}"]

    def under(argv=encrypt, limit=None, nameless=True, call=None, error=0, stdin=b""):
        def ready():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that the write fails
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if call:
                no_uring.forbid(error, CALLS[call])
            if not nameless:
                no_nameless_files()
        p = subprocess.run([sluice.path, *map(str, argv)], input=stdin, capture_output=True, preexec_fn=ready)
        return p.returncode, p.stderr.decode()

    got = under(["encrypt", "-", *encrypt[2:]], limit=100, stdin=clear.read_bytes())
    tap.ok(got[0] == 1 and re.fullmatch(r"sluice: copy of standard input in \S+ \(TMPDIR names another folder\): writing failed: File too large\n", got[1])
           and os.listdir(out) == [], "no room for a copy of standard input: the message says where, and how to have it elsewhere", got)
    if not CALLS:
        tap.skip("calls that fail", f"their numbers are not known on {platform.machine()}")
        return
    got, sizes = under(nameless=False), {}
    mode = stat.S_IMODE((out / "o.mp4").stat().st_mode)
    tap.equal((got, mode), ((0, ""), 0o666 & ~os.umask(os.umask(0o22))), "without nameless files: the output has the usual mode")
    for argv in (encrypt, decrypt):
        under(argv)
        sizes[argv[0]] = (out / "o.mp4").stat().st_size
    for argv, old, nameless in ((a, o, n) for a in (encrypt, decrypt) for o in (False, True) for n in (True, False)):
        (out / "o.mp4").unlink(missing_ok=True)
        if old:
            (out / "o.mp4").write_bytes(b"old")
        before, how = files(out), f"{argv[0]}, nameless files: {nameless}, over another file: {old}"
        got = under(argv, limit=sizes[argv[0]] - 10, nameless=nameless)  # the last write is cut short
        tap.ok(got[0] == 1 and got[1].endswith("o.mp4: writing failed: File too large\n") and files(out) == before,
               f"10 bytes too little room: status 1, nothing is left ({how})", (got, os.listdir(out)))
        got = under(argv, nameless=nameless, call="rename", error=errno.EIO)
        tap.ok(got[0] == 1 and got[1].endswith("o.mp4: cannot create the file: Input/output error\n") and files(out) == before,
               f"a name that cannot be taken: the same ({how})", (got, os.listdir(out)))
    (out / "o.mp4").write_bytes(b"old")
    (out / "o.mp4").chmod(0o660)
    got = under(call="fchown", error=errno.EPERM)
    tap.equal((got, stat.S_IMODE((out / "o.mp4").stat().st_mode)), ((0, ""), 0o600), "where the old file's group cannot be had, no group reads the new one")
    folder = work / "parts"
    folder.mkdir()
    (folder / "init.mp4").write_bytes(synth.FTYP + synth.moov())
    (folder / "1.m4s").write_bytes(synth.plain_fragment(1, [b"abcd"], 0))
    before = files(folder)
    r = sluice("encrypt", folder, folder / "2.m4s", *ENCRYPT)
    tap.ok(r.code == 1 and one_line(r) and "the output would lie in the input folder" in r.err and files(folder) == before, "an output in the input folder is refused", r)


def changed(tap, sluice, work):
    """An input that changes while it is being read is not passed on as if it were right."""
    clear, locked, part = work / "clear.mp4", work / "locked.mp4", [bytes(8192)] * 32
    clear.write_bytes(synth.FTYP + synth.moov() + b"".join(synth.plain_fragment(n + 1, part, n * 32 * synth.FRAME) for n in range(6)))
    sluice("encrypt", clear, locked, *ENCRYPT)
    for argv in (["encrypt", clear, "-", *ENCRYPT, "--iv", IV], ["decrypt", locked, "-", "--key", f"{KID}:{KEY}"]):
        p = subprocess.Popen([sluice.path, *map(str, argv)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdout.read(1)  # the rest does not go into the pipe
        os.utime(argv[1], (1, 1))
        said = p.communicate()[1].decode()
        tap.equal((p.returncode, said), (1, f"sluice: {argv[1]}: the file changed while it was being read\n"), f"{argv[0]} of a file that changes: status 1")


def arguments(tap, sluice, work):
    """Values at the ends of what is taken, and keys from files."""
    clear, locked, out, key = work / "c.mp4", work / "e.mp4", work / "o.mp4", work / "key"
    clear.write_bytes(synth.FTYP + synth.moov() + b"".join(synth.plain_fragment(n + 1, [b"abc"] * 20, 20 * n * synth.FRAME) for n in range(10)))
    for seconds, want in (("0", 10), ("0.5", 5), ("2", 2), ("3600", 1), (None, 2)):
        r = sluice("encrypt", clear, locked, *ENCRYPT, *(["--segment", seconds] if seconds else []))
        data = locked.read_bytes()
        tap.equal((r.code, len(boxes.sidx_references(data, boxes.one(data, b"sidx"))[2])), (0, want), f"encrypt --segment {seconds}: fragments of 0.43 s in segments")
    want = locked.read_bytes()
    for line in (KEY, KEY + "\n", KEY + "\r\n"):
        key.write_text(line, newline="")
        r = sluice("encrypt", clear, out, *ENCRYPT[:-2], "--key-file", key)
        tap.ok(r.code == 0 and out.read_bytes() == want, f"encrypt --key-file of {line.replace(KEY, 'a key')!r}", r)
        key.write_text(f"{KID}:{line}", newline="")
        r = sluice("decrypt", locked, out, "--key-file", key)
        tap.ok(r.code == 0 and boxes.audio(out.read_bytes()).samples[0].data == b"abc", f"decrypt --key-file of {line.replace(KEY, 'a key')!r}", r)
    out.unlink()
    for line in ("", KEY[:-1], KEY + "0", KEY + "\n" + KEY, "x" * 127):
        key.write_text(line)
        for argv, right in ((["encrypt", clear, out, *ENCRYPT], "32 hex digits"), (["decrypt", locked, out, "--key", f"{KID}:{KEY}"], "KID:KEY, 32 hex digits each")):
            r = sluice(*argv, "--key-file", key)
            tap.equal((r.code, r.err, out.exists()), (1, f"sluice: {key}: a key file holds one line: {right}\n", False), f"{argv[0]}: a key file of {len(line)} other bytes, behind a good key")
    # What comes of a key does not take its file's place, by whatever name and wherever the option stands.
    soft, hard, pair = work / "soft", work / "hard", work / "pair"
    key.write_text(KEY)
    pair.write_text(f"{KID}:{KEY}")
    for file, argv in ((key, ["encrypt", clear, *ENCRYPT[:-2]]), (pair, ["decrypt", locked])):
        soft.symlink_to(file)
        hard.hardlink_to(file)
        for to in (file, soft, hard):
            before = files(work)
            for end in ([to, "--key-file", file], [f"--key-file={file}", "--key-file", file, to], ["--key-file", file, "--", to]):
                r = sluice(*argv, *end)
                tap.equal((r.code, r.err, files(work) == before), (1, f"sluice: {to}: --key-file is this file: OUT has to name another\n", True),
                          f"{argv[0]} onto its key file by the name {to.name} ({len(end)} words): refused")
        soft.unlink()
        hard.unlink()
    r = sluice("decrypt", locked, out, "--key", f"{KID}:{KEY}", "--key-file", work / "none")
    tap.ok(r.code == 1 and one_line(r) and not out.exists(), "decrypt: a key file that is not there, behind a good key", r)
    others = [f"--key={n:032x}:{KEY}" for n in range(63)]
    r = sluice("decrypt", locked, out, *others, "--key", f"{KID}:{KEY}")
    tap.ok(r.code == 0 and boxes.audio(out.read_bytes()).samples[0].data == b"abc", "decrypt with 64 keys", r)
    r = sluice("decrypt", locked, out, *others, "--key", f"{KID}:{KEY}", f"--key={64:032x}:{KEY}")
    tap.ok(r.code == 2 and "more than 64 keys" in r.err, "decrypt with 65", r)


def names_for_addresses(tap, sluice, work):
    """What is listened on are addresses. A name is wrong usage, told by its option before anything else is looked at."""
    for option, more in (("listen", []), ("tls_listen", ["--tls-certificate", "c", "--tls-key", "k"]), ("admin", [])):
        for check in ([], ["--check"]):
            r = sluice("serve", "--media", work / "none", f"--{option.replace('_', '-')}", "localhost:80", *more, *check)
            tap.equal((r.code, r.out, r.err), (2, b"", f"sluice: configuration: {option}: 'localhost:80' is not a numeric address (like 127.0.0.1:8080, [::1]:8080, 0.0.0.0:80)\n"),
                      f"serve {' '.join(check)}: a name for {option}: status 2")
    conf = work / "conf.yaml"
    conf.write_text(f"media: {work}\nlisten: 'localhost:80'\n")
    r = sluice("serve", "--check", "-c", conf)
    tap.ok(r.code == 2 and one_line(r) and f"{conf}: listen: 'localhost:80' is not a numeric address" in r.err, "serve: one in a file is told with the file", r)


def control_characters(tap, sluice, work):
    """Names of files are others': what a terminal takes for orders, or for another line, is a question mark."""
    (work / "a").mkdir()
    name = "t\x1b[31m\nsluice: forged\x7f.mp4"
    (work / "a" / name).write_bytes(synth.plain()[0][:300])
    for argv in (("index", work / "a"), ("inspect", work / "a" / name), ("inspect", work / "a" / ("none" + name)), ("encrypt", work / "a" / name, work / "o", *ENCRYPT)):
        r = sluice(*argv)
        tap.ok(r.code == 1 and "t?[31m?sluice: forged?.mp4: " in r.err and not re.search(r"[\x1b\x7f]|^sluice: forged", r.err, re.M), f"{argv[0]}: a name with control characters", r)
    # C0, C1 as UTF-8 and as a byte, another line; and text of every kind, which stays.
    evil, want = "\x1b[31m\u009b1m\udc9b\n\u00e4 \u65e5\u672c", "?[31m??1m??\u00e4 \u65e5\u672c"
    (work / "media").mkdir()
    document, state, secret = work / f"d{evil}", work / "state", work / f"m{evil}"
    document.write_text("<x/>\n")
    state.mkdir(mode=0o700)
    for file in (secret, state / "derive.secret"):
        file.write_bytes(bytes(32))
        file.chmod(0o600)
    (work / "kek").write_bytes(bytes(32))
    (work / "kek").chmod(0o600)
    clear = work / "clear.mp4"
    clear.write_bytes(synth.plain()[0])
    none = str(work / f"none{evil}")
    for code, argv in ((2, [evil]), (2, ["help" + evil]), (2, ["encrypt", f"-{evil}"]), (2, ["encrypt", f"--{evil}"]), (2, ["encrypt", clear, work / "o", *ENCRYPT, "--drm", evil]),
                       (2, ["version", evil]), (2, ["rotate", "a", evil]), (2, ["keys", "export", "a", evil]), (2, ["serve", evil]), (2, ["serve", "--workers", evil]), (2, ["rotate", "a", "--grace", evil]),
                       (1, ["load", none, "--target", "http://127.0.0.1:9"]), (1, ["load", "--report", none + "/x", none]),
                       (1, ["serve", "-c", none]), (1, ["index", "-c", none]), (1, ["index", none]),
                       (1, ["index", none, "--media", work / "media"]), (1, ["rotate", "a", "-c", none]), (1, ["inspect", none]),
                       (1, ["encrypt", none, work / "o", *ENCRYPT]), (1, ["encrypt", clear, none + "/x", *ENCRYPT]), (1, ["decrypt", none, work / "o", "--key-file", none]),
                       (1, ["decrypt", clear, work / "o", "--key-file", none]), (1, ["keys", "import", document, "--keys", work / "k.yaml", "--asset", "a"]), (1, ["keys", "import", none, "--keys", none]),
                       (1, ["keys", "export", evil, "--out", work / "x"]), (1, ["keys", "export", "a", "--out", none + "/x", "--state-dir", state]), (0, ["keys", "export", "a", "--out", work / f"x{evil}", "--state-dir", state]),
                       (0, ["keys", "import", work / f"x{evil}", "--keys", work / f"k{evil}"]), (1, ["keys", "rewrap", none, "--plain"]), (0, ["keys", "rewrap", secret, "--new-kek", work / "kek"]),
                       (1, ["keys", "rewrap", secret, "--kek", none, "--plain"]), (1, ["version"])):
        env = environment(SLUICE_KERNEL=evil) if argv == ["version"] else None
        r = sluice(*argv, env=env)
        tap.ok(r.code == code and one_line(r) and want in r.err and not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ufffd]", r.err), f"{[str(a)[:20] for a in argv[:3]]}: nothing for a terminal to obey", r)


class Admin:
    """Plays the admin listener: keeps what is asked, and answers with these bytes."""

    def __init__(self):
        self.socket, self.asked, self.answer = socket.create_server(("127.0.0.1", 0)), [], b""
        self.address = "127.0.0.1:%d" % self.socket.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client = self.socket.accept()[0]
            except OSError:
                return
            with client:
                got = b""
                while b"\r\n\r\n" not in got and (piece := client.recv(1 << 16)):
                    got += piece
                self.asked.append(got.decode())
                client.sendall(self.answer)


def orders(tap, sluice, work):
    """What rotate sends, and what it makes of every answer."""
    admin, token = Admin(), work / "token"
    token.write_bytes(b"s3cret\r\n")
    done = b'{"scope":"a"}\n'
    right = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(done), done)

    def rotate(answer, *argv):
        admin.asked, admin.answer = [], answer
        return sluice("rotate", "--admin", admin.address, *argv)

    for argv, query in ((["a/b c&d"], "scope=a/b%20c%26d"), (["live/"], "scope=live/"), (["--all"], "scope="), (["a", "--grace", "90s"], "scope=a&grace_ms=90000"),
                        (["a", "--revoke"], "scope=a&revoke=1"), (["a", "--revoke", "--grace=0"], "scope=a&grace_ms=0&revoke=1"),
                        (["a", "--token-file", token], "scope=a"), (["x" * 1024], "scope=" + "x" * 1024)):
        r = rotate(right, *argv)
        bearer = "Authorization: Bearer s3cret\r\n" if token in argv else ""
        tap.equal((r.code, r.out, r.err, admin.asked), (0, done, "", [f"POST /rotate?{query} HTTP/1.1\r\nHost: {admin.address}\r\nContent-Length: 0\r\nConnection: close\r\n{bearer}\r\n"]),
                  f"rotate {argv[0][:20]} {argv[1:2]}: what is asked")
    r = rotate(right, "x" * 1025)
    tap.ok(r.code == 1 and one_line(r) and "1025 bytes, more than 1024: no asset that is served has it" in r.err and not admin.asked, "rotate of a name that is too long: nothing is asked", r)
    for name, why in (("/x", 'no empty, "." or ".." segment'), ("a//b", 'no empty, "." or ".." segment'), ("../x", 'no empty, "." or ".." segment'), ("x/..", 'no empty, "." or ".." segment'),
                      ("/", 'no empty, "." or ".." segment'), ("a/" * 60, "at most 60 segments")):
        for more in ([], ["--revoke"]):
            r = rotate(right, name, *more)
            tap.ok(r.code == 1 and one_line(r) and r.err.startswith(f"sluice: {name}: ") and why in r.err and not admin.asked, f"rotate of {name[:8]} {more}: no name, nothing is asked", r)
    for text, why in ((b"\n", "there is no token"), (b"a b", "printable characters"), (b"a\nb", "printable characters"), (b"\x7f", "printable characters"), (b"t" * 1025, "")):
        token.write_bytes(text)
        r = rotate(right, "a", "--token-file", token)
        tap.ok(r.code == 1 and one_line(r) and r.err.startswith(f"sluice: {token}: ") and why in r.err and not admin.asked, f"rotate with a token of {len(text)} bytes, {why}: nothing is asked", r)
    head = b"HTTP/1.1 200 OK\r\n\r\n"
    for answer, code, out, err in ((head + b'{"scope":"a","on_storage":true}\n', 0, b'{"scope":"a","on_storage":true}\n', ""),
                                   (head + b'{"on_storage":false,"scope":"a"}\n', 0, b'{"on_storage":false,"scope":"a"}\n', "there is no asset of this name"),
                                   (head + b'{"scope":"\\"on_storage\\":false"}', 0, b'{"scope":"\\"on_storage\\":false"}', ""),
                                   (b'HTTP/1.1 409 x\r\n\r\n{"error":"so it is"}', 1, b"", "refused (409): so it is\n"), (b"HTTP/1.1 502 x\r\n\r\nbad\r\nluck", 1, b"", "refused (502): bad\n"),
                                   (head + b'{"scope":"\x1b[31m\xc2\x9b1m\xc3\xa4"}\n{}\n', 0, b'{"scope":"?[31m??1m\xc3\xa4"}\n{}\n', ""), (b"", 1, b"", "Protocol error"), (b"HTTP/1.1 200 OK\r\n", 1, b"", "Protocol error"), (b"SSH-2.0-x 200\r\n\r\n", 1, b"", "Protocol error"),
                                   (head + b"x" * 70000, 1, b"", "Protocol error"), *((head + other, 1, b"", "nobody said that keys were rotated") for other in
                                   (b"", b"ok\n", b"<html><style>a{}</style>", b"{}\n", b'{"scope":1}\n', b'["scope"]\n', done[:-3]))):
        r = rotate(answer, "a")
        tap.ok((r.code, r.out) == (code, out) and err in r.err and (one_line(r) if err else not r.err), f"rotate: the answer {answer[:40]}: status {code}, {err!r}", r)
    admin.socket.close()


def trees(tap, sluice, work):
    """What of a tree index takes for tracks, and what it does with sidecars that are right."""
    tree, apart, data = work / "tree", work / "apart", synth.plain()[0]
    for name in ("a.mp4", "b/c.m4a", "b/d.cmfa", "b/e.txt", ".h.mp4", ".hidden/f.mp4"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    apart.mkdir()
    (apart / "g.mp4").write_bytes(data)
    (tree / "folder").symlink_to(apart)
    (tree / "link.mp4").symlink_to(apart / "g.mp4")
    made = {"a.mp4.slx", "b/c.m4a.slx", "b/d.cmfa.slx"}

    def sidecars():
        return {str(p.relative_to(tree)): p.stat().st_mtime for p in tree.rglob("*.slx")}

    r = sluice("index", tree, "--threads", "2")
    first = sidecars()
    tap.ok((r.code, r.out) == (0, b"3 indexed, 0 up to date, 0 failed\n") and set(first) == made and not list(apart.glob("*.slx")),
           "index of a tree: what is hidden, a link or called otherwise is passed over", (r, first))
    for name in first:
        os.utime(tree / name, (1, 1))
    r = sluice("index", tree)
    tap.ok(r.out == b"0 indexed, 3 up to date, 0 failed\n" and sidecars() == dict.fromkeys(made, 1), "index again: all is left alone", (r, sidecars()))
    r = sluice("index", tree, "--rebuild")
    again = sidecars()
    tap.ok(r.out == b"3 indexed, 0 up to date, 0 failed\n" and set(again) == made and 1 not in again.values(), "index --rebuild: each is made again", (r, again))
    deep = work / "deep" / "/".join(["d"] * 64)
    deep.mkdir(parents=True)
    (deep / "t.mp4").write_bytes(data)
    r = sluice("index", work / "deep")
    tap.ok((r.code, r.out) == (0, b"1 indexed, 0 up to date, 0 failed\n"), "index of 64 folders in each other", r)
    (deep / "d").mkdir()
    r = sluice("index", work / "deep")
    tap.ok(r.code == 1 and one_line(r) and r.err.endswith("/d: folders are nested too deep\n") and r.out == b"0 indexed, 1 up to date, 1 failed\n", "index of 65: refused, and the rest is done", r)
    beside = work / "tree2"
    beside.mkdir()
    (beside / "t.mp4").write_bytes(data)
    r = sluice("index", beside / "t.mp4", "--media", tree)
    tap.ok(r.code == 1 and one_line(r) and f"lies outside of the media folder {tree}" in r.err and os.listdir(beside) == ["t.mp4"],
           "a track in a folder whose name begins as the media folder's is outside of it", r)


def every(tree):
    for b in tree:
        yield b
        yield from every(b.get("boxes", []))


def shown(tap, sluice, work):
    """Offsets and sizes are those of the bytes; lists and bytes are cut only without --all."""
    track, folder = work / "t.mp4", work / "parts"
    for build in (synth.indexed, synth.large_sizes, synth.around_moof):
        data = build()[0]
        track.write_bytes(data)
        seen = [(b["offset"], b["size"], b["header"], b["type"]) for b in every(json.loads(sluice("inspect", track, "--json").out)["boxes"])]
        wrong = []
        for offset, size, header, kind in seen:
            told, name = struct.unpack(">I4s", data[offset:offset + 8])
            told, long = (int.from_bytes(data[offset + 8:offset + 16], "big"), 16) if told == 1 else (told, 8)
            if (told, long, name.decode("latin-1")) != (size, header, kind):
                wrong.append((offset, size, header, kind))
        tap.ok(len(seen) > 20 and not wrong, f"inspect --json {build.__name__}: every offset, size and header is the file's", wrong)
        lines = re.findall(r"^ *(\d+) +(\d+) +(\S{3,4})", sluice("inspect", track).out.decode().split("\n\n")[0], re.M)
        tap.equal([(int(o), int(n), k) for o, n, k in lines], [(o, n, k.strip()) for o, n, _, k in seen], f"inspect {build.__name__}: as text, the same")
    for num, want in ((4, (4, 0)), (5, (4, 1)), (9, (4, 5))):
        track.write_bytes(synth.FTYP + synth.moov() + synth.plain_fragment(1, [b"abc"] * num, 0))
        trun = next(x for x in sluice("inspect", track).out.decode().splitlines() if "  trun " in x)
        more = re.search(r" … (\d+) more$", trun)
        tap.equal((trun.count("{ size=3 }"), trun.count("{"), int(more[1]) if more else 0), (want[0], want[0], want[1]), f"inspect of {num} samples: the first four, and how many more")
        trun = next(x for x in sluice("inspect", track, "--all").out.decode().splitlines() if "  trun " in x)
        tap.ok(trun.count("{ size=3 }") == num and "more" not in trun, f"inspect --all of {num} samples", trun)
    for num in (32, 33):
        pssh = synth.full(b"pssh", 0, 0, bytes(16), struct.pack(">I", num), b"\x5a" * num)
        track.write_bytes(synth.FTYP + synth.moov(extra=pssh) + synth.plain_fragment(1, [b"abc"], 0))
        text, whole = (sluice("inspect", track, *a).out.decode() for a in ([], ["--all"]))
        tap.ok(f"data={'5a' * 32}" + (f"… ({num} bytes)\n" if num > 32 else "\n") in text, f"inspect of {num} bytes: 32 are shown", text)
        tap.ok(f"data={'5a' * num}\n" in whole, f"inspect --all of {num} bytes: all are", whole)
    for size, iv in ((8, IV), (16, IV + "00" * 8)):
        track.write_bytes(synth.plain()[0])
        sluice("encrypt", track, work / "e.mp4", *ENCRYPT, "--iv-size", size, "--iv", iv)
        sencs = [b for b in every(json.loads(sluice("inspect", work / "e.mp4", "--json").out)["boxes"]) if b["type"] == "senc"]
        want = [s.iv.hex() for s in boxes.audio((work / "e.mp4").read_bytes()).samples]
        tap.equal([e["iv"] for b in sencs for e in b["fields"]["entries"]], want, f"inspect of senc with IVs of {size} bytes")
    track.write_bytes(synth.FTYP + synth.moov() + synth.plain_fragment(1, [b"abc"], 0) + synth.full(b"tfdt", 1, 0, bytes(7)))
    ends = [b["fields"].get("truncated") for b in every(json.loads(sluice("inspect", track, "--json").out)["boxes"])]
    tap.ok(ends[-1] is True and not any(ends[:-1]), "inspect --json says which box ends before its fields do", ends)
    track.write_bytes(synth.FTYP + synth.moov() + b"".join(synth.plain_fragment(n + 1, [b"abc"] * 20, 20 * n * synth.FRAME) for n in range(10)))
    told = json.loads(sluice("inspect", track, "--json").out)["track"]
    tap.equal((told["fragments"], told["samples"], told["duration"], told["segments_of_2s"]), (10, 200, 200 * synth.FRAME, 2), "inspect: ten fragments of 0.43 s are two segments of 2 s")
    # Absolute offsets of a part count from its start, also where the moof is its first box.
    folder.mkdir()
    init = synth.FTYP + synth.moov()
    (folder / "init.mp4").write_bytes(init)
    at, want = len(init), []
    for n, samples in enumerate(([b"abcd", b"efg"], [b"hi", b"jklmn"])):
        moof = synth.moof_of(n + 1, lambda length, s=samples: [synth.box(b"traf", synth.tfhd(base=length + 8, default_base=False), synth.tfdt(2 * n * synth.FRAME), synth.trun(s, 0))])
        (folder / f"{n + 1}.m4s").write_bytes(moof + synth.box(b"mdat", *samples))
        want += [at + len(moof) + 8, at + len(moof) + 8 + len(samples[0])]
        at += len(moof) + 8 + sum(map(len, samples))
    tree = json.loads(sluice("inspect", folder, "--json").out)
    tap.equal([s["offset"] for f in tree["fragments"] for s in f["samples"]], want, "inspect of a folder: absolute offsets count from their part")
    tap.ok(all("track" not in s for f in tree["fragments"] for s in f["samples"]), "inspect of one track: no number beside its samples")
    other = synth.moov(track=2)
    trak = boxes.one(other, b"moov/trak")
    two = synth.moov(before=other[trak.start:trak.end])
    mvex = synth.box(b"mvex", *(synth.full(b"trex", 0, 0, struct.pack(">5I", t, 1, synth.FRAME, 0, 0)) for t in (1, 2)))
    moov = boxes.one(two, b"moov")
    old = boxes.one(two, b"moov/mvex")
    two = synth.box(b"moov", two[moov.body:old.start], mvex)
    moof = synth.moof_of(1, lambda n: [synth.box(b"traf", synth.tfhd(track=t), synth.tfdt(0), synth.trun([b"abc"] * t, n + 8 + 3 * (t - 1))) for t in (1, 2)])
    track.write_bytes(synth.FTYP + two + moof + synth.box(b"mdat", b"abc" * 3))
    tree = json.loads(sluice("inspect", track, "--json").out)
    tap.equal([s["track"] for f in tree["fragments"] for s in f["samples"]], [1, 2, 2], "inspect of two tracks: which one a sample is of")
