"""Clients that are slow, leave or are too many, and how workers end: cases of transport.py."""
import http.client
import os
import random
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

from workers import BACKEND, FIXTURE, PATIENCE_S, TLS, Reader, Server, TwoWays, ask, comes, expect, get_bytes, segment_path, words


def connections(port, queue):
    """What the kernel holds, in bytes, for each connection of a local port."""
    rows = [x.split() for x in open("/proc/net/tcp").read().splitlines()[1:]]
    return [int(r[4].split(":")[queue], 16) for r in rows if int(r[1].split(":")[1], 16) == port and r[3] == "01"]


SENT_AND_NOT_ACKNOWLEDGED, CAME_AND_NOT_READ = 0, 1


def stalled_readers_hold_no_buffers():
    """Who needs a buffer takes one that a stalled reader holds (1h: nobody else would), and without need the clock takes it back."""
    for stall in ("1h", "200ms"):
        with Server("--output-buffers", "8", "--stall-timeout", stall, "--write-timeout", "1h") as srv:
            path = "/now/cbcs/1/s300000x100.mp4"
            stalled = [srv.dial(rcvbuf=65536) for _ in range(100)]
            for s in stalled:
                s.sendall(get_bytes(path))
            c = srv.client()
            for i in range(1, 51):  # each within what the socket waits
                expect(ask(c, segment_path("now", 200000, i))[1], words((i - 1) * 200000, 200000), f"segment {i} beside stalled readers, {stall}")

            def held():
                return sorted(connections(srv.port, SENT_AND_NOT_ACKNOWLEDGED))[-len(stalled):]
            expect(comes(lambda: len(held()) == 100 and held()[0] > 0), True, f"the kernel's table has the stalled connections: {held()}")
            time.sleep(0.5)  # longer than the stall timeout, which closes nothing
            # what may not be sent yet, one send that began below it, and what is under way to a window of 64 KB
            expect(len(held()) == 100 and held()[-1] <= 262144 + 300000 + 131072, True, f"the kernel holds for stalled readers: {held()}")
            for s in stalled[::20]:
                reader, at = Reader(s), 0
                while b"\r\n\r\n" not in reader.buf:
                    reader.more()
                data = reader.buf.split(b"\r\n\r\n", 1)[1]
                while at < 5 << 20:  # more than the kernel held
                    expect(data == words(at, len(data)), True, f"stalled reader at {at}")
                    at += len(data)
                    data = s.recv(1 << 16)
            for s in stalled:
                s.close()


def timeouts():
    with Server("--header-timeout", "2s", "--idle-timeout", "3s", "--stall-timeout", "200ms", "--write-timeout", "600ms") as srv:
        def lasts(first, then=b"", every=0.1):
            begin = time.monotonic()  # the time for a head counts from here, TLS included
            s = srv.dial(rcvbuf=65536)
            s.sendall(first)
            if b"mp4" in first:
                comes(lambda: not connections(srv.port, 0))  # the server has ended it
                total = 0
                try:
                    while got := s.recv(1 << 16):
                        total += len(got)
                except ConnectionError:
                    pass
                return total
            s.settimeout(every)
            while time.monotonic() - begin < 9.5:
                try:
                    try:
                        if not s.recv(65536):
                            break
                    except socket.timeout:
                        if then:
                            s.sendall(then)
                except ConnectionError:
                    break
            return time.monotonic() - begin
        # not before its time; and long before those that are in force without these flags, and before what would never end
        for seconds, least, what in ((lasts(b""), 1.9, "no request"), (lasts(b"GET / HTTP/1.1\r\nHost: h\r\nX: ", b"x"), 1.9, "a head that trickles"),
                                     (lasts(get_bytes(segment_path("now", 5, 1))), 2.9, "idle after a response")):
            expect(least < seconds < 9.5, True, f"{what}: {seconds:.2f} s")
        total = lasts(get_bytes("/now/cbcs/1/s300000x400.mp4"))
        expect(total < 60000000, True, f"a reader that stopped still got {total} bytes")
    expect((srv.timeouts, srv.resets), (2, 0), "half a head and the reader are counted; who asks for nothing is no error")


