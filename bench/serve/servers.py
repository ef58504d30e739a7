"""Starts nginx and sluice on loopback, one worker on core 0 each, and reads what they cost. Everything that is started
here is ended here."""
import os, random, re, shutil, signal, socket, ssl, subprocess, time
from pathlib import Path

import client, media

def core_busy_s(core):
    for line in open("/proc/stat"):
        if line.startswith(f"cpu{core} "):
            v = [int(x) for x in line.split()[1:]]
            return (sum(v) - v[3] - v[4]) / os.sysconf("SC_CLK_TCK")
    raise SystemExit("bench serve: /proc/stat has no such core")


def cpu_model():
    return next((x.split(":")[1].strip() for x in open("/proc/cpuinfo") if x.startswith("model name")), "?")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def process_cpu_s(pid):
    """User and system seconds of a whole process, its kernel workers included, in nanosecond steps."""
    return time.clock_gettime((~pid << 3) | 2)


class Server:
    def __init__(self, proc, pid, address, stop):
        self.proc, self.pid, self.address, self._stop = proc, pid, address, stop

    def cpu_s(self):
        return process_cpu_s(self.pid)

    def rss(self):
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text()).group(1)) * 1024

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


def get(address, path, tls=False, headers=""):
    s = socket.create_connection(address, 10)
    if tls:
        ctx = ssl.create_default_context()
        ctx.check_hostname, ctx.verify_mode = False, ssl.CERT_NONE
        s = ctx.wrap_socket(s, server_hostname="localhost")
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n".encode())
    data = b""
    while chunk := s.recv(1 << 20):
        data += chunk
    s.close()
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    return status, head, body


NGINX = """
daemon off; master_process on; worker_processes 1; worker_cpu_affinity 01; worker_rlimit_nofile 20000;
user {user}; error_log {dir}/error.log; pid {dir}/nginx.pid;
events {{ worker_connections 15000; multi_accept on; use epoll; }}
http {{
  access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 1000000000; keepalive_timeout 600s;
  open_file_cache max=20000; open_file_cache_valid 3600s; default_type application/octet-stream;
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
        self._segment_paths = {}

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
            return [f"/{asset}/cbcs/1/a/init.mp4"]
        if row["server"] == "nginx":
            return [f"/{a}/{n}.m4s" for a, n in self.segments(row["size"])]
        if row["server"] == "nginx-vod":
            return self.vod.paths(row)
        return [f"/{a}/{row['scheme']}/1/a/{n}.m4s" for a, n in self.segments(row["size"])]

    def fill_static(self):
        """nginx's files: the responses of sluice, so that both send the same lengths."""
        if (self.root / ".done").exists():
            return
        srv = self.get(dict(server="sluice", scheme="cbcs", mode="fresh", cc="bbr", tls=False))
        for size in ("32K", "189K"):
            for a, n in self.segments(size):
                status, _, body = get(srv.address, f"/{a}/cbcs/1/a/{n}.m4s")
                if status != 200:
                    raise SystemExit(f"bench serve: sluice answers {status} for segment {n} of {a}")
                p = self.root / a / f"{n}.m4s"
                p.parent.mkdir(parents=True, exist_ok=True)
                p.write_bytes(body)
        asset = self.files["32K"][0]
        p = self.root / asset / "cbcs/1/a/init.mp4"
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(get(srv.address, f"/{asset}/cbcs/1/a/init.mp4")[2])
        (self.root / ".done").touch()

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
        conf = self.run / f"sluice-{port}.yaml"
        lines = [f"listen: 127.0.0.1:{port}", f"admin: 127.0.0.1:{admin}", f"media: {self.work / 'media'}", f"keys: {self.keys}",
                 "workers: 1", "cpu_affinity: [0]", f"congestion_control: {cc}", "clear: true", f"cache_encrypted: {'on' if hot else 'off'}",
                 f"state_dir: {self.run / f'state-{port}'}"]  # a server each
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
        return Server(p, p.pid, ("127.0.0.1", port), stop)

    # ---- correctness

    def check_correctness(self, todo):
        """Decrypts sampled responses with `sluice decrypt` and compares the sample bytes with the clear file's."""
        checked = 0
        for row in todo:
            if row["server"] == "nginx-vod":
                checked += self.vod.check(row)
            if row["server"] != "sluice" or row["scheme"] == "clear" or row["conns"] != 64 or row["size"] == "1K":
                continue
            srv = self.get(row)
            for asset, n in random.Random(row["name"]).sample(self.segments(row["size"]), 3):
                base = f"/{asset}/{row['scheme']}/1/a"
                init, seg = (get(srv.address, f"{base}/{x}", row["tls"]) for x in ("init.mp4", f"{n}.m4s"))
                if init[0] != 200 or seg[0] != 200:
                    raise SystemExit(f"bench serve: {row['name']}: status {init[0]}, {seg[0]} for {base}/{n}.m4s")
                enc, dec = self.run / "check.mp4", self.run / "check-clear.mp4"
                enc.write_bytes(init[2] + seg[2])
                kid = re.search(rb"tenc.{8}(.{16})", init[2], re.S).group(1).hex()
                subprocess.run([str(self.sluice), "decrypt", str(enc), str(dec), "--key", f"{kid}:{self.content_keys[kid]}"], check=True)
                moof, mlen, off, length = media.fragments(self.work / "media" / asset / "a.mp4")[n - 1]
                clear = (self.work / "media" / asset / "a.mp4").read_bytes()[off:off + length]
                _, _, doff, dlen = media.fragments(dec)[0]
                if dec.read_bytes()[doff:doff + dlen] != clear:
                    raise SystemExit(f"bench serve: {row['name']}: {base}/{n}.m4s does not decrypt to its source")
                if clear in seg[2]:
                    raise SystemExit(f"bench serve: {row['name']}: {base}/{n}.m4s is not encrypted")
                checked += 1
        return checked

    # ---- what is not a row: idle connections, slow readers

    def extras(self, seconds):
        text, claims = [], []
        for name, row in (("nginx", dict(server="nginx", scheme="clear", mode="sendfile", cc="bbr", tls=False, size="189K")),
                          ("sluice", dict(server="sluice", scheme="cbcs", mode="fresh", cc="bbr", tls=False, size="189K"))):
            srv, paths = self.get(row), self.paths(row)
            per = client.idle_memory(srv, 10000)
            text.append(f"{name}: {per:.0f} bytes of user memory per idle connection (10,000 keep-alive connections)")
            if name == "sluice":
                claims.append(dict(name="serve/idle connection, user bytes", value=per, bound=512, unit="bytes", holds=per <= 512, peer="nginx"))
            slow = client.slow_readers(srv, paths, 300, max(2.0, seconds))
            text.append(f"{name}: with 300 stalled readers the others get {100 * slow:.1f} % of the requests per second they got before")
            if name == "sluice":
                claims.append(dict(name="serve/300 stalled readers, loss to the others", value=1 - slow, bound=0.05, unit="ratio",
                                   holds=1 - slow <= 0.05, peer="nginx"))
        return dict(text="\n".join(text), claims=claims)

    def close(self):
        Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(self.cc_before)
        for s in self.up.values():
            try:
                s.stop()
            except Exception as e:  # noqa: BLE001 - every server must get its turn
                print(f"bench serve: {e}")
        shutil.rmtree(self.run, ignore_errors=True)
