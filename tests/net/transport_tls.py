"""TLS, sealed here or by the kernel: cases of transport.py."""
import array
import fcntl
import http.client
import os
import re
import select
import ssl
import subprocess
import termios
import time

from workers import CERTS, FIXTURE, PATIENCE_S, Reader, Server, ask, client_context, comes, expect, get_bytes, segment_path, words


def tls_versions_names_and_tickets():
    with Server() as srv:
        def connect(name="one.test", session=None, alpn=("http/1.1",), **settings):
            c = settings.pop("context", None) or client_context()
            for k, v in settings.items():
                setattr(c, k, v)
            c.set_alpn_protocols(list(alpn))
            s = c.wrap_socket(srv.dial(raw=True), server_hostname=name, session=session)
            s.sendall(get_bytes(segment_path("now", 50, 1)))
            expect(Reader(s).response()[2], words(0, 50))
            return s
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            s = connect(maximum_version=version, minimum_version=version)
            expect((s.version(), s.selected_alpn_protocol()), (version.name.replace("_", "."), "http/1.1"))
            expect("AES128-GCM" in s.cipher()[0] or "AES_128_GCM" in s.cipher()[0], True, s.cipher())
            resumed = 0
            for _ in range(8):  # whichever worker takes it
                c = client_context()
                c.maximum_version = c.minimum_version = version
                first = connect(context=c)
                resumed += connect(context=c, session=first.session).session_reused
            expect(resumed, 8, version)
        for name, serves in (("two.test", "two.test"), ("a.two.test", "two.test"), ("one.test", "one.test")):
            san = connect(name).getpeercert()["subjectAltName"]
            expect(san[0][1], serves)
        c = client_context()
        c.check_hostname = False
        expect(connect("other.test", context=c).getpeercert()["subjectAltName"][0][1], "one.test")
        expect(connect(alpn=("h2", "spdy/3", "http/1.1")).selected_alpn_protocol(), "http/1.1", "among others")
        expect(connect(alpn=()).selected_alpn_protocol(), None, "who names none is served")
        try:
            connect(alpn=("h2",))
            raise AssertionError("h2 was accepted")
        except (ssl.SSLError, ConnectionError):
            pass
        p = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{srv.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S)
        expect("alert protocol version" in p.stderr, True, p.stderr)
        s = srv.dial(raw=True)
        s.sendall(get_bytes("/"))
        try:
            while s.recv(1000):
                pass
        except ConnectionError:
            pass


