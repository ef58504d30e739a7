"""wrk as the client: one thread on core 1, cycling through the paths in a fixed order."""
import json, socket, subprocess, tempfile, time

LUA = """
local paths = {%s}
local i = 0
local reqs = {}
init = function(args)
  for k, p in ipairs(paths) do reqs[k] = wrk.format("GET", p) end
end
request = function()
  i = i %% #reqs + 1
  return reqs[i]
end
done = function(s, l, r)
  local e = s.errors
  io.write(string.format('RESULT {"requests":%%d,"bytes":%%d,"us":%%d,"errors":%%d,"p50":%%d,"p99":%%d}\\n',
    s.requests, s.bytes, s.duration, e.connect + e.read + e.write + e.status + e.timeout, l:percentile(50), l:percentile(99)))
end
"""


def wrk(address, paths, conns, seconds, tls=False):
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as f:
        f.write(LUA % ",".join(json.dumps(p) for p in paths))
        f.flush()
        url = f"{'https' if tls else 'http'}://{address[0]}:{address[1]}/"
        # wrk takes whole seconds
        out = subprocess.run(["taskset", "-c", "1", "wrk", "-t1", f"-c{conns}", f"-d{max(1, round(seconds))}s", "--latency", "-s", f.name, url],
                             capture_output=True, text=True)
    line = next((x for x in out.stdout.splitlines() if x.startswith("RESULT ")), None)
    if not line:
        raise SystemExit(f"bench serve: wrk said: {out.stdout[-500:]} {out.stderr[-500:]}")
    r = json.loads(line[7:])
    return dict(requests=r["requests"], bytes=r["bytes"], seconds=r["us"] / 1e6, errors=r["errors"], p50_us=r["p50"], p99_us=r["p99"])


def idle_memory(server, count):
    """Bytes of resident user memory that each of `count` idle keep-alive connections adds to the server."""
    socks, before = [], None
    try:
        for i in range(count + 200):
            if i == 200:  # what the first ones cost is the server's start-up
                time.sleep(0.3)
                before = server.rss()
            s = socket.create_connection(server.address, 10)
            s.sendall(b"GET /nothing-here HTTP/1.1\r\nHost: localhost\r\n\r\n")
            s.recv(4096)
            socks.append(s)
        time.sleep(0.3)
        return (server.rss() - before) / count
    finally:
        for s in socks:
            s.close()
        time.sleep(0.5)


def slow_readers(server, paths, count, seconds):
    """Requests per second with `count` readers that ask and then never read, as a share of those without."""
    free = wrk(server.address, paths, 64, seconds)
    socks = []
    try:
        for i in range(count):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.settimeout(10)
            s.connect(server.address)
            s.sendall(f"GET {paths[i % len(paths)]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            socks.append(s)
        time.sleep(0.3)
        held = wrk(server.address, paths, 64, seconds)
    finally:
        for s in socks:
            s.close()
    return (held["requests"] / held["seconds"]) / (free["requests"] / free["seconds"])
