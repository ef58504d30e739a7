"""A TCP port of loopback for a server that is about to start."""
import random
import socket
from pathlib import Path

given = set()


def free_port():
    """One that nobody listens on, not given before, and below those that the kernel gives to outgoing connections: one of these
    could take it until the server binds."""
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
        if port not in given:
            given.add(port)
            return port
    raise OSError("no free port on 127.0.0.1")
