#!/usr/bin/env python3
"""The command line: exit statuses, messages, files left behind: command.py SLUICE [PART...]"""
import base64
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from integration.command_edges import arguments, changed, control_characters, half_written, names_for_addresses, orders, shown, trees  # noqa: E402
from integration.command_files import (  # noqa: E402
    cached, closed_descriptors, folder_faults, interrupted, modes, one_fails, outputs, sidecars, streams, there_and_back)
from integration.command_inspect import bad_files, inspect  # noqa: E402
from integration.command_parts import ENCRYPT, IV, KEY, KID, files, one_line  # noqa: E402
from judge import boxes, synth  # noqa: E402
from judge.programs import FFMPEG, VECTORS, Sluice, run  # noqa: E402
from judge.server import Client, Server, environment, free_port  # noqa: E402
from judge.tap import Tap  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]


def usage(tap, sluice, work):
    clear = work / "clear.mp4"
    clear.write_bytes(synth.plain()[0])
    out = work / "out.mp4"
    for name in ("serve", "index", "inspect", "encrypt", "decrypt", "rotate", "keys", "load", "version"):
        for asked in ("--help", "-h"):
            r = sluice(name, asked)
            tap.ok(r.code == 0 and name in r.out.decode() and not r.err, f"{name} {asked}", r)
        tap.equal(r.out.decode().split("\n")[0].rstrip(), r.out.decode().split("\n")[0], f"{name} -h: no blank at the end of its usage")
    page = work / "sluice.1"
    made = subprocess.run([ROOT / "src/cli/manual", sluice.path, page], capture_output=True, text=True)
    written = page.read_text().replace("\\-", "-") if page.exists() else ""
    asked = re.findall(r"^\.B (\S+)$", written.partition(".SH DESCRIPTION")[2].split(".SH SERVE")[0], re.M)
    tap.ok(made.returncode == 0 and asked == re.findall(r"^  (\w+)  ", sluice("--help").out.decode(), re.M), "sluice(1) has every command", (made.stderr, asked))
    for name in asked:
        first = sluice(name, "--help").out.decode().split("\n")[0].removeprefix("usage: ")
        tap.ok(name == "serve" or f".SH {name.upper()}\n.nf\n{first.strip()}\n.fi\n" in written, f"sluice(1) has the usage of {name}", first)
    macros = set(re.findall(r"^[.'](\S*)", written, re.M))
    tap.ok(macros <= {"TH", "SH", "TP", "B", "BR", "I", "PP", "nf", "fi"} and "\\-" not in written.replace("\\e", ""),
           "sluice(1): nothing of a help text is a request", macros)
    r = sluice("serve", "--media", work, "--scheme", "cbcs")
    tap.ok(r.code == 2 and "did you mean --schemes?" in r.err, "a flag that is almost one: the likely one is offered", r)
    for argv, want in ((["index", "--threds", "2"], "threads"), (["inspect", "--jsom"], "json"), (["encrypt", "--key_file", "x"], "key-file"), (["decrypt", "--kee=x"], "key"),
                       (["rotate", "--grase", "1h"], "grace"), (["keys", "export", "--state_dir=x"], "state-dir"), (["load", "--treads"], "threads"), (["serve", "--chek"], "check"),
                       (["serve", "--conifg", "x"], "config"), (["serve", "--cache_sise", "x"], "cache-size"), (["load", "--request-logs=x"], "request-log")):
        r = sluice(*argv)
        tap.ok(r.code == 2 and one_line(r) and f"unknown option '{argv[-1 if '=' in argv[-1] or len(argv) < 3 else 1].partition('=')[0]}' (did you mean --{want}?)" in r.err, f"{argv[0]}: --{want} is offered", r)
    for argv in (["version", "--frobnicate"], ["inspect", "--x"], ["index", "-threads"], ["keys", "--frobnicate"]):
        r = sluice(*argv)
        tap.ok(r.code == 2 and "did you mean" not in r.err, f"{argv}: nothing is like it", r)
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
        "the scheme clear": ["encrypt", clear, out, "--scheme", "clear", "--kid", KID, "--key", KEY],
        **{f"--segment {s}": ["encrypt", clear, out, *ENCRYPT, f"--segment={s}"] for s in ("nan", "-1", "3601", "2x", "", "inf")},
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
        "encrypt, short options behind a key": ["encrypt", *ENCRYPT, "-xy", clear, out],
        "decrypt, the same": ["decrypt", "--key", f"{KID}:{KEY}", "-xy", clear, out],
        "encrypt, an option that is almost one, with a key": ["encrypt", clear, out, *ENCRYPT[:-2], f"--keys={KEY}"],
        "decrypt, an option that is almost one, with a key": ["decrypt", clear, out, f"--keys={KID}:{KEY}"],
        "rotate with --revoke and a grace": ["rotate", "a", "--revoke", "--grace", "1h"],
        "inspect without a file": ["inspect"], "index without a path": ["index"], "inspect --json with a value": ["inspect", clear, "--json=1"],
        "rotate --grace without its value": ["rotate", "a", "--grace"], "keys export --out without its value": ["keys", "export", "a", "--out"],
        "keys export with --asset, which import takes": ["keys", "export", "a", "--out", out, "--asset", "b"],
        "keys import with -c": ["keys", "import", clear, "--keys", out, "-c", clear],
        "keys export --epoch 0": ["keys", "export", "a", "--out", out, "--epoch", "0"], "keys export --epoch 2^31": ["keys", "export", "a", "--out", out, "--epoch", 1 << 31],
        "keys rewrap with --plain and --new-kek": ["keys", "rewrap", out, "--plain", "--new-kek", clear], "keys rewrap with neither": ["keys", "rewrap", out],
        "keys rewrap with --epoch": ["keys", "rewrap", out, "--plain", "--epoch", "2"],
        "serve, a value behind --": ["serve", "--check", "--media", work, "--", "--keys"], "serve --check with a value": ["serve", "--media", work, "--check=1"],
        "serve, a name": ["serve", "--check", "--media", work, "x"], "serve, an option that is almost one, with a key": ["serve", "--media", work, f"--kys={KEY}"],
        "version, a value behind --": ["version", "--", "-h"], "version, an unknown option": ["version", f"--key={KEY}"],
        "rotate, another option": ["rotate", "a", "-x"], "rotate of a name and --all": ["rotate", "a", "--all"], "rotate of an empty name": ["rotate", ""], "index --threads=0": ["index", clear, "--threads=0"],
        "index --threads=257": ["index", clear, "--threads=257"], "inspect, two files": ["inspect", clear, clear],
    }
    before = files(work)
    for name, argv in wrong.items():
        r = sluice(*argv)
        tap.ok(r.code == 2 and r.err.startswith(("sluice", "usage")) and not r.out, f"wrong usage: {name}: status 2", r)
        tap.ok(KEY not in r.err, f"wrong usage: {name}: no key in the message", r.err)
    for argv, want in ((["encrypt", "-name.mp4", out, *ENCRYPT], "encrypt: unknown option '-name.mp4'"), (["encrypt", clear, out, "--kid"], "--kid needs a value"),
                       (["keys", "export", "a", "--out", out, "--epoch", 1 << 31], "--epoch needs a number from 1 to 2147483647"),
                       (["decrypt", clear, out, f"--keys={KEY}"], "decrypt: unknown option '--keys'"), (["decrypt", clear, "-o.mp4"], "unknown option '-o.mp4'"),
                       (["encrypt", clear, out, *ENCRYPT, "--drm", "widewine"], "'widewine' is not all, none or a list of widevine,playready,fairplay,clearkey,common")):
        r = sluice(*argv)
        tap.ok(r.code == 2 and want in r.err, f"wrong usage: {argv[0]} names what is wrong: {want}", r)
    tap.equal(sorted(files(work)), sorted(before), "wrong usage writes nothing")
    # What is said of an empty name, of a folder in a file's place, and of an empty file.
    (work / "nothing").write_bytes(b"")
    decrypt = ["decrypt", clear, out]
    for argv, want in ((["inspect", ""], "'' (an empty name): No such file"), (["encrypt", clear, "", *ENCRYPT], "'' (an empty name): cannot create the file"),
                       (["serve", "--check", "-c", ""], "'' (an empty name): No such file"), ([*decrypt, "--key-file", ""], "'' (an empty name): cannot read the key: No such"),
                       ([*decrypt, "--key-file", work], "cannot read the key: Is a directory"), ([*decrypt, "--key-file", clear], "too long for a key, a key file holds one line"),
                       (["keys", "rewrap", "/dev/null", "--plain"], "/dev/null: cannot read the secret: neither a regular file nor a pipe"),
                       (["rotate", "a", "--token-file", work / "nothing"], "nothing: there is no token in the file"),
                       (["keys", "import", work / "nothing", "--keys", out, "--asset", "a/"], "a/: give one asset's name"),
                       (["keys", "rewrap", work / "nothing", "--plain"], "nothing: the master secret has 0 bytes: it must have 16 to 1024")):
        r = sluice(*argv)
        tap.ok(r.code == 1 and one_line(r) and want in r.err, f"{argv[0]}: {want}", r)
    r = sluice("serve", "--check", "-c", "/dev/stdin", stdin=b"")
    tap.ok(r.code == 1 and one_line(r) and "/dev/stdin: the pipe has nothing, or nothing any more" in r.err, "serve: a configuration from a pipe that is empty", r)
    r = sluice("rotate", "a", "--admin", "")
    tap.ok(r.code == 2 and one_line(r) and "--admin ADDR:PORT names one" in r.err, "rotate: no admin listener", r)


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
                 ["inspect", "--", "-t.mp4"], ["encrypt", *ENCRYPT, "--", "-t.mp4", "-o"], ["serve", "--check", f"-c{config}"], ["version", "--"],
                 ["serve", f"-c{config}", "--media=/nowhere", "--check", "--media", work / "media", "--"]):
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


