"""What ties the launchers of several nodes together: one that ends early takes the others along.

Called by `ranks`. A rank waits for its peers inside a kernel and may not notice that one is gone;
its launcher does. The first node's launcher listens, the others stay connected to it. A connection
that ends without the word that all went well means that the node's ranks have failed, or the node.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

DONE = b"done"
CONNECT_S = 600
"""How long the first node may take to start: a pod waits for a node, and for its image."""
RETRY_S = 1.0
KEEPALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A node that lost its power closes nothing: half a minute until that shows."""


class PeerWatch:
    """The other nodes' launchers."""

    def __init__(self, nodes: int, node_rank: int, environment: Mapping[str, str]) -> None:
        self._lost = threading.Event()
        self._left = threading.Event()
        self._over = threading.Event()
        self._peers: list[socket.socket] = []
        if nodes == 1:
            return
        # Beside the ranks' own rendezvous.
        address = environment["MASTER_ADDR"], int(environment["MASTER_PORT"]) + 1
        if node_rank == 0:
            listener = socket.create_server(("", address[1]), reuse_port=False)
            self._start(lambda: self._listen(listener, nodes - 1))
        else:
            self._start(lambda: self._connect(address))

    @property
    def lost(self) -> bool:
        """Whether another node's ranks have ended before their time."""
        return self._lost.is_set()

    @property
    def left(self) -> bool:
        """Whether another node has said that all went well, and gone."""
        return self._left.is_set()

    def leave(self, *, done: bool) -> None:
        """Ends the connections; with `done`, nobody else is to end because of it."""
        self._over.set()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                if done:
                    peer.sendall(DONE)
                # Closing would wait for the thread that listens there.
                peer.shutdown(socket.SHUT_RDWR)

    def _listen(self, listener: socket.socket, peers: int) -> None:
        with listener:
            for _ in range(peers):
                peer, _ = listener.accept()
                self._start(partial(self._watch, peer))

    def _connect(self, address: tuple[str, int]) -> None:
        until = time.monotonic() + CONNECT_S
        while not self._over.is_set():
            try:
                self._watch(socket.create_connection(address, timeout=RETRY_S))
                return
            except OSError:
                if time.monotonic() > until:
                    self._lost.set()
                    return
                self._over.wait(RETRY_S)

    def _watch(self, peer: socket.socket) -> None:
        """Listens until the connection ends, and notes whether the other node was lost."""
        self._peers.append(peer)
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE.items():
            if hasattr(socket, name):  # Linux
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        said = b""
        with contextlib.suppress(OSError):
            while piece := peer.recv(len(DONE)):
                said += piece
        if not self._over.is_set():
            (self._left if said == DONE else self._lost).set()

    def _start(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, daemon=True).start()
