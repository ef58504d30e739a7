"""Starts nginx and sluice on loopback, one worker on core 0 each, and reads what they cost. Everything that is started
here is ended here. nginx's settings are NGINX below."""
import hashlib, os, random, re, shutil, signal, socket, ssl, subprocess, sys, time
from pathlib import Path

import client, media

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from judge.ports import free_port  # noqa: E402

def core_busy_s(core):
    for line in open("/proc/stat"):
        if line.startswith(f"cpu{core} "):
            v = [int(x) for x in line.split()[1:]]
            return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")
    raise SystemExit("bench serve: /proc/stat has no such core")


def cpu_model():
    return next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "?")


def process_cpu_s(pid):
    """User and system seconds of a whole process, its kernel workers included, in nanosecond steps."""
    return time.clock_gettime((~pid << 3) | 2)


class Server:
    def __init__(self, proc, pid, address, stop, admin=None, access_log=None):
        self.proc, self.pid, self.address, self._stop, self.admin, self.access_log = proc, pid, address, stop, admin, access_log

    def cpu_s(self):
        return process_cpu_s(self.pid)

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text()).group(1)) * 1024

    def empty_log(self):
        if self.access_log:
            os.truncate(self.access_log, 0)

    def stop(self):
        self._stop()


def wait_port(port, proc, what):
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            if proc.poll() is not None:
                raise SystemExit(f"bench serve: {what} ended at start: {proc.stderr.read() if proc.stderr else ''}")
            time.sleep(0.05)
    raise SystemExit(f"bench serve: {what} does not listen")


def get(address, path, tls=False, headers="", method="GET"):
    s = socket.create_connection(address, 10)
    if tls:
        ctx = ssl.create_default_context()
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        s = ctx.wrap_socket(s, server_hostname="localhost")
    s.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n".encode())
    data = b""
    while chunk := s.recv(1 << 20):
        data += chunk
    s.close()
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    return status, head, body


def field(head, name):
    """Value of a header field of a response's head, or nothing."""
    found = re.search(rb"\r\n" + name.encode() + rb": *([^\r]*)", head, re.I)
    return found and found.group(1).decode()


def metrics(admin):
    """{name{labels without the worker}: value, over all workers} of a sluice."""
    out = {}
    for line in get(admin, "/metrics")[2].decode().splitlines():
        if found := re.match(r"(\w+)(?:\{(.*)\})? (\S+)$", line):
            labels = ",".join(x for x in (found.group(2) or "").split(",") if not x.startswith("worker="))
            name = found.group(1) + (f"{{{labels}}}" if labels else "")
            out[name] = out.get(name, 0) + float(found.group(3))
    return out


HOT = 'sluice_cache_lookups_total{cache="encrypted",result="%s"}'


def hot_lookups(admin):
    """(hits, misses) of the cache of encrypted segments."""
    m = metrics(admin)
    return m[HOT % "hit"], m[HOT % "miss"]


STATUS = "location = /status { stub_status; }"

# Requests that are no whole segments: mode of a row -> the status of their answers.
CORNERS = {"head": 200, "not-modified": 304, "range-4K": 206, "pipelined": 200, "hls": 200, "mpd": 200, "not-found": 404}
CORNER_PATHS = 64
RANGE = "bytes=1000-5095"
PIPELINED = 16

NGINX = """
daemon off; master_process on; worker_processes 1; worker_cpu_affinity 01; worker_rlimit_nofile 20000;
user {user}; error_log {dir}/error.log; pid {dir}/nginx.pid;
events {{ worker_connections 15000; multi_accept on; use epoll; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;
  open_file_cache max=20000; open_file_cache_valid 3600s; default_type application/octet-stream; log_not_found off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{
    listen 127.0.0.1:{port} reuseport backlog=4096{tls};
    {tls_conf}
    root {root};
    {extra}
  }}
}}
"""


