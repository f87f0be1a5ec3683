"""What the Python client tests share: named checks, the simulator's journal, and a recorder in front of the gateway.

Only Python's own library is used here, so that what is checked does not lean on the client that is checked.
"""

import argparse
import hashlib
import json
import re
import socket
import socketserver
import threading
import time
import traceback
from pathlib import Path

# How long a condition may take to come true before it is a failure. It is generous because machines are slow, not
# because the gateway is.
PATIENCE = 20.0


def arguments(description, **more):
    """The command line that every script takes; `more` are further options that are required."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--base-url", required=True, help="the gateway")
    parser.add_argument("--upstream", required=True, help="the simulated provider behind it")
    parser.add_argument("--journal", required=True, type=Path, help="what the simulator received, a JSON line each")
    parser.add_argument("--stored-key", required=True, help="the key that the gateway holds for the provider")
    parser.add_argument("--gateway-token", required=True, help="the token that lets a caller spend the stored key")
    parser.add_argument("--work", required=True, type=Path, help="a folder for whatever the client writes")
    parser.add_argument("--only", default="", help="run only the checks whose name holds this")
    for name, text in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", required=True, help=text)
    parsed = parser.parse_args()
    parsed.work.mkdir(parents=True, exist_ok=True)
    return parsed


def equal(got, want, what):
    """Fails unless the two are the same."""
    if got != want:
        raise AssertionError(f"{what}: {shorten(got)} instead of {shorten(want)}")


def true(holds, what):
    """Fails unless it holds; `what` says what was wrong."""
    if not holds:
        raise AssertionError(what)


def shorten(value):
    text = repr(value)
    return text if len(text) < 400 else f"{text[:300]} … {text[-60:]} ({len(text)} characters)"


def raises(kind, act):
    """The exception of exactly this class that `act` ends with."""
    try:
        result = act()
    except Exception as error:
        if type(error) is kind:
            return error
        raise AssertionError(f"{type(error).__name__} instead of {kind.__name__}: {error}") from error
    raise AssertionError(f"no {kind.__name__}, but a result: {shorten(result)}")


def until(holds, what, patience=PATIENCE):
    """Waits for a condition and returns what made it true."""
    end = time.monotonic() + patience
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience:.0f} s: {what}")
        time.sleep(0.005)


def sha256(data):
    return hashlib.sha256(data if isinstance(data, bytes) else data.encode()).hexdigest()


class Checks:
    """Named checks that run in the order in which they were written down."""

    def __init__(self, only):
        self.only = only
        self.known = []

    def __call__(self, function):
        """A check is a function whose name is a sentence."""
        self.known.append((function.__name__.replace("_", " "), function))
        return function

    def run(self):
        """Runs them all, prints the result as the last line, and returns the exit code."""
        results = []
        for number, (name, function) in enumerate(self.known, 1):
            if self.only not in name:
                continue
            started = time.monotonic()
            try:
                detail = function() or ""
                ok = True
            except Exception as error:
                detail, ok = f"{type(error).__name__}: {error}", False
                if not isinstance(error, AssertionError):
                    traceback.print_exc()
            took = time.monotonic() - started
            mark = "ok    " if ok else "FAILED"
            print(f"{mark} {number:2} {name} ({took:.2f} s){': ' if detail else ''}{detail}", flush=True)
            results.append({"name": name, "ok": ok, "detail": detail})
        print(json.dumps({"checks": results}), flush=True)
        return 0 if results and all(result["ok"] for result in results) else 1


class Entry:
    """One request as the upstream received it, and how its answer ended."""

    def __init__(self, line):
        self.seq = line["seq"]
        self.time_ms = line["time_ms"]
        self.method = line["method"]
        self.target = line["target"]
        self.path = self.target.split("?")[0]
        self.headers = [(name.lower(), value) for name, value in line["headers"]]
        self.body_len = line["body_len"]
        self.body_sha256 = line["body_sha256"]
        self.oddities = line.get("oddities", [])
        self.end = None

    def header(self, name):
        """The only value of this header, or None."""
        values = [value for known, value in self.headers if known == name]
        true(len(values) < 2, f"`{name}` arrived {len(values)} times")
        return values[0] if values else None

    def has_credential(self, name, value):
        """Whether this credential, and no other, arrived; the journal holds only digests of credentials."""
        others = [known for known, _ in self.headers if known in ("authorization", "x-api-key") and known != name]
        return not others and self.header(name) in (value, f"sha256:{sha256(value)}")

    def credentials(self):
        """For messages: which credential headers arrived."""
        return [known for known, _ in self.headers if known in ("authorization", "x-api-key")]


class Journal:
    """The simulator's own record of what reached it."""

    def __init__(self, path):
        self.path = path

    def entries(self, since=0):
        """All requests after number `since`, in order."""
        entries = {}
        text = self.path.read_bytes() if self.path.exists() else b""
        # A last line without its end is still being written.
        for raw in text.split(b"\n")[:-1]:
            line = json.loads(raw)
            if "end" in line:
                if line["seq"] in entries:
                    entries[line["seq"]].end = line
            else:
                entries[line["seq"]] = Entry(line)
        return [entry for seq, entry in sorted(entries.items()) if seq > since]

    def mark(self):
        """Where the journal stands."""
        entries = self.entries()
        return entries[-1].seq if entries else 0

    def one(self, since, path="/v1/messages"):
        """The only request to `path` after `since`."""
        found = [entry for entry in self.entries(since) if entry.path == path]
        equal(len(found), 1, f"requests to `{path}` that reached the upstream")
        return found[0]

    def gone(self, since):
        """Waits until the upstream sees that its client left the only request after `since`."""
        def left():
            ended = [entry for entry in self.entries(since) if entry.end and entry.end["end"] == "client_gone"]
            return ended[0] if ended else None
        return until(left, "the upstream sees that the client has gone")


