#!/usr/bin/env python3
"""Sends ambiguous framing by raw bytes through a relay and prints what came through to the upstream, and what was answered.

    framing.py RELAY_BINARY
"""
import socket, subprocess, sys, threading, time

UP, DOWN = 23110, 23210
BODY = b'{"a":1}'
P = b"POST /v1/messages HTTP/1.1\r\n"
H = b"Host: good\r\n"
CASES = {
    "plain": P + H + b"Content-Length: 7\r\n\r\n" + BODY,
    "no host": P + b"Content-Length: 7\r\n\r\n" + BODY,
    "two hosts": P + H + b"Host: evil\r\nContent-Length: 7\r\n\r\n" + BODY,
    "length and chunked": P + H + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunked and length": P + H + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n7\r\n" + BODY + b"\r\n0\r\n\r\n",
    "two equal lengths": P + H + b"Content-Length: 7\r\nContent-Length: 7\r\n\r\n" + BODY,
    "two unequal lengths": P + H + b"Content-Length: 7\r\nContent-Length: 3\r\n\r\n" + BODY,
    "length list 7, 7": P + H + b"Content-Length: 7, 7\r\n\r\n" + BODY,
    "length +7": P + H + b"Content-Length: +7\r\n\r\n" + BODY,
    "bare LF, all lines": (P + H + b"Content-Length: 7\r\n\r\n").replace(b"\r\n", b"\n") + BODY,
    "bare LF, one line": P + b"Host: good\nX-A: b\r\nContent-Length: 7\r\n\r\n" + BODY,
    "bare CR in a value": P + H + b"X-A: b\rX-B: c\r\nContent-Length: 7\r\n\r\n" + BODY,
    "folded line": P + H + b"X-A: b\r\n c\r\nContent-Length: 7\r\n\r\n" + BODY,
    "space before colon": P + H + b"Content-Length : 7\r\n\r\n" + BODY,
    "NUL in a value": P + H + b"X-A: b\0c\r\nContent-Length: 7\r\n\r\n" + BODY,
    "absolute form, other authority": b"POST http://evil/v1/messages HTTP/1.1\r\n" + H + b"Content-Length: 7\r\n\r\n" + BODY,
    "HTTP/1.0 with chunked": P.replace(b"1.1", b"1.0") + H + b"Transfer-Encoding: chunked\r\n\r\n7\r\n" + BODY + b"\r\n0\r\n\r\n",
    "encoding `identity`": P + H + b"Transfer-Encoding: identity\r\nContent-Length: 7\r\n\r\n" + BODY,
    "encoding `gzip, chunked`": P + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n7\r\n" + BODY + b"\r\n0\r\n\r\n",
    "encoding `chunked` twice": P + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n" + BODY + b"\r\n0\r\n\r\n",
    "encoding `xchunked`": P + H + b"Transfer-Encoding: xchunked\r\n\r\n7\r\n" + BODY + b"\r\n0\r\n\r\n",
} | {
    "chunks: " + name: P + H + b"Transfer-Encoding: chunked\r\n\r\n" + raw
    for name, raw in {
        "plain": b"7\r\n" + BODY + b"\r\n0\r\n\r\n",
        "size with bare LF": b"7\n" + BODY + b"\r\n0\r\n\r\n",
        "size 0x7": b"0x7\r\n" + BODY + b"\r\n0\r\n\r\n",
        "size +7": b"+7\r\n" + BODY + b"\r\n0\r\n\r\n",
        "space before size": b" 7\r\n" + BODY + b"\r\n0\r\n\r\n",
        "space after size": b"7 \r\n" + BODY + b"\r\n0\r\n\r\n",
        "empty size": b"\r\n" + BODY + b"\r\n0\r\n\r\n",
        "size over 64 bits": b"10000000000000007\r\n" + BODY + b"\r\n0\r\n\r\n",
        "leading zeros": b"00000000000000000007\r\n" + BODY + b"\r\n0\r\n\r\n",
        "extension": b"7;a=b\r\n" + BODY + b"\r\n0\r\n\r\n",
        "extension with bare LF": b"7;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
        "extension with bare CR": b"7;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n",
        "no CRLF after data": b"7\r\n" + BODY + b"0\r\n\r\n",
        "other two bytes after data": b"7\r\n" + BODY + b"xx0\r\n\r\n",
        "LF after data": b"7\r\n" + BODY + b"\n0\r\n\r\n",
        "end with bare LF": b"7\r\n" + BODY + b"\r\n0\n\n",
        "trailer with a length": b"7\r\n" + BODY + b"\r\n0\r\nContent-Length: 3\r\n\r\n",
        "trailer without colon": b"7\r\n" + BODY + b"\r\n0\r\nnonsense\r\n\r\n",
    }.items()
}
seen = []


def upstream(listener):
    while True:
        s, _ = listener.accept()
        threading.Thread(target=answer, args=(s,), daemon=True).start()


def answer(s):
    got = b""
    while True:
        data = s.recv(65536)
        if not data:
            return
        got += data
        if b"\r\n\r\n" in got:
            seen.append(got)
            got = b""
            s.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def main():
    listener = socket.create_server(("127.0.0.1", UP), backlog=64)
    threading.Thread(target=upstream, args=(listener,), daemon=True).start()
    relay = subprocess.Popen([sys.argv[1], "--listen", f"127.0.0.1:{DOWN}", "--upstream", f"127.0.0.1:{UP}"])
    try:
        for name, raw in CASES.items():
            for _ in range(1000):
                try:
                    s = socket.create_connection(("127.0.0.1", DOWN))
                    break
                except OSError:
                    time.sleep(0.005)
            seen.clear()
            s.sendall(raw)
            s.settimeout(0.4)
            got = b""
            try:
                while data := s.recv(65536):
                    got += data
                    if got.endswith(b"ok"):
                        break
            except TimeoutError:
                got = got or b"(waits)"
            except OSError as e:
                got = got or repr(e).encode()
            status = got.split(b"\r\n", 1)[0].decode(errors="replace") if got else "(closed)"
            print(f"{name:32} {status:32} {seen[0] if seen else ''}")
            s.close()
    finally:
        relay.terminate(), relay.wait()


main()
