#!/usr/bin/env python3
"""The command line: exit statuses, messages, files left behind: command.py SLUICE"""
import base64
import json
import errno
import os
import pathlib
import platform
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge import boxes, no_uring, synth  # noqa: E402
from judge.programs import VECTORS, Sluice, run  # noqa: E402
from judge.server import Client, Server, environment, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

KID, KEY, IV = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100", "0102030405060708"
ENCRYPT = ["--scheme", "cenc", "--kid", KID, "--key", KEY]


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def one_line(r):
    return r.err.startswith("sluice") and r.err.strip().count("\n") == 0


def usage(tap, sluice, work):
    clear = work / "clear.mp4"
    clear.write_bytes(synth.plain()[0])
    out = work / "out.mp4"
    for name in ("serve", "index", "inspect", "encrypt", "decrypt", "rotate", "keys", "load", "version"):
        for asked in ("--help", "-h"):
            r = sluice(name, asked)
            tap.ok(r.code == 0 and name in r.out.decode() and not r.err, f"{name} {asked}", r)
        tap.equal(r.out.decode().split("\n")[0].rstrip(), r.out.decode().split("\n")[0], f"{name} -h: no blank at the end of its usage")
    r = sluice("serve", "--media", work, "--scheme", "cbcs")
    tap.ok(r.code == 2 and "did you mean --schemes?" in r.err, "a flag that is almost one: the likely one is offered", r)
    r = sluice("--help")
    tap.ok(r.code == 0 and all(n in r.out.decode() for n in ("serve", "encrypt", "decrypt", "inspect")), "--help lists the commands", r)
    r = sluice("version")
    tap.ok(r.code == 0 and "sluice" in r.out.decode(), "version", r)
    tap.ok(all(f"{name} " in r.out.decode() for name in ("liburing", "libcrypto", "llhttp", "libyaml", "jansson", "expat", "xxHash", "zlib")),
           "version names the libraries", r.out.decode())
    wrong = {
        "no command": [], "an unknown command": ["frobnicate"], "an unknown option": ["encrypt", clear, out, "--frobnicate"],
        "no input": ["encrypt"], "no output": ["encrypt", clear], "three files": ["encrypt", clear, out, out, *ENCRYPT],
        "no scheme": ["encrypt", clear, out, "--kid", KID, "--key", KEY], "no key": ["encrypt", clear, out, "--scheme", "cenc", "--kid", KID],
        "no KID": ["encrypt", clear, out, "--scheme", "cenc", "--key", KEY],
        "an unknown scheme": ["encrypt", clear, out, "--scheme", "cens", "--kid", KID, "--key", KEY],
        "a short key": ["encrypt", clear, out, "--scheme", "cenc", "--kid", KID, "--key", KEY[:-1]],
        "a long key": ["encrypt", clear, out, "--scheme", "cenc", "--kid", KID, "--key", KEY + "00"],
        "a key that is not hex": ["encrypt", clear, out, "--scheme", "cenc", "--kid", KID, "--key", "zz" + KEY[2:]],
        "a 16-byte IV for cenc": ["encrypt", clear, out, *ENCRYPT, "--iv", IV * 2],
        "an 8-byte IV with --iv-size 16": ["encrypt", clear, out, *ENCRYPT, "--iv-size", "16", "--iv", IV],
        "a 16-byte IV with --iv-size 8": ["encrypt", clear, out, *ENCRYPT, "--iv", IV + "00" * 8, "--iv-size=8"],
        "a 16-byte IV that begins to count blocks elsewhere": ["encrypt", clear, out, *ENCRYPT, "--iv-size", "16", "--iv", IV + "00" * 7 + "01"],
        "an IV size that is none": ["encrypt", clear, out, *ENCRYPT, "--iv-size", "12"],
        "an IV size for cbcs": ["encrypt", clear, out, "--scheme", "cbcs", "--kid", KID, "--key", KEY, "--iv-size", "16"],
        "an 8-byte IV for cbcs": ["encrypt", clear, out, "--scheme", "cbcs", "--kid", KID, "--key", KEY, "--iv", IV],
        "an option without its value": ["encrypt", clear, out, "--scheme"],
        "a decrypt key without colon": ["decrypt", clear, out, "--key", KEY], "decrypt without a key": ["decrypt", clear, out],
        "two decrypt keys for one KID": ["decrypt", clear, out, "--key", f"{KID}:{KEY}", "--key", f"{KID.upper()}:{KID}"],
        "a decrypt key of wrong length": ["decrypt", clear, out, "--key", f"{KID}:{KEY}00"],
        "rotate with --revoke and a grace": ["rotate", "a", "--revoke", "--grace", "1h"],
        "inspect without a file": ["inspect"], "index without a path": ["index"], "inspect --json with a value": ["inspect", clear, "--json=1"],
        "rotate --grace without its value": ["rotate", "a", "--grace"], "keys export --out without its value": ["keys", "export", "a", "--out"],
        "keys export with --asset, which import takes": ["keys", "export", "a", "--out", out, "--asset", "b"],
        "keys import with -c": ["keys", "import", clear, "--keys", out, "-c", clear],
        "keys rewrap with --epoch": ["keys", "rewrap", out, "--plain", "--epoch", "2"],
        "rotate, another option": ["rotate", "a", "-x"], "index --threads=0": ["index", clear, "--threads=0"],
    }
    before = files(work)
    for name, argv in wrong.items():
        r = sluice(*argv)
        tap.ok(r.code == 2 and r.err.startswith(("sluice", "usage")) and not r.out, f"wrong usage: {name}: status 2", r)
        tap.ok(KEY not in r.err, f"wrong usage: {name}: no key in the message", r.err)
    tap.equal(sorted(files(work)), sorted(before), "wrong usage writes nothing")


