"""A file as bytes or as text, whatever it is packed or encoded in.

Packing is told by the first bytes, not by the name: files are renamed more often than rewritten.
"""

import bz2
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from thinktune.schema.errors import DataInvalid

_BOMS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
SKIPPED_FRAME = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""A frame without content, with which pzstd begins a file."""
_PACKED: tuple[tuple[bytes, Callable[[IO[bytes]], IO[bytes]]], ...] = (
    (b"\x1f\x8b", lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file))),
    (ZSTD_MAGIC, lambda file: cast(IO[bytes], _Zstandard(file))),
    (b"BZh", lambda file: bz2.BZ2File(file)),
    (b"\xfd7zXZ\x00", lambda file: lzma.LZMAFile(file)),  # noqa: SIM115 - closed by its user
)
PACKING_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
ZIP_MAGIC = b"PK\x03\x04"
PARQUET_MAGIC = b"PAR1"
_FAULTS = (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile)


class _Zstandard(io.RawIOBase):
    """Frames one after the other. The library's own reader takes a file that is cut off for one
    that ends."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = b""
        self._frame = self._new()

    @staticmethod
    def _new() -> Any:
        return zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()

    def readable(self) -> bool:
        """As of any file that is read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """The next bytes. Raises EOFError in the middle of a frame."""
        while not self._left:
            read = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame = self._new()
            data = read or self._file.read(1 << 16)
            if not data:
                if self._started:
                    raise EOFError("it ends in the middle of a frame")
                return 0
            self._left = self._frame.decompress(data)
            self._started = not self._frame.eof
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size

    _started = False


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """The content, unpacked. Raises DataInvalid: not there, empty, a zip archive, cut off."""
    if not path.is_file():
        raise DataInvalid(str(path), "no such file", "check data.path")
    if path.stat().st_size == 0:
        raise DataInvalid(str(path), "the file is empty", "check how it was written")
    try:
        with path.open("rb") as file:
            magic = file.read(8)
            if SKIPPED_FRAME.match(magic):
                magic = ZSTD_MAGIC
            file.seek(0)
            if magic.startswith(ZIP_MAGIC):
                fault = "a zip archive (or an Excel workbook)"
                remedy = "unzip it, or save the sheet as CSV UTF-8, and name that file"
                raise DataInvalid(str(path), fault, remedy)
            unpack = next((how for start, how in _PACKED if magic.startswith(start)), None)
            if unpack is None:
                yield file
            else:
                with unpack(file) as unpacked:
                    yield cast(IO[bytes], io.BufferedReader(cast(io.RawIOBase, unpacked), 1 << 20))
    except _FAULTS as error:
        fault = f"the packed file is damaged or cut off ({error})"
        raise DataInvalid(str(path), fault, "write or copy the file again") from None


@contextmanager
def open_text(path: Path, *, newline: str | None) -> Iterator[io.TextIOWrapper]:
    """The content as text. Bytes that are not of its encoding become half surrogates, which
    `records.UNDECODED` finds. Raises DataInvalid as `open_bytes` does, and for a Parquet file."""
    with open_bytes(path) as file:
        start = cast(io.BufferedReader, file).peek(8)[:8]
        if start.startswith(PARQUET_MAGIC):
            fault = "the name says text, the content is Parquet"
            raise DataInvalid(str(path), fault, f"rename it to {path.stem}.parquet")
        try:
            yield io.TextIOWrapper(
                cast(io.BufferedReader, file), _encoding(start), "surrogateescape", newline=newline
            )
        except UnicodeDecodeError as error:
            fault = f"not {error.encoding} text, which its first bytes announce"
            raise DataInvalid(str(path), fault, "save the file as UTF-8") from None


def _encoding(start: bytes) -> str:
    for mark, name in _BOMS:
        if start.startswith(mark):
            return name
    # Text begins with an ASCII character in all formats that we read; UTF-16 writes a zero with it.
    if len(start) >= 4 and start[1] == start[3] == 0 and start[0] and start[2]:
        return "utf-16-le"
    if len(start) >= 4 and start[0] == start[2] == 0 and start[1] and start[3]:
        return "utf-16-be"
    return "utf-8"
