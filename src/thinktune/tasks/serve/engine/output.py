"""What an engine prints: passed on as it comes, its end kept, and out of memory told from the rest.

Called by `process`.
"""

import asyncio
import contextlib
import os
import re
import sys

from thinktune.schema.errors import OutOfGpuMemory

KEPT_BYTES = 256 << 10
"""Each of an engine's processes prints a traceback, and the cause is in the first of them."""
REST_S = 1.0
"""Seconds for what an engine printed last: what it started may hold its output open."""
SMALLER = "set a shorter --window or fewer adapters, or take a GPU with more memory"
WINDOW = re.compile(
    r"\(?([\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory"
    r" \(([\d.]+) GiB\)\.(?:[^.]*estimated maximum model length is (\d+))?"
)
TAKEN = re.compile(
    r"Free memory on device [^(\n]*\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU"
    r" memory utilization \([\d.]+, ([\d.]+) GiB\)"
)
NO_CACHE = "No available memory for the cache blocks"
ALLOCATION = re.compile(r"out of memory\. Tried to allocate ([\d.]+ [KMG]iB)")
PLAIN = re.compile(r"(CUDA error: |CUDA )out of memory")


class Output:
    """The output of one engine, through a pipe of our own: asyncio's would keep an engine that has
    ended from being noticed for as long as something that it started holds the pipe open."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._transport: asyncio.ReadTransport | None = None
        self._following: asyncio.Task[None] | None = None

    @property
    def end(self) -> str:
        """The last of it."""
        return self._kept.decode(errors="replace")

    async def open(self) -> int:
        """Where the engine writes. Whoever starts it closes this once it has started."""
        read, write = os.pipe()
        reader, loop = asyncio.StreamReader(), asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb", 0)
        )
        self._following = asyncio.create_task(self._follow(reader))
        return write

    async def close(self) -> None:
        """After the engine has ended: takes what is on its way."""
        if self._following is not None and self._transport is not None:
            await asyncio.wait([self._following], timeout=REST_S)
            self._following.cancel()
            self._transport.close()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        while chunk := await reader.read(1 << 16):
            self._kept += chunk
            del self._kept[:-KEPT_BYTES]
            with contextlib.suppress(OSError):  # nobody reads ours any more
                os.write(sys.stderr.fileno(), chunk)


def out_of_memory(said: str) -> OutOfGpuMemory | None:
    """The error of an engine whose output says that the GPU's memory was too small, with by how
    much where it says so too. Messages are those of vLLM 0.32 and torch."""
    if found := WINDOW.search(said):
        needed, there, longest = found.groups()
        fault = f"a full window needs {needed} GiB of KV cache, and {there} GiB are left for it"
        remedy = f"set --window {longest} or less, or {SMALLER}" if longest else SMALLER
        return OutOfGpuMemory("engine", fault, remedy)
    if found := TAKEN.search(said):
        free, whole, wanted = found.groups()
        fault = f"{free} of {whole} GiB of the GPU are free, and it is to take {wanted}"
        return OutOfGpuMemory("engine", fault, "end what else uses the GPU, or take another one")
    if NO_CACHE in said:
        fault = "weights and adapters leave no GPU memory for the KV cache"
        return OutOfGpuMemory("engine", fault, SMALLER)
    if found := ALLOCATION.search(said):
        fault = f"the GPU is out of memory, {found[1]} more were asked for"
        return OutOfGpuMemory("engine", fault, SMALLER)
    if PLAIN.search(said):
        return OutOfGpuMemory("engine", "the GPU is out of memory", SMALLER)
    return None