class Sent:
    """One request as the client sent it."""

    def __init__(self, method, target, headers):
        self.method = method
        self.target = target
        self.headers = headers
        self.body = hashlib.sha256()
        self.body_len = 0
        self.text = b""

    def header(self, name):
        values = [value for known, value in self.headers if known == name]
        return values[0] if values else None

    def take(self, data):
        self.body.update(data)
        self.body_len += len(data)
        if len(self.text) < 1 << 20:
            self.text += data

    def json(self):
        return json.loads(self.text)


class Recorder:
    """A forwarder between client and gateway that notes what the client really sent.

    It changes one thing: the `Host` line names the gateway, because the client only knows the forwarder.
    """

    def __init__(self, gateway):
        host, port = re.fullmatch(r"http://([^:/]+):(\d+)/?", gateway).groups()
        self.gateway = (host, int(port))
        self.lock = threading.Lock()
        self.requests = []
        self.faults = []
        recorder = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self):
                recorder.forward(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def since(self, count):
        with self.lock:
            true(not self.faults, f"the recorder could not follow a client: {self.faults}")
            return self.requests[count:]

    def mark(self):
        return len(self.since(0))

    def forward(self, client):
        gateway = socket.create_connection(self.gateway)
        for end in (client, gateway):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=self.copy, args=(gateway, client), daemon=True)
        back.start()
        try:
            while self.forward_request(client, gateway):
                pass
        except OSError:
            pass
        except Exception as error:
            with self.lock:
                self.faults.append(f"{type(error).__name__}: {error}")
        # The client has closed: its gateway connection ends with it, whatever is still under way.
        close(gateway)
        back.join()
        close(client)

    @staticmethod
    def copy(gateway, client):
        try:
            while data := gateway.recv(1 << 16):
                client.sendall(data)
        except OSError:
            pass
        close(client)

    def forward_request(self, client, gateway):
        """Forwards one request; says whether another may come."""
        held = b""
        while b"\r\n\r\n" not in held:
            data = client.recv(1 << 16)
            if not data:
                return False
            held += data
        head, rest = held.split(b"\r\n\r\n", 1)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ", 2)
        pairs = [line.split(":", 1) for line in lines]
        sent = Sent(method, target, [(name.lower(), value.strip()) for name, value in pairs])
        host = "{}:{}".format(*self.gateway)
        lines = [f"{name}: {host}" if name.lower() == "host" else f"{name}:{value}" for name, value in pairs]
        gateway.sendall("\r\n".join([first, *lines, "", ""]).encode("latin-1"))
        if sent.header("transfer-encoding"):
            left = self.forward_chunked(client, gateway, rest, sent)
        else:
            left = self.forward_length(client, gateway, rest, sent, int(sent.header("content-length") or 0))
        true(left == b"", "the client sent a second request before the first one's answer")
        with self.lock:
            self.requests.append(sent)
        return True

    @staticmethod
    def forward_length(client, gateway, rest, sent, length):
        while True:
            now, rest = rest[:length], rest[length:]
            length -= len(now)
            sent.take(now)
            gateway.sendall(now)
            if length == 0:
                return rest
            rest = client.recv(1 << 16)
            true(rest, "the client left in the middle of a body")

    def forward_chunked(self, client, gateway, rest, sent):
        while True:
            while b"\r\n" not in rest:
                rest += client.recv(1 << 16)
            line, rest = rest.split(b"\r\n", 1)
            size = int(line.split(b";")[0], 16)
            gateway.sendall(line + b"\r\n")
            framed = Sent("", "", [])
            while len(rest) < min(size + 2, 1 << 16):
                rest += client.recv(1 << 16)
            rest = self.forward_length(client, gateway, rest, framed if size == 0 else sent, size)
            while len(rest) < 2:
                rest += client.recv(1 << 16)
            equal(rest[:2], b"\r\n", "the end of a chunk")
            gateway.sendall(rest[:2])
            rest = rest[2:]
            if size == 0:
                return rest


