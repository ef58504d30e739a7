"""Starts that are refused, what is warned of, privileges: parts of life.py."""
import errno
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import threading
import time

from integration.life_parts import ASSET, listing, media_with
from integration.truth import keys_file, record, url
from judge import boxes, shim
from judge.programs import run
from judge.server import Server, environment, free_port


def bad_starts(tap, sluice, work):
    media = media_with(work)
    good = keys_file([ASSET])
    kid, key, _ = record(ASSET, "cbcs")
    two = (f"keys:\n  - {{ asset: {ASSET}, epoch: 1, scheme: cbcs, kid: '{kid}', key: '{key}', iv: '{key}' }}\n"
           f"  - {{ asset: {ASSET}, epoch: 1, scheme: cenc, kid: '{key}', key: '{key}' }}\n")
    busy = socket.socket()
    busy.bind(("127.0.0.1", 0))
    busy.listen()
    log = socket.socket(socket.AF_UNIX)
    log.bind(str(work / "log.sock"))
    state = work / "state"
    state.mkdir(mode=0o700)
    journals = work / "journals"
    for name in ("altered", "folder", "pipe"):
        (journals / name).mkdir(0o700, parents=True)
    (journals / "altered" / "rotations.journal").write_text("sluice1 rotate 1 1795884313342 86400000 0 a 0000000000000000\n")
    (journals / "folder" / "rotations.journal").mkdir()
    os.mkfifo(journals / "pipe" / "rotations.journal")
    locked = work / "locked"
    locked.mkdir()
    os.chmod(locked, 0)
    cases = {  # name: (flags, keys file, environment, a word of the message)
        "a media folder that is not there": (["--media", work / "none"], good, {}, str(work / "none")),
        "a media folder that is a file": (["--media", media / ASSET / "a.mp4"], good, {}, "a.mp4"),
        "no media folder at all": ([], good, {}, "media"),
        "a keys file that is not there": (["--media", media, "--keys", work / "nokeys"], None, {}, "nokeys"),
        "a keys file that is not YAML": (["--media", media], "keys: [\n", {}, "keys"),
        "a keys file with bad hex": (["--media", media], good.replace(kid, "zz" + kid[2:]), {}, "keys"),
        "a key that is too short": (["--media", media], good.replace(key, key[:30]), {}, "keys"),
        "an unknown word in the keys file": (["--media", media], good.replace("scheme", "skeme"), {}, "keys"),
        "one key for both schemes": (["--media", media], two, {}, "scheme"),
        "an occupied port": (["--media", media, "--listen", f"127.0.0.1:{busy.getsockname()[1]}"], good, {}, "in use"),
        "an occupied admin port": (["--media", media, "--admin", f"127.0.0.1:{busy.getsockname()[1]}"], good, {}, "in use"),
        "an address of another machine": (["--media", media, "--listen", "192.0.2.1:8080"], good, {}, "192.0.2.1"),
        "a port that is no number": (["--media", media, "--listen", "127.0.0.1:http"], good, {}, "127.0.0.1:http"),
        "an unknown kernel": (["--media", media], good, {"SLUICE_KERNEL": "nonsense"}, "nonsense"),
        "an unknown flag": (["--media", media, "--nonsense"], good, {}, "nonsense"),
        "too many workers": (["--media", media, "--workers", "100000"], good, {}, "100000"),
        "an access log in a folder that is not there": (["--media", media, "--access-log", work / "nodir" / "x"], good, {}, "nodir/x"),
        "an access log that is a folder": (["--media", media, "--access-log", media], good, {}, "access_log"),
        "an access log that is a socket": (["--media", media, "--access-log", work / "log.sock"], good, {}, "log.sock: neither a file nor a pipe"),
        "a state folder without a name": (["--media", media, "--state-dir", ""], good, {}, "state_dir"),
        "a journal that was altered": (["--media", media, "--state-dir", journals / "altered"], good, {}, "altered/rotations.journal:1: the rotation journal is damaged"),
        "a journal that is a folder": (["--media", media, "--state-dir", journals / "folder"], good, {}, "folder/rotations.journal: Is a directory"),
        "a journal that is a pipe": (["--media", media, "--state-dir", journals / "pipe"], good, {}, "pipe/rotations.journal: not a rotation journal"),
        "a cache folder that is not there": (["--media", media, "--cache-dir", work / "nocache"], good, {}, "nocache"),
        "a state folder that is a file": (["--media", media, "--state-dir", media / ASSET / "a.mp4"], good, {}, "state_dir"),
        "a state folder in a folder that is not there": (["--media", media, "--state-dir", work / "no" / "state"], good, {}, "no/state"),
        "a certificate that is not there, without TLS": (["--media", media, "--tls-certificate", work / "nocert", "--tls-key", work / "nokey"], good, {}, "nocert"),
        "an authority of clients, without TLS": (["--media", media, "--tls-client-ca", work / "noca"], good, {}, "tls_client_ca"),
        "certificates that are not there, in a new state folder": (["--media", media, "--tls-listen", f"127.0.0.1:{free_port()}", "--tls-certificate", work / "nocert",
                                                                     "--tls-key", work / "nokey", "--state-dir", work / "fresh"], None, {}, "nocert"),
        "one address for two": (["--media", media, "--listen", "127.0.0.1:18081", "--admin", "127.0.0.1:18081"], good, {}, "twice"),
        "an address that is a name": (["--media", media, "--listen", "localhost:8080"], good, {}, "numeric"),
        "a congestion control that is not there": (["--media", media, "--congestion-control", "nonsense"], good, {}, "nonsense"),
        "a configuration that is not there": (["-c", work / "none.yaml"], good, {}, "none.yaml"),
    }
    if os.getuid():
        cases["a media folder that cannot be read"] = (["--media", locked], good, {}, "locked")
    else:
        tap.skip("bad start: a media folder that cannot be read", "root reads every folder")
    for name, (flags, keys, env, word) in cases.items():
        before = listing(work)
        flags = list(flags)
        if keys is not None:
            (work / "keys.yaml").write_text(keys)
            (work / "keys.yaml").chmod(0o600)  # or a warning is a line more
            flags += ["--keys", work / "keys.yaml"]
        if "--listen" not in flags:
            flags += ["--listen", f"127.0.0.1:{free_port()}"]
        if "--admin" not in flags:
            flags += ["--admin", f"127.0.0.1:{free_port()}"]
        before = listing(work)
        for more in ([], ["--check"]):
            if more and "port" in name and "number" not in name or more and name.startswith("an address of"):
                continue  # a check opens no socket
            r = run(sluice.path, "serve", "--state-dir", state, *flags, *more, timeout=20, env=environment(**env))
            lines = r.err.strip().splitlines()
            good_end = (r.code in (1, 2) and len(lines) == 1 and lines[0].startswith(("sluice: ", "sluice serve: ")) and word in lines[0]
                        and not r.out)
            tap.ok(good_end, f"bad start: {name}{' (--check)' if more else ''}: one line and status 1 or 2", f"{r}\nwanted: {word}")
            if key in r.err:
                tap.ok(False, f"bad start: {name}: a key is in the message", r)
        after = listing(work)
        tap.ok(after == before, f"bad start: {name}: nothing was written", sorted(set(after) ^ set(before)))
    os.chmod(locked, 0o700)
    busy.close()
    log.close()
    kept = work / "kept"
    kept.mkdir()
    os.chmod(kept, 0o555)
    os.chmod(work, 0o755)
    try:  # by somebody who may not write everywhere
        r = subprocess.run([sluice.path, "serve", "--check", "--media", kept, "--state-dir", kept], capture_output=True, text=True, timeout=20,
                           **({} if os.getuid() else {"user": 65534, "group": 65534, "extra_groups": []}))
        tap.ok(r.returncode == 1 and f"{kept}: cannot write into the state folder: Permission denied (state_dir" in r.stderr, "a state folder that cannot be written", r)
    except PermissionError as e:
        tap.skip("a state folder that cannot be written", e)
    r = run(sluice.path, "serve", "--check", "--media", media, "--keys", work / "keys.yaml", "--state-dir", state)
    (work / "keys.yaml").write_text(good)
    r = run(sluice.path, "serve", "--check", "--media", media, "--keys", work / "keys.yaml", "--state-dir", state)
    tap.ok(r.code == 0, "--check of a good configuration ends with status 0", r)
    torn = work / "torn" / "rotations.journal"
    torn.parent.mkdir()
    torn.write_text("sluice1 rotate 1 17958843133")
    r = run(sluice.path, "serve", "--check", "--media", media, "--keys", work / "keys.yaml", "--state-dir", torn.parent)
    tap.ok(r.code == 0 and torn.read_text() == "sluice1 rotate 1 17958843133", "so does that of a journal whose last line is being written, and leaves it as it is", r)
    for more in ("", "nonsense: 1\n"):  # as from `--keys <(sops -d keys.yaml)`
        text = good + "# one of many\n" * 3000 + more
        r = run(sluice.path, "serve", "--check", "--media", media, "--keys", "/dev/stdin", "--state-dir", state, stdin=text.encode())
        tap.ok((r.code != 0 and "nonsense" in r.err) if more else r.code == 0, f"a keys file of 45 KB from a pipe is read to its end{more and ', where it is wrong'}", r)
    r = run(sluice.path, "serve", "--check", "--media", media, "--keys", work / "keys.yaml", "--state-dir", f"{work / 'later'}/")
    tap.ok(r.code == 0 and not (work / "later").exists(), "--check with a state folder that a start would make, named with a slash", r)
    for flag in ("--keys", "-c"):
        r = run(sluice.path, "serve", "--check", "--media", media, flag, "/dev/stdin", "--state-dir", state, stdin=b"")
        tap.ok(r.code in (1, 2) and "good for the start" in r.err, f"{flag}: a pipe that was read before, as at a reload, is no empty file", r)
    flat = work / "flat"
    flat.mkdir()
    (flat / "lone.mp4").write_bytes((media / ASSET / "a.mp4").read_bytes())
    r = run(sluice.path, "serve", "--check", "--media", flat, "--state-dir", state)
    tap.ok(r.code == 0 and "flat/ALBUM/lone.mp4" in r.err and "is empty" not in r.err, "--check says it too", r)
    (work / "bare").mkdir()
    r = run(sluice.path, "serve", "--check", "--media", work / "bare", "--state-dir", state)
    tap.ok(r.code == 0 and f"{work / 'bare'} is empty: nothing is served" in r.err, "so it does of a media folder with nothing in it", r)
    for more, warns in ((["--cache-size", "15T"], True), (["--index-size", "15T"], True), (["--cache-size", "4M"], False)):
        r = run(sluice.path, "serve", "--check", "--media", media, "--state-dir", state, *more)
        tap.ok(r.code == 0 and ("and this machine has " in r.err) == warns, f"{' '.join(more)}: {'a' if warns else 'no'} warning of the memory that there is", r)
    with Server(sluice.path, flat) as server:
        told = [line for line in server.log() if "lone.mp4" in line and "warn" in line]
        tap.ok(len(told) == 1 and "flat/ALBUM/lone.mp4" in told[0], "a track in the media folder itself: the log says where it belongs", server.log())
    for limit, starts in (("-n 131", False), ("-n 132", True), ("-S -n 64", True)):  # 32, 3 for each worker and 2 for its clients; a soft limit is raised
        p = subprocess.Popen(["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", sluice.path, "serve", "--media", media, "--state-dir", work / "few", "--workers", "20", "--io", "epoll",
                              "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True)
        watch, said = threading.Timer(60, p.kill), []
        watch.start()
        for line in p.stderr:
            said.append(line)
            if "ready: " in line:
                break
        p.terminate()
        said += p.stderr.readlines()
        code = p.wait()
        watch.cancel()
        tap.ok(code == 0 if starts else code == 1 and "20 workers need 132 descriptors and this process may open 131 (ulimit -n): fewer workers, or a higher limit" in said[-1],
               f"ulimit {limit}, 20 workers: {'it starts' if starts else 'an error'}", said)
    (work / "bad.yaml").write_text(f"media: {media}\nworkers: 2\nnonsense: 3\n")
    r = run(sluice.path, "serve", "--check", "-c", work / "bad.yaml", "--state-dir", state)
    tap.ok(r.code in (1, 2) and "bad.yaml:3" in r.err and "nonsense" in r.err, "an error of the configuration has file and line", r)


def relative(tap, sluice, work):
    """Relative paths start at the working folder, those in the keys file at its folder; what is not there is named from the root."""
    here, conf = (work / "here").resolve(), (work / "conf").resolve()
    here.mkdir()
    conf.mkdir()
    media_with(here)
    keys = {"secret.yaml": "derive: { secret_file: s/secret }\n", "cpix.yaml": "providers:\n  - { type: cpix, file: doc.xml }\n",
            "bearer.yaml": "providers:\n  - { type: json, url: 'https://127.0.0.1:9/', bearer_file: bearer }\n"}
    for name, text in keys.items():
        (conf / name).write_text(text)
    (conf / "c.yaml").write_text("media: media\nstate_dir: state\nkeys: keys.yaml\n")
    base = ["--media", "media", "--state-dir", "state"]
    cases = {  # what is missing: (flags, its path)
        "media": (["--media", "none", "--state-dir", "state"], here / "none"),
        "keys": ([*base, "--keys", "k.yaml"], here / "k.yaml"),
        "the keys of a configuration elsewhere": (["-c", "../conf/c.yaml"], here / "keys.yaml"),
        "a configuration": (["-c", "c.yaml"], here / "c.yaml"),
        "secret_file": ([*base, "--keys", "../conf/secret.yaml"], here / "../conf/s/secret"),
        "a CPIX file": ([*base, "--keys", "../conf/cpix.yaml"], here / "../conf/doc.xml"),
        "bearer_file": ([*base, "--keys", "../conf/bearer.yaml"], here / "../conf/bearer"),
        "a token": ([*base, "--admin-token-file", "token"], here / "token"),
        "a certificate": ([*base, "--tls-certificate", "none.pem", "--tls-key", "key.pem"], here / "none.pem"),
        "an access log's folder": ([*base, "--access-log", "logs/a.log"], here / "logs/a.log"),
        "a cache folder": ([*base, "--cache-dir", "cache"], here / "cache"),
        "a state folder": (["--media", "media", "--state-dir", "no/state"], here / "no/state"),
    }
    for name, (flags, path) in cases.items():
        r = run(sluice.path, "serve", "--check", *flags, cwd=here, timeout=20)
        tap.ok(r.code == 1 and f"{path}: " in r.err and "No such file" in r.err and len(r.err.strip().splitlines()) == 1,
               f"a relative path that leads nowhere: {name}", r)


def warned(tap, sluice, work):
    """What an operator would not see until it is too late is said."""
    media = media_with(work)
    (media / ASSET / "a.m4a").write_bytes((media / ASSET / "a.mp4").read_bytes())
    (media / ASSET / "l.mp4").symlink_to("/etc/hostname")
    with Server(sluice.path, media, keys=keys_file([ASSET])) as server:
        tap.equal(server.get(url(ASSET, "cbcs", "master.m3u8")).body.count(b"#EXT-X-STREAM-INF"), 1, "one track in two files, and a link to elsewhere: one variant")
        server.wait_log("has the name of another track")  # the answer may come before its lines are read here
        server.wait_log("symbolic link")
        said = [l for l in server.log() if f"{ASSET}: 1 file or folder has the name of another track" in l]
        tap.equal(len(said), 1, "the log says that one file is left out")
        tap.ok(any("l.mp4: " in l and "symbolic link" in l for l in server.log()), "and that a link leads out of the media folder", server.log())
    state = work / "open"
    state.mkdir()
    check = ("serve", "--check", "--media", media, "--state-dir", state)
    for admin, far in (("127.0.0.1:0", False), ("[::1]:0", False), ("0.0.0.0:9090", True), ("[::]:9090", True)):
        r = sluice(*check, "--admin", admin)
        tap.equal((r.code, "may rotate and revoke keys" in r.err), (0, far), f"admin on {admin} without a token: {'a' if far else 'no'} warning")
    secret = state / "derive.secret"
    secret.write_text("0" * 64 + "\n")
    for mode, text in ((0o700, None), (0o1777, None), (0o777, "everybody on this machine can put files there")):
        state.chmod(mode)
        secret.chmod(0o600)
        r = sluice(*check)
        tap.ok(r.code == 0 and ("put files there" in r.err) == bool(text), f"the secret in a folder of mode {mode:o}: {'a' if text else 'no'} warning", r)
    if not os.getuid():
        state.chmod(0o700)
        os.chown(secret, 12345, -1)
        r = sluice(*check)
        tap.ok("it belongs to another user (12345)" in r.err, "another user's secret: a warning", r)


def tokens(tap, sluice, work):
    """Files with the admin listener's token: what is one, and what is not."""
    media, file, state = media_with(work), work / "token", work / "state"
    state.mkdir(mode=0o700)
    least, most = "!" * 15 + "~", "t" * 512
    cases = {"16 bytes": (least, True), "15 bytes": (least[1:], False), "512 bytes, with a line end": (most + "\r\n", True), "513 bytes": (most + "t", False),
             "a line end": (least + "\n", True), "two lines": (least + "\n" + least, False), "a blank within": (least + " x", False), "a byte that is no letter": (least + "\x7f", False),
             "one that is no ASCII": (least + "\u00e9", False), "only line ends": ("\n" * 20, False)}
    for name, (text, good) in cases.items():
        file.write_text(text, newline="")
        file.chmod(0o600)
        r = sluice("serve", "--check", "--media", media, "--state-dir", state, "--admin-token-file", file)
        tap.ok(r.code == 0 if good else r.code == 1 and f"admin_token_file: {file}: a token is 16 to 512 printable characters without blanks" in r.err,
               f"a token file: {name}: {'taken' if good else 'refused'}", r)


def capabilities(process):
    """{thread: (permitted, effective, inheritable, ambient)} of a running process."""
    out = {}
    for status in pathlib.Path(f"/proc/{process.pid}/task").glob("*/status"):
        sets = dict(re.findall(r"(Cap\w+):\t(\w+)", status.read_text()))
        out[int(status.parent.name)] = tuple(int(sets[k], 16) for k in ("CapPrm", "CapEff", "CapInh", "CapAmb"))
    return out


def low_port():
    for port in range(1023, 600, -1):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    return None


def privileges(tap, sluice, work):
    """As root: what was needed to start is given up by every thread; a reload and a rotation still have what they need."""
    ours = [s for s in capabilities(subprocess.Popen(["sleep", "1"])).values()]
    need = 1 << 1 | 1 << 2 | 1 << 14  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_IPC_LOCK
    port = low_port()
    if os.getuid() or not all(s[1] & (need | 1 << 10) == need | 1 << 10 for s in ours) or port is None:
        tap.skip("capabilities are given up", "not root, or root without them")
        return
    media = media_with(work)
    for other in (False, True):  # another user's files, which root may open by a capability alone
        state = work / f"state{other}"
        state.mkdir(mode=0o700)
        with Server(sluice.path, media, "--listen", f"127.0.0.1:{port}", "--workers", "2", keys=keys_file([ASSET], epochs=(1, 2)), state=state) as server:
            if not server.wait_log("files and system calls are confined", 1):
                tap.skip("capabilities are given up", "no sandbox here")
                return
            server.port = port
            sets = capabilities(server.process)
            left = need & ours[0][0]
            tap.ok(len(sets) >= 7 and all(s == (left, left, 0, 0) for s in sets.values()), f"port {port}, and {len(sets)} threads have what files and locked memory need", sets)
            whole = url(ASSET, "cbcs", 2, "a.mp4")
            tap.equal(server.get(whole).status, 404, "a port below 1024 answers")
            for path in (state, server.folder / "keys.yaml", *state.iterdir()) if other else ():
                os.chown(path, 12345, 12345)
                os.chmod(path, 0o700 if path.is_dir() else 0o600)
            server.signal(signal.SIGHUP)
            tap.ok(server.wait_log(r"info reloaded|reload refused").endswith("reloaded keys"), "a reload reads the keys", "\n".join(server.log()[-4:]))
            r = sluice("rotate", ASSET, "--admin", f"127.0.0.1:{server.admin_port}")
            tap.ok(r.code == 0 and server.get(whole).status == 200, "a rotation writes the journal", r)


def confinement(pid):
    """Of each thread: whether it can gain privileges, and how many filters of system calls it is behind."""
    texts = [t.read_text() for t in pathlib.Path(f"/proc/{pid}/task").glob("*/status")]
    return [tuple(int(re.search(rf"^{name}:\t(\d+)", t, re.M)[1]) for name in ("NoNewPrivs", "Seccomp_filters")) for t in texts]


def confined(tap, sluice, work):
    """Every thread is behind the filter of system calls and cannot gain privileges; none where the operator says so."""
    media = media_with(work)
    gains, filters = confinement(os.getpid())[0]
    for sandbox in (True, False):
        with Server(sluice.path, media, "--workers", "2", f"--sandbox={str(sandbox).lower()}", keys=keys_file([ASSET])) as server:
            if sandbox and not server.wait_log("files and system calls are confined", 1):
                tap.skip("system calls are confined", "no Landlock here, or a sanitizer")
                return
            tap.equal(server.get(url(ASSET, "cbcs", 1, "a.mp4")).status, 200, f"sandbox {sandbox}: the server answers")
            got = confinement(server.process.pid)
            tap.ok(len(got) >= 7 and set(got) == {(1, filters + 1) if sandbox else (gains, filters)}, f"sandbox {sandbox}: so is each of {len(got)} threads", got)


def refused_calls(tap, sluice, work):
    """The filter refuses what it is there for, in every form the kernel has of it, and nothing else; a log's folder is for new logs alone."""
    library = work / "refused_calls.so"
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("refused_calls.c"), library), "", "calls to be refused are built"):
        return
    media, logs = media_with(work), work / "logs"
    logs.mkdir()
    in_logs = {"listing logs", "removing another log", "making a folder"}
    bad = {"clone of namespaces", "clone of a network", "open_tree", "fsconfig", "mount_setattr", "pidfd_getfd", "execve"}
    denied = {}
    for sandbox in (True, False):
        (logs / "other.log").write_text("another's")
        with Server(sluice.path, media, f"--sandbox={str(sandbox).lower()}", "--access-log", str(logs / "ours.log"), keys=keys_file([ASSET]),
                    env=shim.preloaded(library, LOG_FOLDER=str(logs))) as server:
            if sandbox and "files and system calls are confined" not in (server.wait_log("sandbox: ") or ""):
                tap.skip("system calls are refused", "no Landlock here, or a sanitizer")
                return
            server.wait_log("tried making a folder")
            said = {name: int(why) for name, why in re.findall(r"^tried (.*): (\d+)$", "\n".join(server.log()), re.M)}
            denied[sandbox] = {name for name, why in said.items() if why == errno.EPERM}
            tap.equal(len(said), 14, f"sandbox {sandbox}: all calls were tried")
            tap.equal((said.get("a thread"), "getppid" in denied[sandbox]), (0, False), f"sandbox {sandbox}: what is needed goes")
            tap.equal({name for name in in_logs if said.get(name) == errno.EACCES}, in_logs if sandbox else set(), f"sandbox {sandbox}: other logs are out of reach")
            if sandbox:
                tap.equal(said.get("clone3"), errno.ENOSYS, "clone3 is as if it were not there")
            (logs / "ours.log").rename(logs / "ours.log.1")
            server.signal(signal.SIGUSR1)
            for _ in range(100):
                server.get(url(ASSET, "cbcs", 1, "a.mp4"))
                if (logs / "ours.log").exists():
                    break
                time.sleep(0.1)
            tap.ok((logs / "ours.log").exists(), f"sandbox {sandbox}: the log is opened anew")
    tap.equal(denied[True], bad | denied[False], "these calls are refused, beside what is refused here anyway")