def advice(tap, sluice, work):
    """What a refusal says to type makes a file that is taken: of FLAC, which ffmpeg calls experimental, and beside chapters, which it writes as a track."""
    if not FFMPEG:
        tap.skip("what a refusal says to type", "ffmpeg is not here")
        return
    (work / "chapters").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=a\n")
    for codec in ("aac", "flac"):
        old, new = work / f"{codec}.mp4", work / f"new-{codec}.mp4"
        r = run(FFMPEG, "-v", "error", "-nostdin", "-f", "lavfi", "-i", "sine=d=1", "-f", "ffmetadata", "-i", work / "chapters",
                "-map", "0", "-map_metadata", "1", "-c:a", codec, "-strict", "-2", old)
        tap.equal((r.code, len(boxes.find(old.read_bytes(), b"moov/trak"))), (0, 2), f"{codec}: a progressive file with a track of chapters")
        r = sluice("encrypt", old, work / "o.mp4", *ENCRYPT)
        found = re.search(r"ffmpeg's (-map .*) takes the first alone", r.err)
        tap.ok(r.code == 1 and one_line(r) and found, f"{codec}: two tracks are refused, and what takes one", r)
        if not found:
            continue
        one = work / f"one-{codec}.mp4"
        r = run(FFMPEG, "-v", "error", "-nostdin", "-i", old, *found[1].split(), "-c", "copy", "-strict", "-2", one)
        r = sluice("encrypt", one, work / "o.mp4", *ENCRYPT)
        found = re.search(r"; (ffmpeg .*) fragments it", r.err)
        tap.ok(r.code == 1 and one_line(r) and found, f"{codec}: the one is not fragmented, and what makes it so", r)
        if not found:
            continue
        r = run(FFMPEG, "-v", "error", "-nostdin", *({"IN.mp4": old, "OUT.mp4": new}.get(a, a) for a in found[1].split()[1:]))
        r = sluice("encrypt", new, work / "o.mp4", *ENCRYPT)
        tap.ok(r.code == 0 and boxes.audio((work / "o.mp4").read_bytes()).scheme == b"cenc", f"{codec}: what that makes is taken", r)