def close(end):
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
    end.close()


# What a gateway may take off or put on: one connection's own headers, and credentials.
NOT_COMPARED = {
    "host", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "cookie",
    "content-length", "authorization", "x-api-key", "proxy-authorization", "proxy-connection",
}  # fmt: skip


def all_arrived_unchanged(sent, arrived):
    """Every request for the provider reached it once, with the same target, body and headers."""
    sent = [request for request in sent if request.target.startswith("/v1/")]
    true(sent, "the client sent nothing")
    left = list(arrived)
    for request in sent:
        key = (request.method, request.target, request.body_len, request.body.hexdigest())
        same = [entry for entry in left if (entry.method, entry.target, entry.body_len, entry.body_sha256) == key]
        true(same, f"`{request.method} {request.target}` with {request.body_len} bytes did not arrive as it was sent")
        entry = same[0]
        left.remove(entry)
        got, want = comparable(entry.headers), comparable(request.headers)
        other = {name: (got.get(name), want.get(name)) for name in got | want if got.get(name) != want.get(name)}
        equal(other, {}, f"headers of `{request.target}` that arrived otherwise (arrived, sent)")
        if request.method == "POST" and request.target.split("?")[0] == "/v1/messages":
            equal(entry.header("accept-encoding"), "identity", "what coding the gateway asks for")
        equal(entry.oddities, [], "what is odd about the request that arrived")
    equal([f"{entry.method} {entry.target}" for entry in left], [], "requests that the client never sent")
    return len(sent)


def comparable(headers):
    """Headers by name, each with its values in order; the coding that is asked for is compared apart."""
    kept = {}
    for name, value in headers:
        if name not in NOT_COMPARED and name != "accept-encoding" and not name.startswith("x-cco-"):
            kept.setdefault(name, []).append(value)
    return kept
