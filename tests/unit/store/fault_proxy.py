"""A proxy before the S3 server that does to requests what networks and busy services do.

`decide` sees every request before it is passed on and says what goes wrong with it.
"""

import http.client
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["slow down", "error in 200", "lose answer", "reset in body", "flip a byte"]

_ERROR = b"<?xml version='1.0'?><Error><Code>%s</Code><Message>told to</Message></Error>"


@dataclass
class Proxy:
    """Faults of a running proxy; set `decide` at any time."""

    endpoint: str = ""
    decide: Callable[[str, str], Fault | None] = lambda method, path: None
    """Takes method and path with query; called from several threads, one at a time."""
    injected: list[Fault] = field(default_factory=list)


@contextmanager
def fault_proxy(upstream: str) -> Iterator[Proxy]:
    """Listens on a free port and passes on to `upstream`, an endpoint."""
    proxy = Proxy()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                fault = proxy.decide(self.command, self.path)
                if fault:
                    proxy.injected.append(fault)
            if fault == "slow down":
                self._answer(503, _ERROR % b"SlowDown")
            elif fault == "error in 200":
                self._answer(200, _ERROR % b"InternalError")
            else:
                self._pass_on(body, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve

        def _pass_on(self, body: bytes, fault: Fault | None) -> None:
            connection = http.client.HTTPConnection(urlsplit(upstream).netloc, timeout=60)
            try:
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in ("expect", "connection"):
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if fault == "lose answer":
                self._reset()
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            size = answer.getheader("Content-Length") if self.command == "HEAD" else len(data)
            self.send_header("Content-Length", str(size or 0))
            self.end_headers()
            if fault == "reset in body":
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                self._reset()
            elif fault == "flip a byte" and data:
                self.wfile.write(data[:-1] + bytes([data[-1] ^ 1]))
            else:
                self.wfile.write(data)

        def _answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _reset(self) -> None:
            # Closing with nothing to wait for sends RST, as a dead peer does.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.shutdown(socket.SHUT_RD)
            self.close_connection = True

        def handle(self) -> None:
            try:
                super().handle()
            except (ConnectionError, TimeoutError):
                self.close_connection = True

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
            self.close_request(request)  # no FIN first, it would spoil the reset

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxy.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
