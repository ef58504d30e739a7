"""Files that a command reads and leaves behind: parts of command.py."""
import os
import pathlib
import platform
import resource
import shutil
import signal
import stat
import struct
import subprocess
import time

from integration.command_parts import CALLS, ENCRYPT, IV, KEY, KID, files, no_nameless_files, one_line
from judge import boxes, shim, synth
from judge.programs import run
from judge.server import Server, environment


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
    # What moov says of groups is read again for each fragment, though ftyp, in the same page, is done with by then.
    data, other = (work / "e.mp4").read_bytes(), "0f" * 16
    entry = b"\0\0\1\0" + bytes.fromhex(other) + b"\x10" + boxes.audio(data).tenc.constant_iv
    sgpd = synth.full(b"sgpd", 2, 0, b"seig", struct.pack(">3I", len(entry), 1, 1), entry)
    around = [boxes.one(data, path) for path in (b"moov", b"moov/trak", b"moov/trak/mdia", b"moov/trak/mdia/minf", b"moov/trak/mdia/minf/stbl")]
    data = bytearray(data)
    for b in around:
        data[b.start:b.start + 4] = (b.end - b.start + len(sgpd)).to_bytes(4, "big")
    data[around[-1].end:around[-1].end] = sgpd
    (work / "g.mp4").write_bytes(data)
    r = sluice("decrypt", work / "g.mp4", work / "d.mp4", "--key", f"{other}:{KEY}")
    back = boxes.audio((work / "d.mp4").read_bytes()).samples if r.code == 0 else []
    tap.ok([s.data for s in back] == samples, "a group of the track with a KID of its own, and back: the same samples", r)
    # Fragments longer than what is written, or encrypted, at once.
    parts = [synth.payloads([9000 + n] * 40, n) for n in range(4)]
    (work / "clear.mp4").write_bytes(synth.FTYP + synth.moov() + b"".join(synth.plain_fragment(n + 1, p, n * 40 * synth.FRAME) for n, p in enumerate(parts)))
    sluice.encrypt(work / "clear.mp4", work / "e.mp4", "cbcs", KID, KEY)
    r = sluice("decrypt", work / "e.mp4", work / "d.mp4", "--key", f"{KID}:{KEY}")
    tap.ok(r.code == 0 and [s.data for s in boxes.audio((work / "d.mp4").read_bytes()).samples] == sum(parts, []), "long fragments and back: the same samples", r)


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
    old = work / "old.mp4"
    old.write_bytes(b"old")
    r = run("bash", "-c", 'exec 3<"$1"; shift; "$@"', "bash", old, sluice.path, "encrypt", clear, old, *ENCRYPT)
    tap.ok(r.code == 0 and old.read_bytes() == want.read_bytes(), "an output that the shell has open for reading is replaced", r)
    tap.ok(not [p for p in files(work) if ".sluice-" in p], "no temporary file is left")