def one_fails(tap, sluice, work):
    """The sandbox shuts out nothing that is needed, and a media folder that cannot be listed is not called empty."""
    library = work / "one_fails.so"
    if not tap.equal(shim.build(pathlib.Path(__file__).with_name("one_fails.c"), library), "", "a system where one call fails is built"):
        return
    media = media_with(work)
    for call, said in (("open", f"sandbox: {media}: Input/output error"), ("readdir", f"{media}: the media folder cannot be listed: Input/output error")):
        with Server(sluice.path, media, "--workers", "1", keys=keys_file([ASSET]), env=shim.preloaded(library, FAILS=call, FAILS_AT=str(media))) as server:
            if call == "open" and server.wait_log("sandbox: off|Landlock: (Function not implemented|Operation not supported)", 0.5):
                tap.skip("the media folder is out of no sandbox's reach", "no Landlock here, or a sanitizer")
                continue
            tap.ok(server.wait_log(re.escape(said)), f"{call} of the media folder fails: the log says so", server.log())
            tap.equal(server.get(url(ASSET, "cbcs", 1, "a.mp4")).status, 200, f"{call} of the media folder fails: the server answers")


def crashed(tap, sluice, work):
    """A crash says what and where, and is one: for who started the server as well."""
    media = media_with(work)
    for number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT):
        with Server(sluice.path, media, "--workers", "2", keys=keys_file([ASSET])) as server:
            if server.wait_log("sandbox: off, sanitizers", 0.5):
                tap.skip("what is said of a crash", "a sanitizer has its own handlers")
                return
            server.get(url(ASSET, "cbcs", 1, "a.mp4"))
            resource.prlimit(server.process.pid, resource.RLIMIT_CORE, (0, resource.prlimit(server.process.pid, resource.RLIMIT_CORE)[1]))
            server.signal(number)
            said = server.wait_log("fatal signal") or ""
            code = server.process.wait(10)
            tap.ok(f"fatal signal {int(number)} ({number.name[3:]})" in said and code == -number, f"{number.name}: said, and the end is by it", (said, code))
            server.reader.join(5)
            tap.ok(sum("+0x" in line for line in server.log()) >= 3, f"{number.name}: with where it was", server.log()[-5:])