def pauses_within_the_write_timeout():
    """Who pauses longer than stall_timeout but not than write_timeout loses nothing, whether or not its response had a buffer."""
    with Server("--output-buffers", "8", "--stall-timeout", "200ms", "--write-timeout", "1h") as srv:  # 24 answers, one after the other
        size = 300000 * 25
        readers = [Reader(srv.dial(rcvbuf=65536)) for _ in range(24)]
        for r in readers:
            r.s.sendall(get_bytes("/now/cbcs/1/s300000x25.mp4"))
        time.sleep(1.5)
        for i, r in enumerate(readers):
            try:
                body = r.response()[2]
            except (EOFError, ConnectionError) as e:
                raise AssertionError(f"reader {i} was cut off: {e!r}") from e
            expect(body == words(0, size), True, f"reader {i}")


def more_sent_ahead_than_one_buffer():
    """2,500 requests that each wait for their source, sent at once: more than a request's own 32 KiB. All are answered."""
    with Server() as srv:
        s = TwoWays(srv.dial())
        plan = [random.randrange(1, 100) for _ in range(2500)]
        text = b"".join(get_bytes(segment_path("later", 40, n)) for n in plan)
        sender = threading.Thread(target=s.sendall, args=(text,))
        sender.start()
        reader = Reader(s)
        for i, n in enumerate(plan):
            expect(reader.response()[::2], (200, words((n - 1) * 40, 40)), f"answer {i}")
        sender.join()
        s.s.close()


def clients_that_leave_at_any_time():
    with Server("--output-buffers", "8", "--stall-timeout", "100ms") as srv:
        kinds = [get_bytes(segment_path("later", 20000, 3)), get_bytes("/later/cbcs/1/s50000x100.mp4"),
                 get_bytes("/now/cbcs/1/s300000x100.mp4"), get_bytes("/later/cbcs/master.m3u8") * 5, b"GET /x",
                 get_bytes(segment_path("now", 1, 1)) * 50]
        for i in range(300):
            s = srv.dial()
            s.sendall(random.choice(kinds))
            time.sleep(random.choice((0, 0, 0.0003, 0.001, 0.004)))
            if i % 3 == 0:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif i % 3 == 1:
                s.shutdown(socket.SHUT_WR)
            s.close()
        expect(ask(srv.client(), segment_path("later", 77, 2))[1], words(77, 77))


def clients_that_leave_storage_alone():
    """Half an answer is rendered, storage does not answer for the rest, and its client is gone: others get the output buffer."""
    with Server("--workers", "1", "--output-buffers", "8", "--header-timeout", "1h") as srv:
        srv.proc.send_signal(signal.SIGSTOP)  # a request and its client's reset are seen together
        try:
            for _ in range(40):
                s = srv.dial(raw=True)
                s.sendall(get_bytes("/hangs/cbcs/1/s1000x3.mp4"))
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
        finally:
            srv.proc.send_signal(signal.SIGCONT)
        expect(comes(lambda: len(os.listdir(f"/proc/{srv.proc.pid}/fd")) < 40), True, "their connections end")
        expect(ask(srv.client(), segment_path("now", 200000, 2))[1] == words(200000, 200000), True, "one who stays")
        srv.proc.send_signal(signal.SIGUSR1)


def clients_that_are_reset():
    """Amid a head that is an error, and counted; between requests it is none."""
    with Server("--header-timeout", "1h") as srv:
        descriptors = f"/proc/{srv.proc.pid}/fd"
        before = len(os.listdir(descriptors))
        for amid in (b"", get_bytes(segment_path("now", 5, 1))[:20]):
            s = srv.dial()
            expect(answers(s), True)
            s.sendall(amid)
            expect(comes(lambda: not any(connections(srv.port, CAME_AND_NOT_READ))), True, "it is read")  # a reset would overtake it
            time.sleep(0.3)  # and looked at
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.close()
            expect(comes(lambda: len(os.listdir(descriptors)) == before), True, "its end is noticed")
    expect(srv.resets, 1)