def forms(tap, sluice, work):
    """Options as all programs take them: anywhere, as --name VALUE or --name=VALUE, -c VALUE or -cVALUE, and none behind --."""
    asset = work / "media" / "-a"
    asset.mkdir(parents=True)
    (asset / "-t.mp4").write_bytes(synth.plain()[0])
    state = work / "state"
    state.mkdir(mode=0o700)
    (state / "derive.secret").write_bytes(bytes(range(32)))
    (state / "derive.secret").chmod(0o600)
    config = work / "c.yaml"
    config.write_text(f"media: {work / 'media'}\ncache_dir: {state}\nstate_dir: {state}\n")
    want = sluice("keys", "export", "a", "--out", "-", "--state-dir", state, "--epoch", "2", "--scheme", "cbcs").out
    tap.ok(b"ContentKey" in want, "keys export, to compare with", want[:100])
    same = {"keys": [["keys", "--epoch=2", "export", "--scheme=cbcs", "a", "--out=-", f"--state-dir={state}"],
                     ["keys", "export", f"-c{config}", "--out=-", "--epoch=2", "--scheme", "cbcs", "--", "a"],
                     ["keys", "export", "a", "--config", config, "--out=-", "--epoch=1", "--epoch=2", "--scheme=cenc", "--scheme=cbcs"]]}
    for argv in same["keys"]:
        r = sluice(*argv)
        tap.ok(r.code == 0 and r.out == want, f"keys: {argv}", r)
    for argv in (["index", "--threads=1", "--", "-t.mp4"], ["index", f"-c{config}", "--threads=2"], ["index", f"--config={config}"], ["inspect", "--json", "--", "-t.mp4"],
                 ["inspect", "--", "-t.mp4"], ["encrypt", *ENCRYPT, "--", "-t.mp4", "-o"], ["serve", "--check", f"-c{config}"]):
        r = run(sluice.path, *argv, cwd=asset, env=environment(POSIXLY_CORRECT="1") if argv[0] == "encrypt" else None)
        tap.ok(r.code == 0, f"options: {argv}", r)
    r = run(sluice.path, "encrypt", "./-t.mp4", "./-o", *ENCRYPT, cwd=asset, env=environment(POSIXLY_CORRECT="1"))
    tap.ok(r.code == 0, "options behind operands, with POSIXLY_CORRECT as well", r)
    with Server(sluice.path, work / "media") as server:
        wrong, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{server.admin_port}"
        (work / "r.yaml").write_text(f"admin: {admin}\n")
        for argv in (["--admin", wrong, f"--admin={admin}", "--grace=1h", "--", "-a"], [f"-c{work / 'r.yaml'}", "--grace", "0", "x"], ["y", f"--config={work / 'r.yaml'}"]):
            r = sluice("rotate", *argv)
            tap.ok(r.code == 0 and f'"scope":"{argv[-1] if argv[0] != "y" else "y"}"' in r.out.decode(), f"rotate {argv}", r)
    r = sluice("rotate", *(["--admin", wrong] * 200), "x")
    tap.ok(r.code == 1 and one_line(r), "an option two hundred times: the last one", r)
    for name in ("serve", "index", "inspect", "encrypt", "decrypt", "rotate", "keys", "load", "version"):
        tap.equal(sluice("help", name).out, sluice(name, "--help").out, f"help {name}")
    tap.equal(sluice("help", "nothing").out, sluice("--help").out, "help of no command lists them")


def failures(tap, sluice, work):
    clear = work / "clear.mp4"
    clear.write_bytes(synth.plain()[0])
    (work / "folder").mkdir()
    kept = work / "kept.mp4"
    kept.write_bytes(b"something of value")
    (work / "text.mp4").write_text("not media at all, but long enough to hold a box header")
    (work / "empty.mp4").write_bytes(b"")
    (work / "cut.mp4").write_bytes(synth.plain()[0][:-10])
    before = files(work)
    cases = {
        "a missing input": ["encrypt", work / "none.mp4", work / "o", *ENCRYPT], "an empty input": ["encrypt", work / "empty.mp4", work / "o", *ENCRYPT],
        "an input that is no media": ["encrypt", work / "text.mp4", work / "o", *ENCRYPT],
        "a truncated input": ["encrypt", work / "cut.mp4", work / "o", *ENCRYPT],
        "a truncated input over a kept file": ["encrypt", work / "cut.mp4", kept, *ENCRYPT],
        "an output folder that is not there": ["encrypt", clear, work / "no" / "o.mp4", *ENCRYPT],
        "an output that is a folder": ["encrypt", clear, work / "folder", *ENCRYPT],
        "decrypting a clear file": ["decrypt", clear, work / "o", "--key", f"{KID}:{KEY}"],
        "inspecting a missing file": ["inspect", work / "none.mp4"], "indexing a missing file": ["index", work / "none.mp4"],
        "inspecting no media": ["inspect", work / "text.mp4"],
    }
    for name, argv in cases.items():
        r = sluice(*argv)
        tap.ok(r.code == 1 and one_line(r) and pathlib.Path(argv[1 if argv[0] != "encrypt" or "output" not in name else 2]).name in r.err,
               f"{name}: status 1, one line that names the file", r)
        tap.equal(files(work), before, f"{name}: nothing written, nothing lost")
    for name, command in {"encrypt": ["encrypt", work / "empty.mp4", work / "o", *ENCRYPT], "index": ["index", work / "empty.mp4"],
                          "decrypt": ["decrypt", work / "empty.mp4", work / "o", "--key", f"{KID}:{KEY}"]}.items():
        r = sluice(*command)
        tap.ok(r.code == 1 and "the file is empty" in r.err, f"{name}: an empty file is called that", r)
        command[1] = work / "text.mp4"
        r = sluice(*command)
        tap.ok(r.code == 1 and "this is not an MP4 file" in r.err, f"{name}: something else is called that", r)
    os.mkfifo(work / "pipe")
    r = sluice("encrypt", work / "pipe", work / "o", *ENCRYPT)
    tap.ok(r.code == 1 and one_line(r) and "give -" in r.err, "a pipe as input: what to give instead", r)
    (work / "pipe").unlink()
    (work / "nonsense.yaml").write_text("nonsense: 1\n")
    for name, command in {"serve": ["serve"], "index": ["index"], "rotate": ["rotate", "--all"]}.items():
        for file in ("none.yaml", "nonsense.yaml"):
            r = sluice(*command, "-c", work / file)
            tap.ok(r.code == 1 and one_line(r) and r.err.startswith(f"sluice: {work / file}:"),
                   f"{name} -c {file}: status 1, one line that begins with the file", r)
    r = sluice("serve", f"--config={work / 'none.yaml'}")
    tap.ok(r.code == 1 and "none.yaml: No such file" in r.err, "serve --config=FILE", r)
    (work / "nonsense.yaml").unlink()
    for form in ([], ["--json"]):
        r = sluice("inspect", work / "empty.mp4", *form)
        tap.equal((r.code, r.err), (1, f"sluice: {work}/empty.mp4: the file is empty\n"), f"inspect {form} of an empty file: status 1, and why")
    r = sluice("inspect", work / "text.mp4")
    tap.ok("this is not an MP4 file" in r.err, "inspect: something else is called that", r)
    r = sluice("index", work / "none.mp4", work / "text.mp4", clear)
    tap.ok(r.code == 1 and r.out == b"1 indexed, 0 up to date, 2 failed\n" and r.err.count("\n") == 2, "index counts what is not there as failed", r)
    clear.with_name("clear.mp4.slx").unlink()
    r = sluice("index", work / "folder")
    tap.ok(r.code == 0 and "no track is there (*.mp4" in r.err and r.out.startswith(b"0 indexed"), "index of a folder without tracks says so", r)
    export = ["keys", "export", "a", "--out", work / "keys.xml", "--state-dir", work / "nostate"]
    r = sluice(*export)
    tap.ok(r.code == 1 and "nostate/derive.secret: there is no secret" in r.err and "--state-dir" in r.err, "keys export elsewhere: says what is missing and where", r)
    (work / "nostate").mkdir(mode=0o700)
    (work / "nostate" / "derive.secret").write_bytes(bytes(32))
    (work / "nostate" / "derive.secret").chmod(0o600)
    r = sluice(*export, "--epoch", "3")
    tap.ok(r.code == 0 and "2 content keys of epoch 3 IN THE CLEAR" in r.err, "keys export says of which epoch the keys are", r)
    (work / "keys.xml").unlink()
    r = sluice(*(a if a != work / "keys.xml" else work / "folder" for a in export))
    tap.ok(r.code == 1 and "Is a directory" in r.err, "keys export onto a folder", r)
    whole = sluice(*export, "--epoch", "3", "--out", "-").out
    for out, want in (("/dev/stdout", whole), ("/dev/null", b"")):
        r = sluice(*export, "--epoch", "3", "--out", out)
        tap.ok(r.code == 0 and r.out == want and "CPIX" in whole.decode() and "mode 0600" not in r.err and stat.S_ISCHR(os.stat("/dev/null").st_mode),
               f"keys export --out {out}: written straight to it", r)
    r = run("script", "-qec", f"{sluice.path} keys export a --state-dir {work}/nostate --out /dev/tty", "/dev/null")
    tap.ok(r.code == 1 and "not written to a terminal" in r.out.decode() and "ContentKey" not in r.out.decode(), "keys export --out /dev/tty: refused", r)
    shutil.rmtree(work / "nostate")
    r = sluice("encrypt", work / "cut.mp4", work / "o", *ENCRYPT)
    tap.ok("byte" in r.err, "a fault of structure is told with its byte", r)
    r = sluice("encrypt", clear, kept, *ENCRYPT)
    tap.ok(r.code == 0 and boxes.audio(kept.read_bytes()).scheme == b"cenc", "an output that exists is replaced", r)
    r = sluice("encrypt", clear, clear, *ENCRYPT)
    good = clear.read_bytes() == synth.plain()[0] if r.code else boxes.audio(clear.read_bytes()).scheme == b"cenc"
    tap.ok(r.code in (0, 1, 2) and good, "input and output the same: refused or right", r)
    r = sluice("version", env=environment(SLUICE_KERNEL="nonsense"))
    tap.ok(r.code in (0, 1, 2), "version with an unknown kernel ends", r)
    clear.write_bytes(synth.plain()[0])
    r = sluice("encrypt", clear, work / "k", *ENCRYPT, env=environment(SLUICE_KERNEL="nonsense"))
    tap.ok(r.code in (1, 2) and one_line(r) and "nonsense" in r.err and not (work / "k").exists(), "an unknown kernel: one line, nothing written", r)
    if pathlib.Path("/dev/full").exists():
        with open("/dev/full", "wb") as full:
            p = subprocess.run([sluice.path, "inspect", clear], stdout=full, stderr=subprocess.PIPE)
        tap.ok(p.returncode == 1, "a full disk under standard output: status 1", p)
        with open("/dev/full", "wb") as full:
            p = subprocess.run([sluice.path, "inspect", clear, "--json"], stdout=full, stderr=subprocess.PIPE)
        tap.equal((p.returncode, p.stderr), (1, b"sluice: standard output: writing failed: No space left on device\n"),
                  "and as JSON: what is full is named, not the input")