def failures(tap, sluice, work):
    clear = work / "clear.mp4"
    clear.write_bytes(synth.plain()[0])
    (work / "folder").mkdir()
    kept = work / "kept.mp4"
    kept.write_bytes(b"something of value")
    (work / "text.mp4").write_text("not media at all, but long enough to hold a box header")
    (work / "zeros.mp4").write_bytes(bytes(5000))
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
        for what in ("text", "zeros"):
            command[1] = work / f"{what}.mp4"
            r = sluice(*command)
            tap.ok(r.code == 1 and "this is not an MP4 file" in r.err, f"{name}: something else is called that: {what}", r)
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
    for what in ("text", "zeros"):
        r = sluice("inspect", work / f"{what}.mp4")
        tap.ok(r.code == 1 and "this is not an MP4 file" in r.err, f"inspect: something else is called that: {what}", r)
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
    r = sluice(*export, "--keys", work / "nokeys.yaml")
    tap.equal((r.code, r.err), (1, f"sluice: {work}/nokeys.yaml: No such file or directory\n"), "keys export with a keys file that is not there: one line that begins with it")
    # What keys come from is not overwritten with what comes of them.
    secret, conf, kek = work / "nostate" / "derive.secret", work / "nostate" / "c.yaml", work / "nostate" / "kek"
    keys, doc = work / "nostate" / "keys.yaml", work / "nostate" / "keys.cpix"
    sluice("keys", "export", "b", "--out", doc, "--state-dir", work / "nostate")
    keys.write_text("derive: {}\nproviders: [ { type: cpix, file: keys.cpix } ]\n")
    conf.write_text(f"media: {work}\nkeys: {keys}\nstate_dir: {work}/nostate\n")
    kek.symlink_to("derive.secret")
    before = files(work / "nostate")
    for out in (secret, conf, keys, doc, kek):
        r = sluice("keys", "export", "a", "-c", conf, "--out", out)
        tap.equal((r.code, r.err.count("\n"), files(work / "nostate")), (1, 1, before), f"keys export onto {out.name}, where keys come from: refused")
    keys.write_text("keys:\n  - { asset: a, scheme: cbcs, epoch: 1, kid: " + "1" * 32 + ", key: " + "2" * 32 + ", iv: " + "3" * 32 + " }\n")
    tap.equal(sluice("keys", "export", "a", "-c", conf, "--out", "/dev/null").code, 0, "keys export of a record alone")
    (work / "nostate" / "rotations.journal").write_text("")
    before = files(work / "nostate")
    for out in (secret, work / "nostate" / "rotations.journal"):
        r = sluice("keys", "export", "a", "-c", conf, "--out", out)
        tap.ok(r.code == 1 and f"{out}: keys come from this file" in r.err and files(work / "nostate") == before, f"keys export onto {out.name} of a state folder that no key comes from: refused", r)
    for new in (secret, kek):
        r = sluice("keys", "rewrap", secret, "--new-kek", new)
        tap.ok(r.code == 1 and one_line(r) and f"{new}: the secret cannot be wrapped with its own file" in r.err and files(work / "nostate") == before,
               f"keys rewrap of a secret with its own file, by the name {new.name}: refused, for nothing could open it", r)
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
        for scheme, epoch in (("cbcs", 1), ("cenc", 1), ("cbcs", 2), ("cenc", 2)):
            if epoch == 2 and scheme == "cbcs":
                sluice("rotate", "album/song", "--admin", f"127.0.0.1:{server.admin_port}")
            want = server.get(f"/album/song/{scheme}/{epoch}/aac.mp4").body
            (work / "whole.mp4").unlink(missing_ok=True)
            text = script.replace("SCHEME", scheme).replace("MEDIA/ASSET/TRACK", "MEDIA/album/song/aac").replace("ASSET", "album/song").replace("EPOCH", str(epoch))
            r = run("bash", "-ec", f"PATH=$PWD:$PATH STATE={server.state}\n" + text.replace("--state-dir STATE", '--state-dir "$STATE"'), cwd=work)
            tap.ok(r.code == 0 and (work / "whole.mp4").read_bytes() == want, f"docs/keys.md: offline as served, {scheme}, epoch {epoch}", r)
        want = server.get("/album/song/cbcs/1/aac.mp4").body
        sluice("keys", "export", "album/song", "--scheme", "cbcs", "--state-dir", server.state, "--out", work / "k.xml")
        text = (work / "k.xml").read_text()
        found = [text.split(mark)[1].split(end)[0] for mark, end in (('ContentKey kid="', '"'), ("PlainValue>", "<"), ('explicitIV="', '"'))]
        values = [found[0].replace("-", "")] + [base64.b64decode(v).hex() for v in found[1:]]
        argv = [values.pop(0) if a == "HEX" else a for a in line.split()[1:]]
        r = sluice(*argv[:1], song / "aac.mp4", work / "r.mp4", *argv[3:])
        tap.ok(not values and r.code == 0 and (work / "r.mp4").read_bytes() == want, "README's encrypt gives what is served", f"{argv} {r}")


