"""A small file of named arrays with a JSON record, for checkpoints: checked before anything is allocated, written so that it is whole or absent.

Layout: the line ``cqpde container 1``, the length of the JSON record (8 bytes, little endian), the SHA-256 of the record, the record, and the
bytes of the arrays one after another. The record names every array with its type, shape, order of the axes in memory (sums over an array
depend on that in the last bit) and SHA-256. Nothing in it is code and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FileError

Array = np.ndarray

MAGIC = b"cqpde container 1\n"

#: Types of arrays in a file.
TYPES = ("<f8", "<c16", "<f4", "<c8", "<i8", "<i4", "<u8", "<u4", "|i1", "|u1", "|b1")

#: Longest record.
MOST_RECORD = 1 << 26


def write(path: Path, arrays: dict[str, Array], record: dict[str, Any]) -> None:
    """Write a file: beside its name first, synced, renamed, the folder synced.

    Raises
    ------
    FileError
        If it cannot be written (disk full, permission); the file that was there stays.
    """
    entries, flats = [], []
    for name, given in arrays.items():
        array = np.asarray(given)
        order = sorted(range(array.ndim), key=lambda i: -abs(array.strides[i]))
        flat = np.ascontiguousarray(array.transpose(order))
        kind = flat.dtype.newbyteorder("<").str
        if kind not in TYPES:
            raise FileError(str(path), "a checkpoint holds numbers only", f"{name}: {array.dtype}", "Return numbers from save= and moments=")
        flat = flat.astype(kind, copy=False).reshape(-1)
        entries.append({"name": name, "type": kind, "shape": list(array.shape), "order": order, "sha256": hashlib.sha256(flat.view(np.uint8).data).hexdigest()})
        flats.append(flat)
    text = json.dumps({"record": record, "arrays": entries}).encode()
    beside = path.with_name(f".{path.name}.part")
    try:
        with open(beside, "wb") as handle:
            handle.write(MAGIC + len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text)
            for flat in flats:
                handle.write(flat.view(np.uint8).data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(beside, path)
        sync_folder(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        need = len(text) + sum(flat.nbytes for flat in flats)
        raise FileError(
            str(path), "could not be written", f"{error.strerror or error}", f"It needs {in_bytes(need)}, {in_bytes(free_bytes(path.parent))} are free there"
        ) from error


def read(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read a file; sizes and digests are checked against what the record says, sizes before anything is allocated.

    Raises
    ------
    FileError
        If it is missing, not such a file, cut off, or damaged.
    """

    def refuse(rule: str, found: object) -> FileError:
        return FileError(str(path), rule, found, "It is damaged or not one of cqpde's")

    try:
        length = path.stat().st_size
        with open(path, "rb") as handle:
            if handle.read(len(MAGIC)) != MAGIC:
                raise refuse("must be a container of cqpde", "other bytes at its start")
            size, digest = int.from_bytes(handle.read(8), "little"), handle.read(32)
            start = len(MAGIC) + 40
            if size > min(MOST_RECORD, length - start):
                raise refuse("its record must lie inside the file", f"{size} bytes of {length}")
            text = handle.read(size)
            if hashlib.sha256(text).digest() != digest:
                raise refuse("its record must match its digest", "other bytes")
            stored = json.loads(text)
            entries = [_entry(e) for e in stored["arrays"]]
            if start + size + sum(n for *_, n in entries) != length:
                raise refuse("its length must be that of its arrays", f"{length} bytes")
            arrays = {}
            for name, kind, shape, order, sha, n in entries:
                data = np.empty(n, dtype=np.uint8)
                handle.readinto(data.data)
                if hashlib.sha256(data.data).hexdigest() != sha:
                    raise refuse(f"the array {name!r} must match its digest", "other bytes")
                flat = data.view(kind).reshape([shape[i] for i in order])
                arrays[name] = flat.transpose(np.argsort(order).tolist()) if order else flat.reshape(())
            return arrays, dict(stored["record"])
    except OSError as error:
        raise refuse("must be a readable file", error.strerror or str(error)) from None
    except (KeyError, TypeError, ValueError, RecursionError, OverflowError, AttributeError) as error:
        raise refuse("must hold a record of arrays", str(error)[:100]) from None


def _entry(entry: dict[str, Any]) -> tuple[str, str, tuple[int, ...], list[int], str, int]:
    shape, order = tuple(entry["shape"]), list(entry["order"])
    if entry["type"] not in TYPES or sorted(order) != list(range(len(shape))) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array of unknown type or shape")
    size = np.dtype(entry["type"]).itemsize
    for n in shape:
        size *= n
    return str(entry["name"]), entry["type"], shape, order, str(entry["sha256"]), size


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a loss of power (where folders can be synced)."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of a folder."""
    return shutil.disk_usage(folder).free


def in_bytes(number: float) -> str:
    """A number of bytes in words: ``3.2 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"