def streams(tap, sluice, work):
    clear, data = work / "clear.mp4", synth.around_moof()[0]
    clear.write_bytes(data)
    want = work / "want.mp4"
    tap.ok(sluice.encrypt(clear, want, "cenc", KID, KEY, IV).code == 0, "a file to compare with")
    tap.equal(want.stat().st_mode & 0o777, 0o666 & ~os.umask(os.umask(0o22)) & 0o777, "the output has the usual mode")
    tap.equal(files(work).keys(), {"clear.mp4", "want.mp4"}, "no temporary file is left")
    r = sluice("encrypt", clear, "-", *ENCRYPT, "--iv", IV)
    tap.ok(r.code == 0 and r.out == want.read_bytes(), "encrypt to standard output", f"{r} {len(r.out)}")
    r = sluice("encrypt", "-", work / "o.mp4", *ENCRYPT, "--iv", IV, stdin=data)
    good = r.code == 0 and (work / "o.mp4").read_bytes() == want.read_bytes()
    tap.ok(good or r.code in (1, 2) and one_line(r) and not (work / "o.mp4").exists(), "encrypt from standard input: right, or refused", r)
    r = sluice("decrypt", want, "-", "--key", f"{KID}:{KEY}")
    tap.ok(r.code == 0 and [s.data for s in boxes.audio(r.out).samples] == synth.around_moof()[1], "decrypt to standard output", r)
    r = sluice("decrypt", want, "-", "--key", f"{KID}:{KEY}", "--key", f"{KEY}:{KID}", "--key", f"{KID}:{KEY}")
    tap.ok(r.code == 0 and [s.data for s in boxes.audio(r.out).samples] == synth.around_moof()[1], "a key given twice is one key", r)
    for _ in range(2):
        again = work / "again.mp4"
        sluice.encrypt(clear, again, "cenc", KID, KEY)
        first = again.read_bytes() if _ == 0 else first
    tap.equal(again.read_bytes(), first, "without --iv: the same input gives the same output")
    for kernel in ("ref", "aesni"):
        r = sluice.encrypt(clear, again, "cenc", KID, KEY, IV, env=environment(SLUICE_KERNEL=kernel))
        if r.code and kernel != "ref":
            tap.skip(f"kernel {kernel}", r.err.strip())
        else:
            tap.ok(r.code == 0 and again.read_bytes() == want.read_bytes(), f"kernel {kernel} gives the same file", r)
    out = work / "drm.mp4"
    r = sluice("encrypt", clear, out, *ENCRYPT, "--drm", "widevine,playready")
    systems = {"edef8ba979d64acea3c827dcd51d21ed", "9a04f07998404286ab92e65be0885f95"}
    if r.code == 0:
        body = out.read_bytes()
        got = {body[b.body + 4:b.body + 20].hex() for b in boxes.find(body, b"moov/pssh")}
        tap.equal(got, systems, "--drm widevine,playready: their pssh")
    else:
        tap.ok(False, "--drm widevine,playready", r)
    r = sluice("encrypt", clear, out, *ENCRYPT, "--drm", "nonsense")
    tap.ok(r.code == 2 and "nonsense" in r.err, "--drm with an unknown system: status 2", r)


def offline(tap, sluice, work):
    """The documents' commands give the bytes of a server with its default settings and derived keys."""
    root = pathlib.Path(__file__).resolve().parents[2]
    song = work / "MEDIA" / "album" / "song"
    song.mkdir(parents=True)
    (song / "aac.mp4").write_bytes(synth.indexed()[0])
    (work / "sluice").symlink_to(sluice.path)
    page = (root / "docs" / "keys.md").read_text()
    script = page[page.index("same-bytes-offline"):].split("```bash\n")[1].split("```")[0]
    line = next(x for x in (root / "README.md").read_text().splitlines() if x.startswith("sluice encrypt")).split("#")[0]
    with Server(sluice.path, work / "MEDIA") as server:
        for scheme in ("cbcs", "cenc"):
            want = server.get(f"/album/song/{scheme}/1/aac.mp4").body
            (work / "whole.mp4").unlink(missing_ok=True)
            text = script.replace("SCHEME", scheme).replace("MEDIA/ASSET/TRACK", "MEDIA/album/song/aac").replace("ASSET", "album/song")
            r = run("bash", "-ec", f"PATH=$PWD:$PATH STATE={server.state}\n" + text.replace("--state-dir STATE", '--state-dir "$STATE"'), cwd=work)
            tap.ok(r.code == 0 and (work / "whole.mp4").read_bytes() == want, f"docs/keys.md: offline as served, {scheme}", r)
        want = server.get("/album/song/cbcs/1/aac.mp4").body
        sluice("keys", "export", "album/song", "--scheme", "cbcs", "--state-dir", server.state, "--out", work / "k.xml")
        text = (work / "k.xml").read_text()
        found = [text.split(mark)[1].split(end)[0] for mark, end in (('ContentKey kid="', '"'), ("PlainValue>", "<"), ('explicitIV="', '"'))]
        values = [found[0].replace("-", "")] + [base64.b64decode(v).hex() for v in found[1:]]
        argv = [values.pop(0) if a == "HEX" else a for a in line.split()[1:]]
        r = sluice(*argv[:1], song / "aac.mp4", work / "r.mp4", *argv[3:])
        tap.ok(not values and r.code == 0 and (work / "r.mp4").read_bytes() == want, "README's encrypt gives what is served", f"{argv} {r}")