def peak_of(*argv):
    """Exit status and bytes of memory, from a small process: the kernel counts the memory of the one that forked."""
    r = run(sys.executable, "-c", "import os, subprocess, sys; print(*os.wait4(subprocess.Popen(sys.argv[1:]).pid, 0)[1:])", *argv, env=environment())
    return int(r.out.split()[0]), int(re.search(rb"ru_maxrss=(\d+)", r.out).group(1)) * 1024


def memory(tap, sluice, work):
    """decrypt holds a fragment at a time, and all of the file once where samples lie before their moof; inspect no list of boxes."""
    part = [bytes([n]) * 65536 for n in range(64)]
    with open(work / "c.mp4", "wb") as f:
        f.write(synth.FTYP + synth.moov())
        for n in range(30):
            f.write(synth.plain_fragment(n + 1, part, n * 64 * synth.FRAME))
    sluice.encrypt(work / "c.mp4", work / "e.mp4", "cenc", KID, KEY)
    data = (work / "e.mp4").read_bytes()
    # The last mdat before its moof.
    moof = data.rfind(b"moof") - 4
    mdat = moof + int.from_bytes(data[moof : moof + 4], "big")
    trun = data.rfind(b"trun")
    offset = int.from_bytes(data[trun + 12 : trun + 16], "big", signed=True) - (len(data) - moof)
    (work / "back.mp4").write_bytes(data[:moof] + data[mdat:] + data[moof : trun + 12] + offset.to_bytes(4, "big", signed=True) + data[trun + 16 : mdat])
    size = len(data)
    for name, low, high in (("e", 0, 0.5), ("back", 1, 1.5)):
        status, peak = peak_of(sluice.path, "decrypt", work / f"{name}.mp4", work / "d.mp4", "--key", f"{KID}:{KEY}")
        tap.ok(status == 0 and low * size < peak < high * size, f"decrypt of {name}.mp4: how much of a large file is in memory",
               f"status {status}, {size} bytes, peak {peak}")
        tap.equal((work / "d.mp4").read_bytes().count(b"".join(part)), 30, f"decrypt of {name}.mp4: every fragment is there")


    number = 1 << 18
    (work / "empty.mp4").write_bytes(synth.FTYP + struct.pack(">I4s", 8, b"free") * number)
    status, peak = peak_of("/bin/sh", "-c", 'exec "$0" inspect "$1" --json > "$2"', sluice.path, work / "empty.mp4", work / "empty.json")
    tree = json.loads((work / "empty.json").read_bytes())
    tap.ok(status == 0 and peak < 128 << 20 and len(tree["boxes"]) == number + 1 and tree["boxes"][-1]["offset"] == len(synth.FTYP) + 8 * (number - 1),
           f"inspect --json of {number} empty boxes: all are there, and not in memory", f"status {status}, peak {peak}, {len(tree['boxes'])} boxes")