def half_closed_clients_get_their_answer():
    with Server() as srv:
        for asset in ("now", "later"):
            s = srv.dial()
            s.sendall(get_bytes(segment_path(asset, 500000, 2)) + get_bytes(segment_path(asset, 10, 2)))
            s.shutdown(socket.SHUT_WR)
            reader = Reader(s)
            expect(reader.response()[2], words(500000, 500000))
            expect(reader.response()[2], words(10, 10))
            expect(s.recv(10), b"")


def more_clients_than_allowed():
    with Server("--max-connections", "20") as srv:
        srv.proc.send_signal(signal.SIGSTOP)  # they come within a moment, in which nobody gives way
        try:
            socks, refused, end = [srv.dial() for _ in range(100)], 0, time.monotonic() + PATIENCE_S
        finally:
            srv.proc.send_signal(signal.SIGCONT)
        while len(select.select(socks, [], [], 0.1)[0]) < 60 and time.monotonic() < end:
            time.sleep(0.05)
        for s in socks:
            try:
                s.sendall(get_bytes(segment_path("now", 5, 1)))
                status, headers, _ = Reader(s).response()
                refused += status == 503 and headers["retry-after"] == "1"
                if status == 503:  # as every other answer
                    expect([headers.get(h) for h in ("cache-control", "server", "access-control-allow-origin")], ["no-store", "sluice", "*"])
            except (ConnectionError, EOFError):
                refused += 1
        expect(refused, 60)
        for s in socks:
            s.close()
        expect(comes(lambda: ask(srv.client(), segment_path("now", 5, 1))[0].status == 200), True, "and there is room again")


def answers(s, n=1):
    """Whether the n-th segment is answered on this connection."""
    try:
        s.sendall(get_bytes(segment_path("now", 5, n)))
        return Reader(s).response()[::2] == (200, words(5 * n - 5, 5))
    except (ConnectionError, EOFError):
        return False


def idle_clients_give_way():
    """Where all places are taken, who has waited for a request the longest is closed for who connects."""
    patient = "--header-timeout", "1h", "--idle-timeout", "1h"  # nobody ends but for this
    with Server("--workers", "1", "--max-connections", "8", *patient) as srv:
        socks = [srv.dial() for _ in range(8)]
        for n, s in enumerate(socks[:7], 1):
            expect(answers(s, n), True, f"connection {n}")
        expect(answers(socks[0], 3), True, "the first one asks again: now the last, which has not asked, has waited longest, then the second")
        socks[2].sendall(get_bytes(segment_path("now", 5, 1))[:20])  # it does not wait for a request any more
        time.sleep(1.3)
        fresh = [srv.dial() for _ in range(3)]
        expect([answers(s, 5) for s in fresh], [True] * 3, "three more")
        expect([socks[n].recv(10) for n in (7, 1, 3)], [b""] * 3, "those that have waited longest: their end, and no reset")
        socks[2].sendall(get_bytes(segment_path("now", 5, 1))[20:])
        expect(Reader(socks[2]).response()[2], words(0, 5), "half a request keeps its place")
        for n, s in enumerate((*socks[4:7], socks[0], *fresh), 1):
            expect(answers(s, n), True, f"kept {n}")
    expect(srv.displaced, 3)
    with Server("--workers", "1", "--max-connections", "300", *patient) as srv:
        crowd = [srv.dial() for _ in range(300)]
        expect([answers(s) for s in crowd], [True] * 300)
        time.sleep(1.3)
        srv.proc.send_signal(signal.SIGSTOP)  # all of the next ones come in one turn
        try:
            raw = [srv.dial(raw=True) for _ in range(300)]
        finally:
            srv.proc.send_signal(signal.SIGCONT)
        fresh = [srv.context.wrap_socket(s, server_hostname="one.test") for s in raw] if TLS else raw
        expect([answers(s) for s in fresh], [True] * 300, "as many new ones at once")
        expect({s.recv(10) for s in crowd}, {b""}, "all others have ended")
    expect((srv.displaced, srv.failed), (300, 0))


