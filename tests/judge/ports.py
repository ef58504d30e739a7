"""A TCP port of loopback for a server that is about to start."""
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

given = set()
# A byte for each port, locked for as long as this process lives: programs that run beside one another are given none twice. All use one
# descriptor, for closing another one of the same file would unlock it.
try:
    locks = os.open(Path(tempfile.gettempdir()) / f"sluice-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
except OSError:  # somebody else's file of that name: two programs may be given the same port then
    locks = None


def taken(port):
    try:
        if locks is not None:
            fcntl.lockf(locks, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except (BlockingIOError, PermissionError):
        return True
    return port in given


def free_port():
    """One that nobody listens on, given to nobody, and below those that the kernel gives to outgoing connections: one of these could
    take it until the server binds."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.SystemRandom().randrange(10000, first) if first > 11000 else 0
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: what is left of closed connections is no obstacle
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
            port = s.getsockname()[1]
        if not taken(port):
            given.add(port)
            return port
    raise OSError("no free port on 127.0.0.1")