def interrupted(tap, sluice, work):
    """A signal ends it: nothing of what was being written stays, also where the file system has no nameless files (NFS, FUSE)."""
    def start(*argv, limit=None, nameless=True, ignored=()):
        def ready():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whatever the tests were started by: nohup ignores the last
                signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            if not nameless:
                no_nameless_files()
        return subprocess.Popen([sluice.path, *map(str, argv)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=ready)

    def seen(folder, what, process):
        while process.poll() is None:
            if any(what in name for name in os.listdir(folder)):
                return True
        return False

    out, clear, size = work / "out", work / "clear.mp4", 64 << 20
    out.mkdir()
    whole = synth.plain()[0]
    clear.write_bytes(whole + struct.pack(">I4s", size, b"free"))
    os.truncate(clear, len(whole) + size)
    encrypt = ["encrypt", clear, out / "o.mp4", *ENCRYPT, "--iv", IV]
    p = start(*encrypt)
    tap.ok(p.wait() == 0 and os.path.getsize(out / "o.mp4") > size and os.listdir(out) == ["o.mp4"], "a long output", os.listdir(out))
    (out / "o.mp4").unlink()
    for nameless in (True, False) if CALLS else (True,):
        p = start(*encrypt, limit=1 << 20, nameless=nameless)
        said = p.communicate()[1]
        tap.ok(p.returncode == -signal.SIGXFSZ and not os.listdir(out), f"a file that may not grow further (nameless files: {nameless}): nothing is left",
               (p.returncode, said, os.listdir(out)))

    def amid(number, ignored=()):
        for _ in range(20):  # unless it is done before it is looked at
            (out / "o.mp4").unlink(missing_ok=True)
            p = start(*encrypt, nameless=False, ignored=ignored)
            there = seen(out, ".sluice-", p)
            alive = p.poll() is None
            p.send_signal(number)
            said = p.communicate()[1]
            if there and (p.returncode or ignored and alive):
                break
        return there, p, said

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if not CALLS:
            tap.skip(f"{number.name} amid a named file", f"openat has no known number on {platform.machine()}")
            continue
        there, p, said = amid(number)
        tap.ok(there and p.returncode == -number and not os.listdir(out), f"{number.name} amid a named file: nothing is left, and it is what ended it",
               (there, p.returncode, said, os.listdir(out)))
    if CALLS:
        there, p, said = amid(signal.SIGHUP, ignored=(signal.SIGHUP,))
        tap.ok(there and p.returncode == 0 and os.listdir(out) == ["o.mp4"], "SIGHUP under nohup: the file is written to its end", (there, p.returncode, said, os.listdir(out)))
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
    (folder / "init.mp4").rename(work / "init.aside")
    r = sluice("index", work)
    tap.ok(r.code == 1 and r.err == f"sluice: {folder}: there are segments (*.m4s) in the folder, but no init.mp4\n",
           "index: segments without their init segment are no empty folder", r)
    (work / "init.aside").rename(folder / "init.mp4")
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
                      ("of a later version", good[:8] + b"\xff\0\0\0" + good[12:]), ("of the version before", good[:8] + bytes([good[8] - 1]) + good[9:]),
                      ("without the flag of its sidx", good[:12] + bytes([good[12] ^ 4]) + good[13:]), ("with one bit flipped", good[:-20] + bytes([good[-20] ^ 4]) + good[-19:])):
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


def modes(tap, sluice, work):
    """What is not a plain readable file."""
    fifo = work / "fifo"
    os.mkfifo(fifo)
    r = run("timeout", "-k", "1", "5", sluice.path, "inspect", fifo)
    tap.ok(r.code == 1 and one_line(r), "a FIFO as input is refused, not waited for", r)
    huge = work / "huge.mp4"
    clear = work / "clear.mp4"
    clear.write_bytes(synth.plain()[0])
    sluice.encrypt(clear, huge, "cenc", KID, KEY)
    with huge.open("ab") as f:
        f.write(struct.pack(">I4s", 0, b"free"))  # up to the end: it belongs to the last fragment
    os.truncate(huge, 1 << 43)  # in holes
    r = sluice("decrypt", huge, work / "o.mp4", "--key", f"{KID}:{KEY}", timeout=20)
    tap.ok(r.code == 1 and one_line(r) and "huge.mp4: 87960930" in r.err and "of its bytes belong together, which is more than this machine's memory" in r.err
           and not (work / "o.mp4").exists() and not list(work.glob(".sluice*")), "decrypt of a fragment that no memory holds: said before it is read", r)
    huge.unlink()
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