def tls_ends_are_answered():
    """Who says that it sends no more gets what it asked for, and then the same said to it: else it cannot tell an end from a cut."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with Server() as srv:
            c = client_context()
            c.maximum_version = c.minimum_version = version
            for paths in ([], ["/now/cbcs/master.m3u8"], [segment_path("now", 500000, 2)], [segment_path("later", 50, 2)] * 3, ["/410/cbcs/1/t/1.m4s"]):
                for when in ("with the request", "behind the answer"):
                    what = f"{version.name} {paths} {when}"
                    sock, into, out = srv.dial(raw=True), ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = c.wrap_bio(into, out, server_hostname="one.test")

                    def flow(step, end):
                        """Repeats `step` over the socket until it is through; `end`: what stands for the end of the stream."""
                        while True:
                            try:
                                got = step()
                                sock.sendall(out.read())
                                return got
                            except ssl.SSLWantReadError:
                                sock.sendall(out.read())
                                data = sock.recv(1 << 20)
                                into.write(data) if data else end()

                    def cut():
                        raise AssertionError(f"{what}: the connection ends without a word of TLS")

                    def ask_for_all():
                        for path in paths:
                            tls.write(get_bytes(path))
                        if when == "with the request":
                            try:
                                tls.unwrap()
                            except ssl.SSLWantReadError:
                                pass

                    flow(tls.do_handshake, cut)
                    flow(ask_for_all, cut)
                    reader = Reader(type("", (), {"recv": lambda _, n: flow(lambda: tls.read(n), cut)})())
                    try:
                        expect([reader.response()[0] for _ in paths], [410 if "410" in p else 200 for p in paths], what)
                        if when == "behind the answer":
                            flow(tls.unwrap, cut)
                        else:
                            expect(flow(lambda: tls.read(1), cut), b"", what)
                    except ssl.SSLZeroReturnError:
                        pass
                    sock.close()


def tls_needs_client_certificates_where_told():
    with Server("--tls-client-ca", f"{CERTS.name}/two.test.pem") as srv:
        try:
            ask(srv.client(), segment_path("now", 5, 1))
            raise AssertionError("a client without a certificate was served")
        except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
            pass
        srv.context.load_cert_chain(f"{CERTS.name}/two.test.pem", f"{CERTS.name}/two.test.key")
        expect(ask(srv.client(), segment_path("now", 5, 1))[1], words(0, 5))
        for own, served in ((True, True), (False, False)):  # under the name of the second certificate
            c = srv.context if own else client_context()
            try:
                s = c.wrap_socket(srv.dial(raw=True), server_hostname="two.test")
                s.sendall(get_bytes(segment_path("now", 5, 1)))
                expect((Reader(s).response()[2], served), (words(0, 5), True))
            except (ssl.SSLError, ConnectionError, EOFError):
                expect(served, False, "two.test")


def unusable_certificates():
    for cert, key in (("one.test.pem", "two.test.key"), ("one.test.key", "one.test.key"), ("missing.pem", "one.test.key")):
        p = subprocess.run([FIXTURE, "--media", "/", "--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--tls-certificates",
                            f"{CERTS.name}/{cert}:{CERTS.name}/{key}"], capture_output=True, text=True, timeout=PATIENCE_S)
        expect((p.returncode, p.stderr.count("\n")), (1, 1), p.stderr)
        expect(CERTS.name in p.stderr, True, p.stderr)


def the_kernel_seals_from_the_second_response_on():
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        with Server() as srv:
            one, two, three = (get_bytes(segment_path("now", 50001, n), extra) for n, extra in ((1, ""), (2, ""), (3, "Connection: close\r\n")))
            p = subprocess.run(["openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{srv.port}", "-ciphersuites", suite, "-tls1_3"],
                               input=one + two + three, capture_output=True, timeout=PATIENCE_S)
            for n in range(3):
                expect(words(n * 50001, 50001) in p.stdout, True, f"{suite}: response {n + 1}")
        expect(srv.handed_over, 0 if "CHACHA" in suite else 1, suite)
    with Server() as srv:
        s = srv.dial(raw=True)
        s = srv.context.wrap_socket(s, server_hostname="one.test", suppress_ragged_eofs=False)
        reader = Reader(s)
        for n in (1, 2):
            s.sendall(get_bytes(segment_path("now", 3000, n), "Connection: close\r\n" if n == 2 else ""))
            expect(reader.response()[2], words((n - 1) * 3000, 3000))
        expect(s.recv(10), b"", "the end is announced")
    expect(srv.handed_over, 1)
    with Server("--ktls=false") as srv:
        expect([ask(c, segment_path("now", 300, 2))[1] for c in [srv.client()] * 2], [words(300, 300)] * 2)
    expect(srv.handed_over, 0)


def a_kernel_that_takes_no_keys_is_done_without():
    os.environ["KTLS_STUB_REFUSES"] = "1"
    try:
        with Server() as srv:
            c = srv.client()
            expect([ask(c, segment_path("now", 3000, n))[1] for n in (1, 2, 3)], [words(n * 3000, 3000) for n in range(3)])
    finally:
        del os.environ["KTLS_STUB_REFUSES"]
    expect(srv.handed_over, 0)


def keys_that_a_client_asks_for():
    """KeyUpdate: the kernel never gets the keys of before with the count of after, and is not left with old ones."""
    def read_until(out, text, seconds=PATIENCE_S):
        got, end = b"", time.monotonic() + seconds
        while text not in got and time.monotonic() < end:
            piece = os.read(out, 1 << 16) if select.select([out], [], [], 0.2)[0] else None
            if piece == b"":
                break
            got += piece or b""
        return text in got

    def unread(pipe):
        n = array.array("i", [0])
        fcntl.ioctl(pipe, termios.FIONREAD, n)
        return n[0]

    # what is typed and how often keys are asked for, when: whether all is answered, and whether the kernel sealed
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"):
        for keys, before, answered, handed_over in ((b"K\n", 1, True, 0), (b"k\n", 1, True, 1), (b"k\n", 3, True, 1), (b"K\n", 3, False, 1)):
            what = f"{suite}: {keys} before request {before}"
            with Server() as srv:
                p = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{srv.port}", "-ciphersuites", suite, "-tls1_3"],
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
                expect(read_until(p.stdout.fileno(), b"Verify return code"), True, f"{what}: handshake")
                for n in range(1, 5):
                    if n == before:
                        p.stdin.write(keys)
                        p.stdin.flush()
                        expect(comes(lambda: not unread(p.stdin)), True, f"{what}: typed")  # a line of its own for the client
                        time.sleep(0.3)  # and mostly for the server, before the next request
                    if n >= before and not answered:
                        expect(p.wait(PATIENCE_S) is not None, True, f"{what}: the connection ends")
                        break
                    p.stdin.write(get_bytes(segment_path("now", 5001, n)))
                    p.stdin.flush()
                    expect(read_until(p.stdout.fileno(), words((n - 1) * 5001, 5001)), True, f"{what}: response {n}")
                p.kill()
                p.communicate()
            expect(srv.handed_over, handed_over, what)


def tls_records_begin_small():
    class Records:
        """The records of a connection: plaintext bytes of each, checked against its length on the wire."""
        def __init__(self, srv, version):
            c = client_context()
            c.maximum_version = c.minimum_version = version
            self.overhead = 17 if version == ssl.TLSVersion.TLSv1_3 else 24  # type and tag; explicit nonce and tag
            self.sock, self.into, self.out = srv.dial(raw=True), ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = c.wrap_bio(self.into, self.out, server_hostname="one.test")
            while True:
                try:
                    self.tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self.flush()
                    self.record()
            self.flush()

        def flush(self):
            self.sock.sendall(self.out.read())

        def exactly(self, n):
            data = b""
            while len(data) < n:
                got = self.sock.recv(n - len(data))
                if not got:
                    raise EOFError
                data += got
            return data

        def record(self):
            head = self.exactly(5)
            self.into.write(head + self.exactly(int.from_bytes(head[3:], "big")))
            return int.from_bytes(head[3:], "big")

        def tickets(self):
            """Those of TLS 1.3 come without a request: a client that waits for an acknowledgement has it."""
            self.record()
            try:
                raise AssertionError(f"bytes before a request: {self.tls.read(1 << 15)}")
            except ssl.SSLWantReadError:
                pass

        def response(self, request):
            """(length of each record, the bytes)"""
            self.tls.write(request)
            self.flush()
            lengths, got = [], b""
            while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < int(re.search(rb"Content-Length: (\d+)", got)[1]):
                wire = self.record()
                try:
                    plain = self.tls.read(1 << 15)
                except ssl.SSLWantReadError:  # a ticket
                    expect(lengths, [])
                    continue
                expect(wire, len(plain) + self.overhead)
                lengths.append(len(plain))
                got += plain
            return lengths, got.partition(b"\r\n\r\n")[2]

    with Server("--ktls=false") as srv:  # a kernel that seals fills every record
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            r = Records(srv, version)
            if version == ssl.TLSVersion.TLSv1_3:
                r.tickets()
            for size in (100, 20000, 300000, 300000, 1 << 20, 100, 5000):  # one connection: each response begins anew
                lengths, body = r.response(get_bytes(segment_path("now", size, 2)))
                what = f"{version.name} {size}: {lengths}"
                expect(body, words(size, size), what)
                expect(lengths[0], 4096 if size > 4096 else sum(lengths), what)
                expect(max(lengths) <= 16384, True, what)
                # Full but for the last one of an output buffer.
                expect(sum(n < 16384 for n in lengths[1:]) <= -(-sum(lengths) // (252 << 10)), True, what)