def others_do_not_give_way():
    """Who sends a request or is being answered keeps its place, however long: new ones are refused."""
    with Server("--workers", "1", "--max-connections", "2", "--header-timeout", "1h") as srv:
        half, busy = srv.dial(), srv.dial(rcvbuf=65536)
        expect([answers(half), answers(busy)], [True, True])
        half.sendall(get_bytes(segment_path("now", 5, 1))[:20])
        busy.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4"))
        time.sleep(1.3)
        try:
            expect(Reader(srv.dial()).response()[0], 503)
            expect(TLS, False)
        except (ConnectionError, ssl.SSLError):  # over TLS there is nobody who could be told
            expect(TLS, True)
        half.sendall(get_bytes(segment_path("now", 5, 1))[20:])
        expect(Reader(half).response()[2], words(0, 5), "half a request")
        expect(Reader(busy).response()[2] == words(0, 6000000), True, "an answer in progress")
    expect(srv.displaced, 0)


def refused_clients_get_their_answer():
    """What a client has sent before it is refused must not turn the end of the connection into a reset, which can destroy the 503."""
    with Server("--workers", "1", "--max-connections", "1", "--header-timeout", "1h") as srv:
        kept = srv.dial()
        kept.sendall(get_bytes(segment_path("now", 5, 1)) + b"GET ")  # half a request: it does not give way
        expect(Reader(kept).response()[0], 200)
        srv.proc.send_signal(signal.SIGSTOP)
        try:
            socks = [srv.dial() for _ in range(20)]
            for s in socks:
                s.sendall(get_bytes(segment_path("now", 5, 1)))
        finally:
            srv.proc.send_signal(signal.SIGCONT)
        for s in socks:
            expect(Reader(s).response()[0], 503)
            expect(s.recv(10), b"", "its end, not a reset")