def there_and_back(tap, sluice, work):
    """What decrypt --help says of its output: the samples as they were, a sidx of encrypt's with the right sizes, no mfra."""
    data, samples = synth.plain()
    mfra = b"\0\0\0\x18mfra\0\0\0\x10mfro" + bytes(4) + b"\0\0\0\x18"
    (work / "clear.mp4").write_bytes(data + mfra)
    for scheme in ("cenc", "cbcs"):
        sluice.encrypt(work / "clear.mp4", work / "e.mp4", scheme, KID, KEY)
        r = sluice("decrypt", work / "e.mp4", work / "d.mp4", "--key", f"{KID}:{KEY}")
        back = (work / "d.mp4").read_bytes() if r.code == 0 else b""
        sidx = boxes.find(back, b"sidx")
        tap.ok(r.code == 0 and [s.data for s in boxes.audio(back).samples] == samples and len(sidx) == 1 and not boxes.find(back, b"mfra"),
               f"{scheme} and back: the same samples, a sidx, no mfra", r)
        total = sum(size for size, _ in boxes.sidx_references(back, sidx[0])[2])
        tap.equal(sidx[0].end + total, len(back), f"{scheme} and back: the sidx covers the file")


def memory(tap, sluice, work):
    """decrypt holds the file once."""
    part = [bytes([n]) * 65536 for n in range(64)]
    with open(work / "c.mp4", "wb") as f:
        f.write(synth.FTYP + synth.moov())
        for n in range(30):
            f.write(synth.plain_fragment(n + 1, part, n * 64 * synth.FRAME))
    sluice.encrypt(work / "c.mp4", work / "e.mp4", "cenc", KID, KEY)
    p = subprocess.Popen([sluice.path, "decrypt", work / "e.mp4", work / "d.mp4", "--key", f"{KID}:{KEY}"], env=environment())
    _, status, usage = os.wait4(p.pid, 0)
    size, peak = (work / "e.mp4").stat().st_size, usage.ru_maxrss * 1024
    tap.ok(status == 0 and size < peak < 1.5 * size, "decrypt: a large file is in memory once", f"status {status}, {size} bytes, peak {peak}")


def without(closed, *argv, stdin=b""):
    """Runs a program without some of its standard descriptors."""
    return run("bash", "-c", f'exec "$@" {closed}', "bash", *argv, stdin=stdin)


def closed_descriptors(tap, sluice, work):
    """Nothing that is opened may take the place of a standard descriptor: what is meant for that one would go into it."""
    clear, data = work / "clear.mp4", synth.plain()[0]
    clear.write_bytes(data)
    want = work / "want.mp4"
    sluice("encrypt", clear, want, *ENCRYPT)
    bad = "Bad file descriptor"
    r = without(">&-", sluice.path, "decrypt", "-", "-", "--key", f"{KID}:{KEY}", stdin=want.read_bytes())
    tap.ok(r.code == 1 and one_line(r) and bad in r.err, "decrypt to a standard output that is closed: status 1", r)
    r = without(">&-", sluice.path, "encrypt", "-", "-", *ENCRYPT, stdin=data)
    tap.ok(r.code == 1 and one_line(r) and "standard output" in r.err and bad in r.err, "encrypt to a standard output that is closed", r)
    r = without("<&-", sluice.path, "encrypt", "-", work / "o.mp4", *ENCRYPT)
    tap.ok(r.code == 1 and one_line(r) and "standard input" in r.err and bad in r.err, "encrypt from a standard input that is closed", r)
    tap.ok(not (work / "o.mp4").exists(), "and nothing is written")
    for name in ("--help", "version"):
        r = without(">&-", sluice.path, name)
        tap.ok(r.code == 1 and one_line(r) and bad in r.err, f"{name} without standard output: status 1, and why", r)
    r = without("<&- >&- 2>&-", sluice.path, "encrypt", clear, work / "none.mp4", *ENCRYPT)
    tap.ok(r.code == 0 and (work / "none.mp4").read_bytes() == want.read_bytes(), "a file to a file needs none of them", r)
    (work / "media" / "song").mkdir(parents=True)
    (work / "media" / "song" / "a.mp4").write_bytes(data)
    with Server(sluice.path, work / "media", config="access_log: '-'\n", closed="<&- >&- 2>&-") as server:
        links = [os.readlink(f"/proc/{server.process.pid}/fd/{fd}") for fd in (0, 1, 2)]
        tap.equal(links, ["/dev/null"] * 3, "no secret, cache or connection of the server is a standard descriptor")
        bodies = {server.get("/song/cbcs/1/a/1.m4s").body for _ in range(20)}
        tap.ok(len(bodies) == 1 and len(bodies.pop()) > 100, "its access log is not written into the segments")


def outputs(tap, sluice, work):
    """OUT that is there already: links stay, modes stay, what the shell opened is written to."""
    clear, want, real = work / "clear.mp4", work / "want.mp4", work / "real" / "o.mp4"
    clear.write_bytes(synth.plain()[0])
    real.parent.mkdir()
    sluice("encrypt", clear, want, *ENCRYPT)
    link, chain = work / "link.mp4", work / "chain.mp4"
    link.symlink_to("real/o.mp4")
    chain.symlink_to(link)
    real.write_bytes(b"old")
    real.chmod(0o640)
    r = sluice("encrypt", clear, chain, *ENCRYPT)
    tap.ok(r.code == 0 and chain.is_symlink() and link.is_symlink() and real.read_bytes() == want.read_bytes(),
           "an output that is a link to a link: the links stay, the file is replaced", r)
    tap.equal(stat.S_IMODE(real.stat().st_mode), 0o640, "and its mode stays")
    (work / "cut.mp4").write_bytes(synth.plain()[0][:-10])
    before = files(work)
    r = sluice("encrypt", work / "cut.mp4", chain, *ENCRYPT)
    tap.ok(r.code == 1 and files(work) == before and chain.is_symlink(), "a failure behind a link changes nothing", r)
    private = work / "private.mp4"
    private.write_bytes(b"")
    private.chmod(0o600)
    r = sluice("decrypt", want, private, "--key", f"{KID}:{KEY}")
    tap.ok(r.code == 0 and stat.S_IMODE(private.stat().st_mode) == 0o600, "decrypt over a private file: it stays private",
           f"{r} {private.stat().st_mode:o}")
    dangling = work / "dangling.mp4"
    dangling.symlink_to("none/o.mp4")
    r = sluice("encrypt", clear, dangling, *ENCRYPT)
    tap.ok(r.code == 1 and one_line(r) and "dangling.mp4" in r.err and dangling.is_symlink(), "a link that leads nowhere is refused", r)
    loop = work / "loop.mp4"
    loop.symlink_to("loop.mp4")
    r = sluice("encrypt", clear, loop, *ENCRYPT)
    tap.ok(r.code == 1 and one_line(r) and loop.is_symlink(), "a link to itself is refused", r)
    same = work / "same.mp4"
    same.symlink_to(clear)
    r = sluice("encrypt", clear, same, *ENCRYPT)
    tap.ok(r.code == 1 and same.is_symlink() and clear.read_bytes() == synth.plain()[0], "a link to the input is refused", r)
    # What /dev/stdout and /dev/fd/3 are, as links of our own.
    for number, name in ((1, "mystdout"), (3, "mythree")):
        out, captured = work / name, work / f"captured{number}"
        out.symlink_to(f"/proc/self/fd/{number}")
        script = f'exec {number}>"$1"; shift; printf before >&{number}; "$@"; s=$?; printf after >&{number}; exit $s'
        r = run("bash", "-c", script, "bash", captured, sluice.path, "encrypt", clear, out, *ENCRYPT)
        tap.ok(r.code == 0 and out.is_symlink() and captured.read_bytes() == b"before" + want.read_bytes() + b"after",
               f"an output that leads to descriptor {number}, a file: written where the shell is", f"{r} {captured.stat().st_size}")
    r = sluice("encrypt", clear, work / "mystdout", *ENCRYPT)
    tap.ok(r.code == 0 and (work / "mystdout").is_symlink() and r.out == want.read_bytes(), "an output that leads to descriptor 1, a pipe", r)
    tap.ok(not [p for p in files(work) if ".sluice-" in p], "no temporary file is left")