def languages(tap, sluice, work):
    """elng goes into manifests: a language tag (RFC 5646, as xs:language) or nothing of it."""
    track = work / "spoken.mp4"
    for tag, want in ((b"de", "de"), (b"zh-Hant-TW", "zh-Hant-TW"), (b"es-419", "es-419"), (b"i-klingon", "i-klingon"), (b"12", "und"), (b"-de", "und"),
                      (b"de-", "und"), (b"de--AT", "und"), (b"abcdefghi", "und"), (b"de_AT", "und"), (b'"><x', "und"), (b"", "und")):
        track.write_bytes(synth.FTYP + synth.moov(elng=tag) + synth.plain_fragment(1, [b"abc"], 0))
        r = sluice("inspect", track, "--json")
        tap.equal(json.loads(r.out)["track"].get("language"), want, f"the language of elng {tag}")


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
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(work / "s.mp4"))
    for name, argv in {"encrypt": [work / "s.mp4", work / "o", *ENCRYPT], "decrypt": [work / "s.mp4", work / "o", *key], "inspect": [work / "s.mp4"]}.items():
        r = sluice(name, *argv)
        tap.equal((r.code, r.err), (1, f"sluice: {work}/s.mp4: neither a regular file nor a folder\n"), f"{name} of a socket: what it is not")
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
    (work / "few.yaml").write_text(f"keys: [{{ asset: a, scheme: cenc, kid: {KID}, key: {KEY} }}]\n")
    with Server(sluice.path, work / "media", "--keys", work / "few.yaml") as server:
        r = sluice("rotate", "a", "--admin", f"127.0.0.1:{server.admin_port}")
    tap.ok(r.code == 1 and one_line(r) and "no key of the next epoch" in r.err and "{" not in r.err, "rotate: the server's sentence, not its JSON", r)


def ipv6(tap, sluice, work):
    """Addresses of version 6 stand in brackets in the URLs of the log."""
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
    except OSError as e:
        tap.skip("listening on ::1", f"no IPv6 here: {e}")
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


def main():
    tap = Tap()
    sluice = Sluice(sys.argv[1])
    for part in (usage, forms, advice, failures, streams, offline, there_and_back, memory, closed_descriptors, outputs, half_written, changed, arguments, names_for_addresses, control_characters, interrupted, orders, trees, languages, folder_faults, one_fails, sidecars, cached, messages,
                 inspect, shown, bad_files, ipv6, modes):
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
