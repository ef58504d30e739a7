"""The client: wrk, one thread on core 1, cycling through its requests in a fixed order; and what wrk cannot ask, in Python."""
import json, os, select, socket, subprocess, sys, tempfile, time
from pathlib import Path

import versions

LUA = """
local paths = {%s}
local i = 0
local reqs = {}
init = function(args)
  for k, p in ipairs(paths) do
    if type(p) == "string" then
      reqs[k] = wrk.format("GET", p)
    else
      reqs[k] = string.rep(wrk.format("GET", p.path, p.headers), p.times)
    end
  end
end
request = function()
  i = i %% #reqs + 1
  return reqs[i]
end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format('RESULT {"requests":%%d,"bytes":%%d,"us":%%d,"errors":%%d,"p50":%%d,"p99":%%d,"statuses":%%d}\\n',
    s.requests, s.bytes, s.duration, e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(99), e.status))
end
"""


def asked(path, times=1, **headers):
    """A request for wrk() that is more than a path; `times` of it are sent at once."""
    return dict(path=path, times=times, headers=headers)


def lua(request):
    if isinstance(request, str):
        return json.dumps(request)
    headers = ",".join(f"[{json.dumps(k.replace('_', '-'))}]={json.dumps(v)}" for k, v in request["headers"].items())
    return f"{{path={json.dumps(request['path'])},times={request['times']},headers={{{headers}}}}}"


def wrk(address, requests, conns, seconds, tls=False, unread=False):
    """What wrk says of its run. `errors` are all that went wrong, `statuses` those of them that are an answer of 400 or more.
    With `unread` it takes bodies from its sockets without reading them (unread.c)."""
    env = dict(os.environ, LD_PRELOAD=str(versions.built("bench/serve/unread.so"))) if unread else None
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(LUA % ",".join(lua(r) for r in requests))
        f.flush()
        url = f"{'https' if tls else 'http'}://{address[0]}:{address[1]}/"
        # wrk takes whole seconds
        out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{conns}", f"-d{max(1, round(seconds))}s", "--latency", "-s", f.name, url],
                             capture_output=True, text=True, env=env)
    line = next((x for x in out.stdout.splitlines() if x.startswith("RESULT ")), None)
    if not line:
        raise SystemExit(f"bench serve: wrk said: {out.stdout[-500:]} {out.stderr[-500:]}")
    r = json.loads(line[7:])
    return dict(requests=r["requests"], bytes=r["bytes"], seconds=r["us"] / 1e6, errors=r["errors"], p50_us=r["p50"], p99_us=r["p99"], statuses=r["statuses"])


def heads(address, paths, conns, seconds):
    """As wrk(), with HEAD: wrk waits for the body that a HEAD's length announces."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(dict(address=address, paths=paths, conns=conns, seconds=max(1, round(seconds))), f)
        f.flush()
        out = subprocess.run(["taskset", "-c", "1", sys.executable, __file__, f.name], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"bench serve: the client of HEAD requests: {out.stderr[-500:]}")
    return json.loads(out.stdout)


def ask_heads(address, paths, conns, seconds):
    asks = [f"HEAD {p} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for p in paths]
    ready, socks, times, total, errors, at = select.epoll(), {}, [], 0, 0, 0
    for i in range(conns):
        s = socket.create_connection(tuple(address), 10)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ready.register(s.fileno(), select.EPOLLIN)
        socks[s.fileno()] = [s, time.perf_counter()]
        s.sendall(asks[i % len(asks)])
    begin = now = time.perf_counter()
    while now - begin < seconds:
        for fd, _ in ready.poll(1):
            s, sent = socks[fd]
            data = s.recv(4096)
            now = time.perf_counter()
            if not data.endswith(b"\r\n\r\n") or data.count(b"\r\n\r\n") != 1 or not data.startswith(b"HTTP/1.1 200"):
                errors += 1
            times.append(now - sent)
            total += len(data)
            at = (at + 1) % len(asks)
            socks[fd][1] = now
            s.sendall(asks[at])
    times.sort()
    return dict(requests=len(times), bytes=total, seconds=now - begin, errors=errors, statuses=0,
                p50_us=1e6 * times[len(times) // 2], p99_us=1e6 * times[len(times) * 99 // 100])


def idle_memory(server, count, first=200, rest=0.3):
    """Bytes of resident user memory that each of `count` idle keep-alive connections adds to the server. What the `first` ones
    cost is its start-up; it has `rest` seconds before each look."""
    socks, before = [], None
    try:
        for i in range(count + first):
            if i == first:
                time.sleep(rest)
                before = server.rss()
            s = socket.create_connection(server.address, 10)
            s.sendall(b"GET /nothing-here HTTP/1.1\r\nHost: localhost\r\n\r\n")
            s.recv(4096)
            socks.append(s)
        time.sleep(rest)
        return (server.rss() - before) / count
    finally:
        for s in socks:
            s.close()
        time.sleep(rest)


class Stalled:
    """Readers that ask for whole tracks, more than the kernel takes of one response, and then never read."""

    def __init__(self, address, paths, count):
        self.socks = []
        try:
            for i in range(count):
                s = socket.socket()
                self.socks.append(s)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.settimeout(10)
                s.connect(address)
                s.sendall(f"GET {paths[i % len(paths)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        except BaseException:
            self.close()
            raise

    def close(self):
        for s in self.socks:
            s.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


if __name__ == "__main__":
    print(json.dumps(ask_heads(**json.loads(Path(sys.argv[1]).read_text()))))