def as_many_requests_as_connections():
    """Each connection may be in the middle of a request. Where none can be begun, the answer says so and arrives."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # of the server too
    with Server("--workers", "1", "--max-connections", "4300", "--header-timeout", "1h") as srv:
        half = []
        for _ in range(min(4200, limit - 1000) if limit >= 0 else 4200):
            half.append(srv.dial())
            half[-1].sendall(b"GET /now")
        expect(ask(srv.client(), segment_path("now", 5, 1))[1], words(0, 5), f"beside {len(half)} half requests")
        half[-1].sendall(get_bytes(segment_path("now", 5, 2))[8:])
        expect(Reader(half[-1]).response()[2], words(5, 5), "one of them goes on")
        for s in half:
            s.close()
    if BACKEND == "io_uring":
        return  # a reset right behind a request raises no event in a multishot receive: these clients would not have left
    with Server("--workers", "1", "--max-connections", "200", "--header-timeout", "1h") as srv:
        kept, descriptors = srv.dial(), f"/proc/{srv.proc.pid}/fd"
        for _ in range(0, 200 + 1024 + 100, 50):  # their clients leave, their lookups stay
            some = [srv.dial() for _ in range(50)]
            for s in some:
                s.sendall(get_bytes("/stuck/cbcs/1/s1x1/1.m4s"))
            expect(comes(lambda: not any(connections(srv.port, CAME_AND_NOT_READ))), True, "requests are read")  # a reset would overtake them
            for s in some:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                s.close()
            expect(comes(lambda: len(os.listdir(descriptors)) < 50), True, "their connections end")  # or `kept` would have to give way
        kept.sendall(get_bytes(segment_path("now", 5, 1)) * 3)
        kept.sendall(b"x" * 3000)
        status, headers, _ = Reader(kept).response()
        expect((status, headers["retry-after"], headers["connection"]), (503, "1", "close"))
        expect(kept.recv(10), b"")
        srv.proc.send_signal(signal.SIGUSR1)
        expect(comes(lambda: ask(srv.client(), segment_path("now", 5, 1))[0].status == 200), True, "when they have ended")
    expect(srv.overloads > 0 and srv.failed >= srv.overloads, True, f"each of {srv.overloads} is a 5xx too: {srv.failed}")


def draining():
    with Server() as srv:
        busy, idle = srv.dial(rcvbuf=65536), srv.dial()
        busy.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4"))
        idle.sendall(get_bytes(segment_path("now", 5, 1)))
        expect(Reader(idle).response()[0], 200)
        time.sleep(0.1)
        srv.proc.send_signal(signal.SIGTERM)
        expect(idle.recv(10), b"")

        def refused():
            try:
                srv.dial(raw=True).close()
            except ConnectionError:
                return True
        expect(comes(refused), True, "no more are accepted, by any worker")
        expect(srv.proc.poll(), None)
        status, _, body = Reader(busy).response()
        expect((status, body), (200, words(0, 6000000)))
        expect(busy.recv(10), b"")
    with Server("--drain-timeout", "300ms") as srv:
        busy = srv.dial(rcvbuf=65536)
        busy.sendall(get_bytes("/now/cbcs/1/s300000x100.mp4"))
        time.sleep(0.1)
        begin = time.monotonic()
        srv.stop()
        expect(time.monotonic() - begin < 25, True, "within drain_timeout, which is 30 s where none is given")


def new_clients_when_draining():
    """Who connected just before and sends the first request now is answered; who sends none has a second, like half a request."""
    with Server("--header-timeout", "15s") as srv:
        s, silent = srv.dial(), srv.dial()
        time.sleep(0.2)
        srv.proc.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        s.sendall(get_bytes(segment_path("now", 5, 1)))
        status, headers, body = Reader(s).response()
        expect((status, headers["connection"], body), (200, "close", words(0, 5)))
        expect(s.recv(10), b"")
        expect(silent.recv(10), b"")
        srv.proc.wait(PATIENCE_S)


def queued_clients_when_draining():
    """Those that have connected while the server was busy, more than it takes in a turn."""
    with Server("--workers", "1") as srv:
        srv.proc.send_signal(signal.SIGSTOP)
        clients = [srv.dial() for _ in range(300)]
        for s in clients:
            s.sendall(get_bytes(segment_path("now", 5, 1)))
        srv.proc.send_signal(signal.SIGTERM)
        srv.proc.send_signal(signal.SIGCONT)
        expect({Reader(s).response()[0] for s in clients}, {200}, "each is answered")
        srv.proc.wait(PATIENCE_S)


def refused_clients_that_stay():
    """Who is refused and does not end the connection loses its place soon, however long others may be silent."""
    with Server("--workers", "1", "--header-timeout", "1h", "--idle-timeout", "1h") as srv:
        descriptors = f"/proc/{srv.proc.pid}/fd"
        before = len(os.listdir(descriptors))
        s = srv.dial()
        s.sendall(b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n")
        expect(Reader(s).response()[0], 501)
        expect(s.recv(10), b"")
        expect(comes(lambda: len(os.listdir(descriptors)) == before), True, "its descriptor is closed")
        s.close()


def slow_lookups():
    """What the catalogue takes counts against no client's time."""
    with Server("--header-timeout", "1s", "--stall-timeout", "100ms", "--write-timeout", "200ms") as srv:
        s = srv.dial()
        s.sendall(get_bytes("/stuck/cbcs/1/s1x1/1.m4s"))
        time.sleep(2.5)
        srv.proc.send_signal(signal.SIGUSR1)
        expect(Reader(s).response()[0], 404)