def derived(tap, sluice, work):
    """Without a keys file a secret is made, mode 0600, said aloud, and kept."""
    media = media_with(work)
    with Server(sluice.path, media) as server:
        r = server.get(url(ASSET, "cenc", 1, "a.mp4"))
        tap.equal(r.status, 200, "no keys file: keys are derived")
        files = [p for p in server.state.iterdir() if p.is_file()]
        secrets = [p for p in files if "key" in p.name or "secret" in p.name]
        tap.ok(secrets and all(p.stat().st_mode & 0o777 == 0o600 for p in secrets), "the secret has mode 0600", files)
        tap.ok(server.wait_log(r"(?i)secret") is not None, "and the log says so", "\n".join(server.log()))
        a = boxes.audio(r.body)
        b = boxes.audio(server.get(url(ASSET, "cbcs", 1, "a.mp4")).body)
        tap.ok(a.tenc.kid != b.tenc.kid, "derived: each scheme has its own KID")
        r = server.get(url(ASSET, "cenc", 1, "a", "key"))
        tap.ok(r.status in (403, 404), "derived: keys are not handed out", r)


def open_secrets(tap, sluice, work):
    """Secrets that everybody may read are a warning, from --check, at start and on SIGHUP."""
    media = media_with(work)
    names = {"master.key": bytes(range(32)), "kek": b"k" * 32, "token": b"correct-horse-battery\n", "keys.yaml": keys_file([ASSET]).encode(),
             "derive.yaml": b"derive: { secret_file: master.key }\n", "wrapped.yaml": b"derive: { secret_file: wrapped.key, kek_file: kek }\n"}
    for name, data in names.items():
        (work / name).write_bytes(data)
        (work / name).chmod(0o644)
    sluice("keys", "rewrap", work / "master.key", "--new-kek", work / "kek")
    (work / "wrapped.key").write_bytes((work / "master.key").read_bytes())
    (work / "master.key").write_bytes(names["master.key"])
    for flags, secrets in ((["--keys", work / "keys.yaml"], ["keys.yaml"]), (["--keys", work / "derive.yaml"], ["master.key"]),
                           (["--keys", work / "wrapped.yaml"], ["kek"]), (["--admin-token-file", work / "token"], ["token"])):
        for mode, can in ((0o644, "read"), (0o602, "write"), (0o640, None), (0o600, None)):
            for name in secrets:
                (work / name).chmod(mode)
            r = sluice("serve", "--check", "--media", media, "--state-dir", work / "state", *flags)
            told = re.findall(rf"warn \S*/(\S+): everybody on this machine can {can} it \(mode {mode:04o}\): chmod 600", r.err)
            tap.ok(r.code == 0 and told == (secrets if can else []) and ("everybody" in r.err) == bool(can), f"--check: {secrets[0]} of mode {mode:o}: {'a' if can else 'no'} warning", r)
    with Server(sluice.path, media, "--keys", str(work / "derive.yaml")) as server:
        tap.ok(not any("everybody" in l for l in server.log()), "a start with a secret of mode 600: no warning", server.log())
        (work / "master.key").chmod(0o604)
        server.signal(signal.SIGHUP)
        tap.ok(server.wait_log("master.key: everybody on this machine can read it .mode 0604."), "SIGHUP when it has become open: a warning", server.log())