def interrupted(tap, sluice, work):
    """A signal ends it: nothing of what was being written stays, also where the file system has no nameless files (NFS, FUSE)."""
    def start(*argv, limit=None, nameless=True):
        def ready():
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if not nameless:  # openat with O_TMPFILE among its flags, its third argument
                no_uring.install((no_uring.LOAD_WORD, 0, 0, 0), (no_uring.JUMP_EQUAL, 0, 3, openat), (no_uring.LOAD_WORD, 0, 0, 32),
                                 (no_uring.JUMP_SET, 0, 1, os.O_TMPFILE & ~os.O_DIRECTORY),
                                 (no_uring.RETURN, 0, 0, no_uring.ERRNO | errno.EOPNOTSUPP), (no_uring.RETURN, 0, 0, no_uring.ALLOW))
        return subprocess.Popen([sluice.path, *map(str, argv)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=ready)

    def seen(folder, what, process):
        while process.poll() is None:
            if any(what in name for name in os.listdir(folder)):
                return True
        return False

    openat = {"x86_64": 257, "aarch64": 56}.get(platform.machine())
    out, clear, size = work / "out", work / "clear.mp4", 64 << 20
    out.mkdir()
    whole = synth.plain()[0]
    clear.write_bytes(whole + struct.pack(">I4s", size, b"free"))
    os.truncate(clear, len(whole) + size)
    encrypt = ["encrypt", clear, out / "o.mp4", *ENCRYPT, "--iv", IV]
    p = start(*encrypt)
    tap.ok(p.wait() == 0 and os.path.getsize(out / "o.mp4") > size and os.listdir(out) == ["o.mp4"], "a long output", os.listdir(out))
    (out / "o.mp4").unlink()
    for nameless in (True, False) if openat else (True,):
        p = start(*encrypt, limit=1 << 20, nameless=nameless)
        said = p.communicate()[1]
        tap.ok(p.returncode == -signal.SIGXFSZ and not os.listdir(out), f"a file that may not grow further (nameless files: {nameless}): nothing is left",
               (p.returncode, said, os.listdir(out)))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if not openat:
            tap.skip(f"{number.name} amid a named file", f"openat has no known number on {platform.machine()}")
            continue
        there = False
        for _ in range(20):  # unless it is done before it is looked at
            p = start(*encrypt, nameless=False)
            there = seen(out, ".sluice-", p)
            p.send_signal(number)
            said = p.communicate()[1]
            if there and p.returncode:
                break
            (out / "o.mp4").unlink(missing_ok=True)
        tap.ok(there and p.returncode == -number and not os.listdir(out), f"{number.name} amid a named file: nothing is left, and it is what ended it",
               (there, p.returncode, said, os.listdir(out)))
    tree = work / "tree"
    tree.mkdir()
    for n in range(200):
        (tree / f"{n}.mp4").write_bytes(whole)
    for turn in range(3):
        p = start("index", tree)
        there = seen(tree, ".slx", p)
        p.send_signal(signal.SIGINT)
        said = p.communicate()[1]
        done = [name for name in os.listdir(tree) if name.endswith(".mp4.slx")]
        tap.ok(there and p.returncode == -signal.SIGINT and said == f"sluice: index: interrupted: {len(done)} of 200 are done\n" and
               len(os.listdir(tree)) == 200 + len(done), "index: those under way are finished, no part of a sidecar is left", (p.returncode, said, len(done)))
        for name in done:
            (tree / name).unlink()
    p = start("index", tree / "0.mp4", limit=100)
    said = p.communicate()[1]
    tap.ok(p.returncode == 1 and "the sidecar cannot be written: File too large" in said and len(os.listdir(tree)) == 200,
           "index: a sidecar that may not grow further is an error, and nothing of it is left", (p.returncode, said, sorted(os.listdir(tree))[:3]))


def languages(tap, sluice, work):
    """elng goes into manifests: a language tag (RFC 5646, as xs:language) or nothing of it."""
    track = work / "spoken.mp4"
    for tag, want in ((b"de", "de"), (b"zh-Hant-TW", "zh-Hant-TW"), (b"es-419", "es-419"), (b"i-klingon", "i-klingon"), (b"12", "und"), (b"-de", "und"),
                      (b"de-", "und"), (b"de--AT", "und"), (b"abcdefghi", "und"), (b"de_AT", "und"), (b'"><x', "und"), (b"", "und")):
        track.write_bytes(synth.FTYP + synth.moov(elng=tag) + synth.plain_fragment(1, [b"abc"], 0))
        r = sluice("inspect", track, "--json")
        tap.equal(json.loads(r.out)["track"].get("language"), want, f"the language of elng {tag}")


def folder_faults(tap, sluice, work):
    """A fault in a folder is told with the part that it lies in, and the byte in that."""
    folder = work / "parts"
    folder.mkdir()
    (folder / "init.mp4").write_bytes(synth.FTYP + synth.moov())
    for n in range(1, 4):
        (folder / f"{n}.m4s").write_bytes(synth.plain_fragment(n, [b"abcd"] * 3, (n - 1) * 3 * synth.FRAME))
    bad = (folder / "2.m4s").read_bytes()
    (folder / "2.m4s").write_bytes(bad.replace(b"tfhd", b"free"))
    want = f"sluice: {folder}/2.m4s: a trun before tfhd (at byte {boxes.find(bad, b'moof/traf/trun')[0].start}, box moof/traf)\n"
    for command in (["encrypt", folder, work / "o.mp4", *ENCRYPT], ["index", folder]):
        tap.equal(sluice(*command).err, want, f"{command[0]}: which part of a folder is wrong, and where")
    (folder / "2.m4s").write_bytes(bad)
    sluice.encrypt(folder, work / "whole.mp4", "cenc", KID, KEY)
    data = (work / "whole.mp4").read_bytes()
    starts = [b.start for b in boxes.find(data, b"moof")] + [len(data)]
    (folder / "init.mp4").write_bytes(data[:boxes.one(data, b"sidx").start])
    for n, (a, b) in enumerate(zip(starts, starts[1:])):
        (folder / f"{n + 1}.m4s").write_bytes(data[a:b] + (b"\0\0\0\7moof" if n == 1 else b""))
    r = sluice("decrypt", folder, work / "o.mp4", "--key", f"{KID}:{KEY}")
    tap.equal(r.err, f"sluice: {folder}/2.m4s: not a box (at byte {starts[2] - starts[1]}, box moof)\n", "decrypt: the same")


def sidecars(tap, sluice, work):
    track = work / "a" / "t.mp4"
    track.parent.mkdir()
    track.write_bytes(synth.indexed()[0])
    slx = track.with_name("t.mp4.slx")
    r = sluice("index", work / "a")
    tap.ok(r.code == 0 and slx.is_file(), "index of a folder writes the sidecar", r)
    good, when = slx.read_bytes(), slx.stat().st_mtime_ns
    sluice("index", track)
    tap.equal((slx.read_bytes(), slx.stat().st_mtime_ns), (good, when), "index again changes nothing")

    def encrypt():
        r = sluice.encrypt(track, work / "o.mp4", "cenc", KID, KEY)
        return (work / "o.mp4").read_bytes() if r.code == 0 else repr(r)
    want = encrypt()
    for name, bad in (("cut", good[:-9]), ("empty", b""), ("torn", good[:100] + bytes(200) + good[300:]), ("foreign", b"text" * 100),
                      ("of a later version", good[:8] + b"\xff\0\0\0" + good[12:]), ("with one bit flipped", good[:-20] + bytes([good[-20] ^ 4]) + good[-19:])):
        slx.write_bytes(bad)
        tap.equal(encrypt() == want, True, f"a sidecar that is {name} is not trusted by encrypt")
        r = sluice("index", track)
        tap.ok(r.code == 0 and slx.read_bytes() == good, f"a sidecar that is {name} is rebuilt by index", r)
    other = work / "a" / "u.mp4"
    other.write_bytes(synth.around_moof()[0])
    sluice("index", other)
    shutil.copyfile(other.with_name("u.mp4.slx"), slx)
    tap.equal(encrypt() == want, True, "a sidecar of another file is not trusted")
    sluice("index", track)
    data = bytearray(track.read_bytes())
    data[boxes.audio(bytes(data)).samples[0].offset] ^= 1
    track.write_bytes(bytes(data))
    (work / "fresh.mp4").write_bytes(bytes(data))
    sluice.encrypt(work / "fresh.mp4", work / "p.mp4", "cenc", KID, KEY)
    tap.equal(encrypt(), (work / "p.mp4").read_bytes(), "a stale sidecar (same size, other content) is not trusted")
    sluice("index", track)
    os.utime(track, ns=(10 ** 18, 10 ** 18))
    tap.equal(encrypt(), (work / "p.mp4").read_bytes(), "another mtime makes it stale too")


def messages(tap, sluice, work):
    """`sluice: FILE: what is wrong (at byte N, box moof/traf/trun)`, and no position where there is none."""
    key = ["--key", f"{KID}:{KEY}"]
    (work / "t.mp4").write_bytes(synth.plain()[0])
    sluice("encrypt", work / "t.mp4", work / "e.mp4", "--scheme", "cbcs", "--kid", KID, "--key", KEY)
    good = (work / "e.mp4").read_bytes()
    for name, argv in {"encrypt": [work / "none", work / "o", *ENCRYPT], "decrypt": [work / "none", work / "o", *key], "inspect": [work / "none"],
                       "index": [work / "none"]}.items():
        r = sluice(name, *argv)
        tap.equal((r.code, r.err), (1, f"sluice: {work}/none: No such file or directory\n"), f"{name} of what is not there: no position")
    r = sluice("index", "/dev/null")
    tap.equal(r.err, "sluice: /dev/null: neither a regular file nor a folder\n", "index of a device: no position")
    r = sluice("decrypt", work / "t.mp4", work / "o", *key)
    tap.equal(r.err, f"sluice: {work}/t.mp4: the input is not encrypted\n", "decrypt of a clear file: no position")
    (work / "media").mkdir()
    (work / "keys.yaml").write_text("keys:\n" + "".join(f"  - {{ asset: a, scheme: {s}, kid: {k}, key: {KEY} }}\n" for s, k in (("cenc", KID), ("cbcs", KEY))))
    r = sluice("serve", "--check", "--media", work / "media", "--keys", work / "keys.yaml", "--state-dir", work / "state")
    tap.ok(r.code == 1 and "share one key" in r.err and "at byte" not in r.err, "a keys file with one key twice: no position", r)

    def body(path):
        return next(b for b in boxes.find(good, path)).body
    stsd = boxes.one(good, b"moov/trak/mdia/minf/stbl/stsd")
    enca = boxes.one(good, b"enca", stsd.body + 8, stsd.end)
    sinf = boxes.one(good, b"sinf", enca.body + boxes.AUDIO_ENTRY_BYTES, enca.end).body
    trun, traf = body(b"moof/traf/trun"), body(b"moof/traf")
    last = [b for b in boxes.walk(good)][-1]
    damage = {
        "a file cut in mdat": (good[:-10], last.start, "mdat"), "a file cut in its first head": (good[:12], 0, "ftyp"),
        "a trun with too many samples": (good[:trun + 4] + b"\0\0\xff\xff" + good[trun + 8:], trun, "moof/traf/trun"),
        "a child longer than traf": (good[:traf] + b"\0\0\x0f\xff" + good[traf + 4:], traf, "moof/traf"),
        "an unknown scheme": (good.replace(b"schm\0\0\0\0cbcs", b"schm\0\0\0\0zzzz"), sinf, "moov/trak/mdia/minf/stbl/stsd/enca/sinf"),
    }
    for name, (data, at, path) in damage.items():
        (work / "bad.mp4").write_bytes(data)
        r = sluice("decrypt", work / "bad.mp4", work / "o", *key)
        tap.ok(r.code == 1 and one_line(r) and r.err.endswith(f" (at byte {at}, box {path})\n"), f"decrypt of {name}: byte {at}, box {path}", r)
        if "longer" in name:
            tap.ok("a box is longer than the box around it" in r.err, "and in the words of encrypt", r)
    progressive = VECTORS / "androidx-media" / "mp4" / "sample_opus.mp4"
    for argv in (["encrypt", progressive, work / "o", *ENCRYPT], ["index", progressive]) if progressive.exists() else ():
        r = sluice(*argv)
        tap.ok(r.code == 1 and one_line(r) and "not fragmented" in r.err and "ffmpeg -i" in r.err, f"{argv[0]} of a progressive file: what makes it one that can be used", r)
    if not progressive.exists():
        tap.skip("a progressive file: what makes it one that can be used", "the vectors are not here")
    r = sluice("decrypt", work / "e.mp4", work / "o", "--key", f"{KEY}:{KEY}")
    tap.ok(r.code == 1 and KID in r.err and r.err.endswith(f" (at byte {traf}, box moof/traf)\n"), "decrypt without the key: where it is needed", r)
    with Server(sluice.path, work / "media") as server:
        r = sluice("rotate", "a//b", "--admin", f"127.0.0.1:{server.admin_port}")
    tap.ok(r.code == 1 and one_line(r) and 'no empty, "." or ".." segment' in r.err and "{" not in r.err, "rotate: the server's sentence, not its JSON", r)


def cached(tap, sluice, work):
    """Sidecars of media whose folder takes none: a name that has no room for .slx behaves so for root as well."""
    asset, cache = work / "media" / "a", work / "cache"
    asset.mkdir(parents=True)
    cache.mkdir()
    track = asset / ("x" * 249 + ".mp4")
    track.write_bytes(synth.indexed()[0])
    r = sluice("index", work / "media")
    tap.ok(r.code == 1 and one_line(r) and "cannot be written: File name too long" in r.err and "--cache-dir" in r.err,
           "a sidecar that cannot be written: why, and what helps", r)
    if os.getuid():
        (asset / "y.mp4").write_bytes(synth.indexed()[0])
        asset.chmod(0o555)
        r = sluice("index", asset / "y.mp4")
        tap.ok(r.code == 1 and "cannot be written: Permission denied" in r.err, "a folder without write permission: why", r)
        asset.chmod(0o755)
        (asset / "y.mp4").unlink()
    else:
        tap.skip("a folder without write permission: why", "root writes everywhere")
    r = sluice("index", track, "--cache-dir", cache)
    tap.ok(r.code == 2 and "--media" in r.err, "--cache-dir without --media: status 2", r)
    r = sluice("index", "media/a", "--media", work / "media", "--cache-dir", "cache", cwd=work)
    made = {p.name: p.stat().st_ino for p in cache.iterdir()}
    tap.ok(r.code == 0 and r.out.startswith(b"1 indexed") and len(made) == 1, "--cache-dir takes the sidecar", f"{r} {made}")
    (work / "sluice.yaml").write_text(f"media: {work / 'media'}\ncache_dir: {cache}\n")
    r = sluice("index", "-c", work / "sluice.yaml")
    tap.ok(r.code == 0 and b"1 up to date" in r.out, "-c names both folders, and all of the media is looked at", r)
    with Server(sluice.path, work / "media", "--cache-dir", str(cache)) as server:
        status = server.get("/a/cbcs/master.m3u8").status
    tap.equal((status, {p.name: p.stat().st_ino for p in cache.iterdir()}), (200, made), "the server uses that sidecar: it writes none of its own")
    (work / "outside.mp4").write_bytes(synth.indexed()[0])
    r = sluice("index", work / "outside.mp4", "-c", work / "sluice.yaml")
    tap.ok(r.code == 1 and one_line(r) and "outside" in r.err and len(list(cache.iterdir())) == 1, "a track outside of the media folder is refused", r)
    r = sluice("index", "--media", work / "media", "--cache-dir", work / "none")
    tap.ok(r.code == 1 and one_line(r) and "No such file" in r.err, "a cache folder that is not there", r)


def inspect(tap, sluice, work):
    track = work / "t.mp4"
    for build in (synth.indexed, synth.negative_offsets, synth.large_sizes, synth.around_moof):
        data, samples = build()
        track.write_bytes(data)
        text, js = sluice("inspect", track), sluice("inspect", track, "--json")
        tap.ok(text.code == 0 and all(w in text.out.decode() for w in ("moof", "trun", "mp4a")), f"inspect {build.__name__}: the tree", text)
        try:
            tree = json.loads(js.out)
        except ValueError as e:
            tap.ok(False, f"inspect {build.__name__} --json is JSON", repr(e))
            continue
        tap.ok(js.code == 0, f"inspect {build.__name__} --json is JSON")
        flat = json.dumps(tree)
        missing = [b for b in boxes.walk(data) if str(b.start) not in flat or b.type.decode() not in flat]
        tap.ok(not missing, f"inspect {build.__name__}: every top-level box with its offset", missing)
    for name, shown in ((b"n\xffa\xc3\xa9\xed\xa0\x80.mp4", "n?aé???.mp4"), ("naïve 雨.mp4".encode(), "naïve 雨.mp4")):
        odd = os.path.join(os.fsencode(work), name)
        shutil.copyfile(track, odd)
        r = sluice("inspect", os.fsdecode(odd), "--json")
        tap.ok(r.code == 0 and json.loads(r.out)["file"] == f"{work}/{shown}", f"inspect --json of a file called {shown}", (r.code, r.err, r.out[:200]))
        os.unlink(odd)
    locked = work / "locked.mp4"
    sluice.encrypt(track, locked, "cbcs", KID, KEY)
    r = sluice("inspect", locked)
    text = r.out.decode().lower().replace("-", "")
    tap.ok(r.code == 0 and "cbcs" in text and KID in text, "inspect shows scheme and KID", r.out.decode()[:500])
    tap.ok(KEY not in r.out.decode(), "inspect shows no key")
    segment = work / "1.m4s"
    for scheme, marks in (("cenc", ["senc", "saiz"]), ("cbcs", ["senc"]), (None, [])):
        if scheme:
            sluice.encrypt(track, locked, scheme, KID, KEY)
        data = (locked if scheme else track).read_bytes()
        segment.write_bytes(data[boxes.find(data, b"moof")[0].start:])
        text = sluice("inspect", segment).out.decode().splitlines()[-1]
        want = f"yes ({', '.join(marks)}); scheme and KID stand in the" if scheme else "not told here: the"
        tap.equal(text, f"protection: {want} initialization segment" + ("" if scheme else " says"), f"inspect of a segment alone: {scheme}")
        js = json.loads(sluice("inspect", segment, "--json").out)
        tap.equal((js["protected_by"], js["protection"]), (marks, []), f"inspect --json of a segment alone: {scheme}")
    r = sluice("inspect", track)
    tap.ok(r.out.decode().endswith("protection: none\n"), "inspect of a clear file: none", r.out.decode()[-200:])
    tap.ok(r.out == sluice("inspect", "-", stdin=track.read_bytes()).out, "inspect of standard input")
    inspect_counts(tap, sluice, track)
    inspect_times(tap, sluice, track)
    inspect_marks(tap, sluice, track)


def moof(number, truns, **header):
    return synth.moof_of(number, lambda n: [synth.box(b"traf", synth.tfhd(**header), *truns(n))])


def counted(num, offset):
    """A trun that says how many samples there are and nothing of each."""
    return synth.full(b"trun", 0, 1, struct.pack(">Ii", num, offset))


def inspect_counts(tap, sluice, track):
    """Samples that cost no bytes in a trun: bounded over the file, unless the source holds their data."""
    track.write_bytes(synth.FTYP + synth.moov() + moof(1, lambda n: [counted(65536, n + 8)] * 20))
    for option in ("--json", "--all"):
        r = sluice("inspect", track, option, timeout=20)
        tap.ok(r.code == 1 and one_line(r) and "without bytes" in r.err and len(r.out) < 12 << 20, f"inspect {option}: truns of nothing",
               f"{r.code} {r.err} {len(r.out)}")
    track.write_bytes(synth.FTYP + synth.moov(trex=(1, 1, 4, 0)) + moof(1, lambda n: [counted(96000, n + 8)]) + synth.box(b"mdat", bytes(4 * 96000)))
    r = sluice("inspect", track, "--json")
    samples = [s for f in json.loads(r.out)["fragments"] for s in f["samples"]] if r.code == 0 else []
    tap.ok(len(samples) == 96000 and samples[-1]["time"] == 95999, "inspect: 96,000 samples of default size, as of PCM", r.err)
    track.write_bytes(synth.FTYP + synth.moov(trex=(1, 1, 4, 0)) + moof(1, lambda n: [counted(96000, n + 8)]) + synth.box(b"mdat", bytes(96000)))
    r = sluice("inspect", track)
    tap.ok(r.code == 1 and one_line(r) and "ends behind" in r.err, "inspect: samples of default size behind the end", r)
    track.write_bytes(synth.FTYP + synth.moov(trex=(1, 1, 1, 0)) + moof(1, lambda n: [counted(50000, n + 8)] * 3) + synth.box(b"mdat", bytes(50000)))
    r = sluice("inspect", track)
    tap.ok(r.code == 1 and one_line(r) and "more sample bytes than bytes" in r.err, "inspect: truns that share their data", r)


def inspect_times(tap, sluice, track):
    def fragment(number, *before):
        return moof(number, lambda n: [*before, synth.trun([b"abc"] * 3, n + 8)]) + synth.box(b"mdat", b"abc" * 3)

    def times(*fragments):
        track.write_bytes(synth.FTYP + synth.moov() + b"".join(fragments))
        r = sluice("inspect", track, "--json")
        return [s["time"] for f in json.loads(r.out)["fragments"] for s in f["samples"]], json.loads(r.out)

    got, _ = times(fragment(1), fragment(2), fragment(3, synth.tfdt(9000)), fragment(4))
    starts = [0, 3 * synth.FRAME, 9000, 9000 + 3 * synth.FRAME]
    tap.equal(got, [t + i * synth.FRAME for t in starts for i in range(3)], "inspect: without tfdt, times go on from moof to moof")
    late = (1 << 63) + 5
    got, tree = times(fragment(1, synth.tfdt(late)))
    tap.equal([int(t) for t in got], [late + i * synth.FRAME for i in range(3)], "inspect: times beyond 2^63")
    tap.ok(int(tree["track"]["start"]) == late and "-" not in json.dumps(tree["track"]["start"]), "inspect: and a start", str(tree["track"]))
    tap.ok(str(late) in sluice("inspect", track, "--all").out.decode(), "inspect --all: the same")


def inspect_marks(tap, sluice, track):
    """senc as PIFF 1.1 5.3.2 has it is one; a saiz of another kind (ISO/IEC 14496-12 8.7.8.3) is no protection."""
    def marks(want, extra):
        track.write_bytes(moof(1, lambda n: [synth.trun([b"abc"], n + 8), extra]) + synth.box(b"mdat", b"abc"))
        r = sluice("inspect", track, "--json")
        tap.equal(json.loads(r.out)["protected_by"], want, f"inspect: marks {want}")

    marks(["senc"], synth.box(b"uuid", bytes.fromhex("a2394f525a9b4f14a2446c427c648df4") + bytes(8)))
    marks([], synth.box(b"uuid", bytes(24)))
    marks([], synth.box(b"saiz", b"\0\0\0\1abcd\0\0\0\0\1\0\0\0\1"))
    marks(["saiz"], synth.box(b"saiz", b"\0\0\0\1cbcs\0\0\0\0\1\0\0\0\1"))


def bad_files(tap, sluice, work):
    """The fuzz corpus of another project: any end but a crash or a hang."""
    folder = VECTORS / "malformed"
    if not folder.is_dir():
        tap.skip("malformed files", f"{folder} is not there")
        return
    wrong, count = [], 0
    for path in sorted(folder.glob("*.bin")):
        count += 1
        for argv in (["inspect", path], ["encrypt", path, work / "o.mp4", *ENCRYPT], ["decrypt", path, work / "o.mp4", "--key", f"{KID}:{KEY}"]):
            r = sluice(*argv, timeout=20)
            if r.code not in (0, 1) or (r.code == 1 and not r.err.startswith("sluice: ")):
                wrong.append(f"{argv[0]} {path.name}: {r}")
            if r.code and (work / "o.mp4").exists():
                wrong.append(f"{argv[0]} {path.name}: left a file behind")
            (work / "o.mp4").unlink(missing_ok=True)
    tap.ok(count > 10 and not wrong, f"{count} malformed files through inspect, encrypt and decrypt: no crash, no hang, nothing left behind", "\n".join(wrong[:20]))
    source = bytearray(synth.plain()[0])
    codes = {}
    for i in range(0, len(source), 9):
        (work / "f.mp4").write_bytes(bytes(source[:i]) + bytes([source[i] ^ 0x40]) + bytes(source[i + 1:]))
        r = sluice("encrypt", work / "f.mp4", "-", *ENCRYPT, timeout=20)
        codes[r.code] = codes.get(r.code, 0) + 1
        if r.code == 1 and r.out:
            wrong.append(f"byte {i}: output before an error")
    tap.ok(set(codes) <= {0, 1} and not wrong, "flipped bytes through the command line: status 0 or 1", f"{codes} {wrong[:5]}")


def ipv6(tap, sluice, work):
    """Addresses of version 6 stand in brackets in the URLs of the log."""
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as e:
        tap.skip("listening on ::1", e)
        return
    (work / "media").mkdir()
    p = subprocess.Popen([sluice.path, "serve", "--media", work / "media", "--state-dir", work / "state", "--listen", "[::1]:0", "--admin", "[::1]:0"],
                         stderr=subprocess.PIPE, text=True)
    said = []
    while not said or said[-1] and "ready: " not in said[-1]:
        said.append(p.stderr.readline())
    p.terminate()
    rest = p.communicate(timeout=60)[1]
    for what in ("listening", "admin"):
        tap.ok(re.search(rf"{what} on http://\[::1\]:[1-9]\d*$", "".join(said), re.M), f"{what} on ::1: a URL", said + [rest])
    for addresses in (["[::]"], ["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"]):
        port, admin = free_port(), free_port()
        with Server(sluice.path, work / "media", *(f for a in addresses for f in ("--listen", f"{a}:{port}", "--admin", f"{a}:{admin}"))) as server:
            for number in (port, admin):
                got = []
                for host in ("127.0.0.1", "::1"):
                    c = Client(number, host)
                    got.append(c.get("/none").status)
                    c.close()
                tap.equal(got, [404, 404], f"{' and '.join(addresses)}: both versions are answered")


def modes(tap, sluice, work):
    """What is not a plain readable file."""
    fifo = work / "fifo"
    os.mkfifo(fifo)
    r = run("timeout", "-k", "1", "5", sluice.path, "inspect", fifo)
    tap.ok(r.code == 1 and one_line(r), "a FIFO as input is refused, not waited for", r)
    r = sluice("inspect", "/dev/zero", timeout=20)
    tap.ok(r.code == 1, "a device as input is refused", r)
    if os.getuid():
        secret = work / "secret.mp4"
        secret.write_bytes(synth.plain()[0])
        secret.chmod(stat.S_IWUSR)
        r = sluice("encrypt", secret, work / "o.mp4", *ENCRYPT)
        tap.ok(r.code == 1 and one_line(r), "an unreadable input", r)
    else:
        tap.skip("an unreadable input", "root reads every file")


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    for part in (usage, forms, failures, streams, offline, there_and_back, memory, closed_descriptors, outputs, interrupted, languages, folder_faults, sidecars, cached, messages,
                 inspect, bad_files, ipv6, modes):
        if len(sys.argv) > 2 and part.__name__ not in sys.argv[2:]:
            continue
        with tempfile.TemporaryDirectory(prefix="sluice-command-") as work:
            try:
                part(tap, sluice, pathlib.Path(work))
            except (OSError, ValueError, KeyError, IndexError) as e:
                tap.ok(False, f"{part.__name__}: runs to its end", repr(e))
    tap.end()


if __name__ == "__main__":
    main()