def endless(tap, sluice, work, library):
    """Standard input that never ends: what is no MP4 is refused at once, what is has half of the room there is, and nothing stays."""
    room = work / "room"
    room.mkdir()

    def fed(command, first, again=b"", env=None, number=None):
        """(status, what was said, bytes that could be written); `number`: a signal once 1 MiB is there."""
        p = subprocess.Popen([sluice.path, *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=False,
                             env=env or environment(TMPDIR=str(room)))
        sent, piece, end = 0, first, time.monotonic() + 60
        try:
            while piece and sent < 64 << 20 and time.monotonic() < end:
                sent += os.write(p.stdin.fileno(), piece)
                piece = again
                if number and sent > 1 << 20:
                    p.send_signal(number)
                    number, piece = None, b""
            if again and sent < 64 << 20:
                p.wait()
            p.stdin.close()
        except BrokenPipeError:
            pass
        said = p.stderr.read().decode()
        return p.wait(), said, sent

    small = shim.preloaded(library, FAILS="room", FAILS_AT="/", TMPDIR=str(room))
    good, free = synth.plain()[0], struct.pack(">I4s", 8, b"free") * 4096
    vast = good + struct.pack(">I4sQ", 1, b"mdat", 1 << 60)
    for command in (["inspect", "-"], ["encrypt", "-", work / "endless.mp4", *ENCRYPT], ["decrypt", "-", work / "endless.mp4", "--key", f"{KID}:{KEY}"]):
        for name, first, again, env, most, why in (
                ("zeros", bytes(65536), bytes(65536), None, 4 << 20, "this is not an MP4 file"), ("lines", b"y\n" * 32768, b"y\n" * 32768, None, 4 << 20, "this is not an MP4 file"),
                ("no box behind an MP4", good + b"\0\0\0\5free" + bytes(9999), bytes(65536), None, 4 << 20, ""),
                ("zeros behind an MP4", good + bytes(65536), bytes(65536), None, 18 << 20, f"a box of size 0, which is to the end, that is no mdat has more than 16 MiB: give it as a file (at byte {len(good)})"),
                ("media data to the end", good + b"\0\0\0\0mdat" + bytes(65536), bytes(65536), small, 6 << 20, "bytes or more: its copy in "),
                ("a box of 2^60 bytes", vast, bytes(65536), None, 4 << 20, "bytes or more: its copy in "),
                ("empty boxes", good + free, free, small, 6 << 20, "bytes or more: its copy in ")):
            status, said, sent = fed(command, first, again, env)
            tap.ok(status == 1 and said.startswith("sluice: standard input: ") and said.count("\n") == 1 and why in said and sent < most and not os.listdir(room) and not (work / "endless.mp4").exists(),
                   f"{command[0]} of {name} that never end: refused", (status, said, sent))
    for number in (signal.SIGTERM, signal.SIGKILL):
        status, said, sent = fed(["inspect", "-"], good + free, free, number=number)
        tap.ok(status == -number and sent < 4 << 20 and not os.listdir(room), f"inspect of standard input, ended by {number.name}: no copy stays", (status, said, os.listdir(room)))


def one_fails(tap, sluice, work):
    """One call fails, and the disk is well else: what has its place is whole, and an error says which of the two is there."""
    library = work / "one_fails.so"
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("one_fails.c"), library), "", "a system where one call fails is built"):
        return

    def failing(call, at, *argv):
        return sluice(*argv, cwd=folder, env=shim.preloaded(library, FAILS=call, FAILS_AT=at))
    folder = work / "folder"
    (folder / "media" / "a").mkdir(parents=True)
    clear = folder / "media" / "a" / "t.mp4"
    clear.write_bytes(synth.plain(1)[0])
    (folder / "old.mp4").write_bytes(b"old")
    before = files(folder)
    for out in ("new.mp4", "old.mp4"):  # over NFS it is close that tells of a full disk; the file has no name yet
        r = failing("close", "(deleted)", "encrypt", clear, out, *ENCRYPT)
        tap.ok(r.code == 1 and one_line(r) and f"{out}: cannot create the file: Input/output error" in r.err and files(folder) == before,
               f"encrypt to {out}, whose close fails: an error, and all is as it was", r)
    for where in ("media/a/t.mp4", "media/a"):
        r = failing("lstat", where, "index", "media")
        tap.ok(r.code == 1 and f"sluice: {where}: Input/output error" in r.err and files(folder) == before, f"index, where {where} cannot be looked at: an error that names it", r)
    (folder / "master").write_bytes(bytes(32))
    (folder / "kek").write_bytes(bytes(range(32)))
    r = failing("fsync", "/folder", "keys", "rewrap", "master", "--new-kek", "kek")
    tap.ok(r.code == 1 and one_line(r) and "master: it is written" in r.err and (folder / "master").read_bytes().startswith(b"sluice-wrapped-secret"),
           "keys rewrap, where the folder cannot be synced: which of the two is there is said", r)
    (folder / "old.yaml").write_text(f"keys: [{{ asset: a, scheme: cenc, kid: {KID}, key: {KEY} }}]\n")
    sluice("keys", "export", "a", "--keys", "old.yaml", "--out", "doc.xml", cwd=folder)
    r = failing("unlink", "new.yaml", "keys", "import", "doc.xml", "--keys", "new.yaml")
    left = [p for p in folder.iterdir() if p.name.startswith("new.yaml.")]
    tap.ok(r.code == 1 and one_line(r) and len(left) == 1 and f"sluice: {left[0].name}: what was asked for is done, but a copy of new.yaml" in r.err and KEY in left[0].read_text(),
           "keys import, whose passing file cannot be removed: it is named", (r, left))
    endless(tap, sluice, work, library)