class Farm:
    """The servers of one run, started when first needed and kept."""

    def __init__(self, sluice, work, files):
        self.sluice, self.work, self.files = sluice, work, files
        self.vod = None  # vod.Vod, where there is one
        self.static_is_right = False
        self.run = work / f"run-{os.getpid()}"
        self.run.mkdir(parents=True)
        self.up = {}
        self.root = work / "static"
        self.cc_before = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        self.cert, self.key = work / "cert.pem", work / "key.pem"
        if not self.cert.exists():
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
                            "-subj", "/CN=localhost", "-keyout", str(self.key), "-out", str(self.cert)], check=True, capture_output=True)
        self.keys = self.run / "keys.yaml"
        self.content_keys = {}  # kid -> key, hex
        rng, records = random.Random(7), []
        for assets in files.values():
            for asset in assets:
                for scheme in ("cenc", "cbcs"):
                    kid, key = rng.randbytes(16).hex(), rng.randbytes(16).hex()
                    self.content_keys[kid] = key
                    records.append(f"  - {{ asset: {asset}, epoch: 1, scheme: {scheme}, kid: {kid}, key: {key} }}")
        self.keys.write_text("keys:\n" + "\n".join(records) + "\n")
        self.keys.chmod(0o600)
        self._segment_paths, self._requests, self._warm = {}, {}, set()

    # ---- what is requested

    def segments(self, size):
        """[(asset, number)] in playing order, interleaved over the copies."""
        if size == "1K":
            return []
        if size not in self._segment_paths:
            count = len(media.fragments(self.work / "media" / self.files[size][0] / "a.mp4"))
            self._segment_paths[size] = [(a, n) for n in range(1, count) for a in self.files[size]]
        return self._segment_paths[size]

    def paths(self, row):
        if row["size"] == "1K":
            asset = self.files["32K"][0]
            return [f"/cbcs/{asset}/init.mp4" if row["server"] == "nginx" else f"/{asset}/cbcs/1/a/init.mp4"]
        if row["server"] == "nginx-vod":
            return self.vod.paths(row)
        return [self.path(row, a, f"{n}.m4s") for a, n in self.segments(row["size"])]

    def path(self, row, asset, leaf):
        """Of what belongs to a track: nginx has it in a folder for each scheme, "clear" being the bytes of cbcs."""
        if row["server"] == "nginx":
            return f"/{'cenc' if row['scheme'] == 'cenc-bytes' else 'cbcs'}/{asset}/{leaf}"
        return f"/{asset}/{row['scheme']}/" + (leaf if leaf.endswith(".mpd") else f"1/a/{leaf}")

    def corner_paths(self, row):
        mode, assets = row["mode"], self.files[row["size"]] if row["size"] in self.files else []
        if mode == "hls":
            return [self.path(row, a, "media.m3u8") for a in assets]
        if mode == "mpd":
            return [self.path(row, a, "manifest.mpd") for a in assets]
        if mode == "not-found":  # segments that a track does not have, and assets that are none, in turns
            return [self.path(row, assets[n % len(assets)] if n % 2 else f"no/such/asset{n}", f"{100000 + n}.m4s") for n in range(1000)]
        return self.paths(row)[:CORNER_PATHS]

    def requests(self, row):
        """What wrk asks for in a row."""
        if row["mode"] not in CORNERS:
            return self.paths(row)
        if row["name"] not in self._requests:
            paths, address = self.corner_paths(row), self.get(row).address
            if row["mode"] == "not-modified":
                paths = [client.asked(p, If_None_Match=field(get(address, p)[1], "ETag")) for p in paths]
            elif row["mode"] == "range-4K":
                paths = [client.asked(p, Range=RANGE) for p in paths]
            elif row["mode"] == "pipelined":
                paths = [client.asked(p, PIPELINED) for p in paths]
            self._requests[row["name"]] = paths
        return self._requests[row["name"]]

    def static(self):
        """(a static file, path of the response whose bytes it has, whether a change of sluice is noticed by it)."""
        for scheme in ("cbcs", "cenc"):
            for size, assets in self.files.items():
                for asset in assets:
                    base, to = f"/{asset}/{scheme}", self.root / scheme / asset
                    yield to / "init.mp4", f"{base}/1/a/init.mp4", True
                    yield to / "media.m3u8", f"{base}/1/a/media.m3u8", True
                    yield to / "manifest.mpd", f"{base}/manifest.mpd", True
                    if scheme == "cbcs":
                        yield to / "a.mp4", f"{base}/1/a.mp4", False
                for asset, n in self.segments(size):
                    yield self.root / scheme / asset / f"{n}.m4s", f"/{asset}/{scheme}/1/a/{n}.m4s", n == 1

    def fill_static(self):
        """nginx's files: the responses of sluice, so that both send the same bytes. Made anew when those change."""
        if self.static_is_right:
            return
        srv = self.get(dict(server="sluice", scheme="cbcs", mode="fresh", cc="bbr", tls=False))

        def body(path):
            status, _, data = get(srv.address, path)
            if status != 200:
                raise SystemExit(f"bench serve: sluice answers {status} for {path}")
            return data

        sums = hashlib.sha256(b"".join(hashlib.sha256(body(path)).digest() for _, path, telling in self.static() if telling)).hexdigest()
        mark = self.root / ".made"
        if not mark.exists() or mark.read_text() != sums:
            shutil.rmtree(self.root, ignore_errors=True)
            for file, path, _ in self.static():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(body(path))
            mark.write_text(sums)
        self.static_is_right = True

    # ---- servers

    def get(self, row):
        if row["server"] == "nginx":
            self.fill_static()
            key = ("nginx", row["cc"], row["tls"])
            make = lambda: self.start_nginx(row["cc"], row["tls"])
        elif row["server"] == "nginx-vod":
            key = ("nginx-vod", row["cc"])
            make = lambda: self.vod.start(row["cc"])
        else:
            key = ("sluice", row["cc"], row["tls"], row["mode"] == "hot", row.get("kernel"))
            make = lambda: self.start_sluice(row["cc"], row["tls"], row["mode"] == "hot", row.get("kernel"))
        if key not in self.up:
            self.up[key] = make()
        srv = self.up[key]
        self.set_cc(row["cc"])
        return srv

    def set_cc(self, cc):
        """nginx has no setting for it: the system default at the time of accept decides."""
        Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(cc)

    def start_nginx(self, cc, tls, program="nginx", extra=""):
        self.set_cc(cc)  # a listener takes the default at listen()
        port = free_port()
        d = self.run / f"nginx-{port}"
        d.mkdir()
        tls_conf = (f"ssl_certificate {self.cert}; ssl_certificate_key {self.key}; ssl_protocols TLSv1.3; "
                    "ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; ssl_buffer_size 16k;") if tls else ""
        conf = d / "nginx.conf"
        conf.write_text(NGINX.format(dir=d, port=port, root=self.root, tls=" ssl" if tls else "", tls_conf=tls_conf, extra=extra,
                                     user="root" if os.getuid() == 0 else os.environ.get("USER", "nobody")))
        p = subprocess.Popen([program, "-c", str(conf), "-p", str(d)], stderr=subprocess.PIPE, text=True)
        wait_port(port, p, program)
        kids = Path(f"/proc/{p.pid}/task/{p.pid}/children").read_text().split()

        def stop():
            p.send_signal(signal.SIGTERM)
            p.wait(10)
        return Server(p, int(kids[0]), ("127.0.0.1", port), stop)

    def start_sluice(self, cc, tls, hot, kernel):
        port, admin = free_port(), free_port()
        conf, access_log = self.run / f"sluice-{port}.yaml", self.run / f"sluice-{port}-access.log"
        lines = [f"listen: 127.0.0.1:{port}", f"admin: 127.0.0.1:{admin}", f"media: {self.work / 'media'}", f"keys: {self.keys}",
                 "workers: 1", "cpu_affinity: [0]", f"congestion_control: {cc}", "clear: true", f"cache_encrypted: {'on' if hot else 'off'}",
                 f"state_dir: {self.run / f'state-{port}'}",  # a server each
                 f"access_log: {access_log}"]
        if tls:
            lines = [x for x in lines if not x.startswith("listen")] + [f"tls_listen: 127.0.0.1:{port}", f"tls_certificate: {self.cert}", f"tls_key: {self.key}"]
        conf.write_text("\n".join(lines) + "\n")
        env = dict(os.environ, **({"SLUICE_KERNEL": kernel} if kernel else {}))
        log = open(self.run / f"sluice-{port}.log", "w")
        p = subprocess.Popen([str(self.sluice), "serve", "-c", str(conf)], stderr=log, stdout=log, env=env)
        wait_port(port, p, f"sluice (see {log.name})")

        def stop():
            p.send_signal(signal.SIGTERM)
            p.wait(15)
        return Server(p, p.pid, ("127.0.0.1", port), stop, ("127.0.0.1", admin), access_log)

    def log_lines(self):
        """(written, dropped) by the access logs of all sluices that are up."""
        all_of_them = [metrics(s.admin) for s in self.up.values() if s.access_log]
        return [int(sum(m[f'sluice_access_log_lines_total{{result="{what}"}}'] for m in all_of_them)) for what in ("written", "dropped")]

    def warm(self, row, srv):
        """Asks for a row's responses for a second, once, so that sources, files and indexes are in memory, and hot segments in the cache
        of encrypted ones, which takes some requests for each. A cold start is measured by itself (extras)."""
        if row["name"] not in self._warm:
            client.wrk(srv.address, self.requests(row), row["conns"], 1, row["tls"])
            self._warm.add(row["name"])

    # ---- correctness

    def check_correctness(self, todo):
        """Decrypts sampled responses with `sluice decrypt` and compares the sample bytes with the clear file's. Returns how many, and how
        many of them came from the cache of encrypted segments."""
        checked, hot = 0, 0
        for row in todo:
            if row["mode"] in CORNERS:
                self.check_corner(row)
                continue
            if row["server"] == "nginx-vod":
                checked += self.vod.check(row)
            if row["server"] != "sluice" or row["conns"] != 64 or row["size"] == "1K":
                continue
            srv = self.get(row)
            for asset, n in random.Random(row["name"]).sample(self.segments(row["size"]), 3):
                init, seg = self.path(row, asset, "init.mp4"), self.path(row, asset, f"{n}.m4s")
                status, _, head = get(srv.address, init, row["tls"])
                if status != 200:
                    raise SystemExit(f"bench serve: {row['name']}: status {status} for {init}")
                self.check_segment(row, asset, n, head, self.from_cache(srv, seg) if row["mode"] == "hot" else get(srv.address, seg, row["tls"]))
                checked += 1
                hot += row["mode"] == "hot"
        return checked, hot

    def from_cache(self, srv, path):
        """The answer that raised the hits of the cache of encrypted segments, with nobody else asking."""
        for _ in range(50):
            before = hot_lookups(srv.admin)
            answer = get(srv.address, path)
            hits, misses = (b - a for a, b in zip(before, hot_lookups(srv.admin)))
            if hits and not misses:
                return answer
        raise SystemExit(f"bench serve: {path} does not come from the cache of encrypted segments, however often it is asked for")

    def check_segment(self, row, asset, n, init, answer):
        what = f"bench serve: {row['name']}: {self.path(row, asset, f'{n}.m4s')}"
        status, _, seg = answer
        if status != 200:
            raise SystemExit(f"{what}: status {status}")
        source = self.work / "media" / asset / "a.mp4"
        _, _, off, length = media.fragments(source)[n - 1]
        clear = source.read_bytes()[off:off + length]
        if (clear in seg) != (row["scheme"] == "clear"):
            raise SystemExit(f"{what} is {'not encrypted' if clear in seg else 'not what its source has'}")
        if row["scheme"] == "clear":
            return
        enc, dec = self.run / "check.mp4", self.run / "check-clear.mp4"
        enc.write_bytes(init + seg)
        kid = re.search(rb"tenc.{8}(.{16})", init, re.S).group(1).hex()
        subprocess.run([str(self.sluice), "decrypt", str(enc), str(dec), "--key", f"{kid}:{self.content_keys[kid]}"], check=True)
        _, _, doff, dlen = media.fragments(dec)[0]
        if dec.read_bytes()[doff:doff + dlen] != clear:
            raise SystemExit(f"{what} does not decrypt to its source")

    def check_corner(self, row):
        """That the answers are what the row is called, at both servers."""
        self.fill_static()
        srv, mode = self.get(row), row["mode"]
        for request in self.requests(row)[:4]:
            request = request if isinstance(request, dict) else client.asked(request)
            headers = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in request["headers"].items())
            status, head, body = get(srv.address, request["path"], headers=headers, method="HEAD" if mode == "head" else "GET")
            size = {"head": 0, "not-modified": 0, "range-4K": 4096}.get(mode, len(body))
            if status != CORNERS[mode] or len(body) != size:
                raise SystemExit(f"bench serve: {row['name']}: status {status} with {len(body)} bytes for {request['path']}")
            if mode in ("hls", "mpd") and row["server"] == "sluice":
                asset = next(a for a in self.files[row["size"]] if f"/{a}/" in request["path"])
                same = self.path(dict(row, server="nginx"), asset, request["path"].rpartition("/")[2])
                if (self.root / same[1:]).read_bytes() != body:
                    raise SystemExit(f"bench serve: {row['name']}: {request['path']} has other bytes than nginx's file")

    def close(self):
        Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(self.cc_before)
        for s in self.up.values():
            try:
                s.stop()
            except Exception as e:  # noqa: BLE001 - every server must get its turn
                print(f"bench serve: {e}")
        shutil.rmtree(self.run, ignore_errors=True)
