"""Looks for known plaintext in files: any 16 bytes in a row of any known content, at any offset.

A run of 16 shared bytes holds nine windows of 8 bytes, one of which begins at an offset that 9 divides. So all
8-byte windows of what is known go into a set, and of the files only every ninth window is looked up; both happen
inside the interpreter's C code, some 100 MB/s on one core. A window that is found is then compared byte by byte.

Windows of fewer than four different bytes are left out: runs of zeros or spaces are in any file.
"""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

RUN_BYTES = 16
WINDOW_BYTES = 8
STRIDE_BYTES = RUN_BYTES - WINDOW_BYTES + 1
DISTINCT_BYTES_MIN = 4
# Read at a time; pieces overlap by a run, so that none hides at a border.
PIECE_BYTES = 9 << 20
# More hits than this say nothing new.
HITS_MAX = 20


@dataclass(frozen=True)
class Hit:
    """Known bytes found in a file."""

    path: Path
    offset: int
    known: str
    sample: bytes

    def __str__(self) -> str:
        return f"{self.path} at {self.offset}: {self.sample!r} of {self.known}"


@dataclass
class Result:
    """What was scanned and what was found."""

    files: int = 0
    bytes: int = 0
    hits: list[Hit] = field(default_factory=list)


class Known:
    """A collection of contents that must not be found."""

    def __init__(self) -> None:
        self._contents: list[tuple[str, bytes]] = []
        self._windows: set[int] = set()

    def add(self, name: str, content: bytes, encoded: bool = False) -> None:
        """Adds a content; with `encoded`, also in the forms that a header or a JSON file would give it."""
        if len(content) < RUN_BYTES:
            raise ValueError(f"{name} has {len(content)} bytes: too few to be told from chance")
        self._add(name, content)
        if encoded:
            self._add(f"{name} in hex", content.hex().encode())
            for cut in range(3):
                # Base64 looks different at each of three alignments; the ends depend on neighbours.
                self._add(f"{name} in base64", base64.b64encode(content[cut:])[:-4])

    def _add(self, name: str, content: bytes) -> None:
        if len(content) < RUN_BYTES:
            return
        self._contents.append((name, content))
        for shift in range(WINDOW_BYTES):
            end = shift + (len(content) - shift) // WINDOW_BYTES * WINDOW_BYTES
            windows = chain.from_iterable(struct.iter_unpack("<Q", content[shift:end]))
            self._windows.update(w for w in windows if _telling(w))

    @property
    def windows(self) -> int:
        return len(self._windows)

    @property
    def bytes(self) -> int:
        return sum(len(content) for _, content in self._contents)

    def contents(self) -> list[tuple[str, bytes]]:
        """Names and contents, in the order in which they were added."""
        return list(self._contents)

    def __len__(self) -> int:
        return len(self._contents)

    def scan(self, *roots: Path, skip: tuple[Path, ...] = ()) -> Result:
        """Scans every file below the roots but those in `skip`."""
        result = Result()
        for path in sorted(set(chain.from_iterable(_files(root) for root in roots))):
            if path not in skip:
                self._scan_file(path, result)
        return result

    def _scan_file(self, path: Path, result: Result) -> None:
        try:
            file = path.open("rb")
        except FileNotFoundError:
            return  # Removed since it was listed, as a running server's files may be.
        with file:
            result.files += 1
            start, tail = 0, b""
            while piece := file.read(PIECE_BYTES):
                result.bytes += len(piece)
                data = tail + piece
                self._scan_piece(path, start - len(tail), data, result)
                start += len(piece)
                tail = data[-(RUN_BYTES - 1) :]

    def _scan_piece(self, path: Path, start: int, data: bytes, result: Result) -> None:
        padded = data + b"\0" * (-len(data) % STRIDE_BYTES)
        found = self._windows.intersection(chain.from_iterable(struct.iter_unpack("<Qx", padded)))
        for window in found:
            if len(result.hits) >= HITS_MAX:
                return
            if hit := self._confirm(path, start, data, struct.pack("<Q", window)):
                result.hits.append(hit)

    def _confirm(self, path: Path, start: int, data: bytes, window: bytes) -> Hit | None:
        """The first place where the window is part of a shared run of 16 bytes."""
        for offset in _all_offsets(data, window):
            for name, content in self._contents:
                for at in _all_offsets(content, window):
                    before = _common(data[max(0, offset - RUN_BYTES) : offset][::-1], content[max(0, at - RUN_BYTES) : at][::-1])
                    after = _common(data[offset : offset + RUN_BYTES], content[at : at + RUN_BYTES])
                    if before + after >= RUN_BYTES:
                        return Hit(path, start + offset - before, name, content[at - before : at + after])
        return None


def _telling(window: int) -> bool:
    return len(set(window.to_bytes(WINDOW_BYTES, "little"))) >= DISTINCT_BYTES_MIN


def _files(root: Path) -> list[Path]:
    return [root] if root.is_file() else [p for p in root.rglob("*") if p.is_file() and not p.is_symlink()]


def _all_offsets(data: bytes, part: bytes):
    at = data.find(part)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)


def _common(a: bytes, b: bytes) -> int:
    length = 0
    for x, y in zip(a, b):
        if x != y:
            break
        length += 1
    return length