def answered_clients_when_draining():
    """One that is answered, and may still be sending, is not reset."""
    with Server() as srv:
        s = srv.dial()
        s.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 99999\r\n\r\n")
        time.sleep(0.2)
        srv.proc.send_signal(signal.SIGTERM)
        for _ in range(3):
            time.sleep(0.2)
            s.sendall(b"x" * 100)
        expect(Reader(s).response()[0], 413)
        expect(s.recv(10), b"")
        s.close()
        srv.proc.wait(PATIENCE_S)


def half_a_request_when_draining():
    """It has a second, as those have that were half read before, and not header_timeout."""
    with Server("--header-timeout", "15s") as srv:
        s = srv.dial(rcvbuf=65536)
        s.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4") + get_bytes(segment_path("now", 5, 1))[:20])
        time.sleep(0.2)
        srv.proc.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        expect(Reader(s).response()[2] == words(0, 6000000), True, "the answer under way")
        begin = time.monotonic()
        expect(s.recv(10), b"")
        srv.proc.wait(PATIENCE_S)
        expect(time.monotonic() - begin < 12, True, f"{time.monotonic() - begin:.1f} s")


def more_sent_ahead_when_draining():
    """What nobody reads any more does not destroy the answer that is on its way."""
    with Server("--workers", "1") as srv:
        s = srv.dial(rcvbuf=65536)
        reader = Reader(s)
        s.sendall(get_bytes("/now/cbcs/1/s300000x20.mp4"))
        time.sleep(0.2)
        s.sendall(get_bytes("/now/cbcs/1/s300000x21.mp4"))
        time.sleep(0.2)
        s.setblocking(False)
        try:
            while True:  # as much as the kernel takes
                s.send(get_bytes(segment_path("now", 5, 1)) * 100)
        except (BlockingIOError, ssl.SSLWantWriteError):
            pass
        s.settimeout(PATIENCE_S)
        expect(reader.response()[2] == words(0, 6000000), True, "the first answer")
        srv.proc.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        expect(reader.response()[2] == words(0, 6300000), True, "the second one, during which draining began")
        s.close()


def more_sent_behind_the_last_request():
    """It does not destroy the answer that the kernel still has to send."""
    with Server("--keepalive-requests", "1") as srv:
        s = srv.dial(rcvbuf=4096)
        s.sendall(get_bytes(segment_path("now", 200000, 1)) + get_bytes(segment_path("now", 5, 1)))
        time.sleep(0.3)
        s.sendall(get_bytes(segment_path("now", 5, 2)) * 10)
        time.sleep(0.2)
        expect(Reader(s).response()[2] == words(0, 200000), True, "the answer")
        s.close()


def keepalive_limit():
    with Server("--keepalive-requests", "3") as srv:
        s = srv.dial()
        s.sendall(get_bytes(segment_path("now", 5, 1)) * 5)
        reader = Reader(s)
        expect([reader.response()[1].get("connection") for _ in range(3)], [None, None, "close"])
        expect(s.recv(10), b"")


def an_allocation_while_serving_is_noticed():
    """The fixture's watch over malloc works in this build: without it, that every other case allocates nothing would prove nothing."""
    srv = Server()
    try:
        expect(ask(srv.client(), segment_path("now", 5, 1))[1], words(0, 5))
        try:
            ask(srv.client(), segment_path("heap", 5, 1))
            raise AssertionError("an allocation went unnoticed")
        except (ConnectionError, http.client.HTTPException):
            pass
        expect(srv.proc.wait(PATIENCE_S), 70, "the status of an allocation")
    finally:
        srv.proc.kill()
        srv.proc.communicate()


def occupied_port():
    with Server() as srv:
        p = subprocess.run([FIXTURE, "--media", "/", "--listen", f"127.0.0.1:{srv.plain_port}", "--workers", "2", "--io", BACKEND],
                           capture_output=True, text=True, timeout=PATIENCE_S)
        expect((p.returncode, p.stdout), (1, ""))
        expect("Address already in use" in p.stderr and p.stderr.count("\n") == 1, True, p.stderr)
