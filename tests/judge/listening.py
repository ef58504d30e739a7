"""A server of a test's own on loopback."""
import socket
import threading


class Listening:
    """Accepts connections, a thread for each that runs `handle(connection)`, which a subclass has. Use with `with`, or close()."""

    def __init__(self, at=("127.0.0.1", 0)):
        self.connections = 0
        self.listener = socket.create_server(at, family=socket.AF_INET6 if ":" in at[0] else socket.AF_INET, backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.url = f"http://{f'[{at[0]}]' if ':' in at[0] else at[0]}:{self.port}"
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Who accepts is gone before the descriptor is: as another listener's it would take that one's connections."""
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:  # closed already
            pass
        self.thread.join()
        self.listener.close()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self.handle, args=(s,), daemon=True).start()
