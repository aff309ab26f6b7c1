"""The bytes of an input file: its format by its name, unpacked where it is gzipped, checked to be UTF-8."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.input_formats import FORMATS, GZIP, is_gzippable

_ADVICE: Final = {
    ".json": "write one object per line and name it .jsonl",
    ".txt": "if it is comma-separated, name it .csv",
    ".xls": "save it as UTF-8 CSV",
    ".xlsx": "save it as UTF-8 CSV",
    ".zip": "unpack it",
}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CHUNK_BYTES: Final = 1 << 20


def find_format(path: Path) -> str:
    """CSV, JSONL or Parquet.

    Raises:
        InputError: the file is missing, empty, or of an unknown format.
    """
    if not path.is_file():
        raise InputError(f"{path}: {describe_no_file(path)}; give a CSV, JSONL or Parquet file")
    suffix = (path.with_suffix("") if is_gzipped(path) else path).suffix.lower()
    format_ = FORMATS.get(suffix)
    if format_ is None or (is_gzipped(path) and not is_gzippable(format_)):
        advice = _ADVICE.get(suffix, f"give one of {', '.join(FORMATS)}; CSV and JSONL may be gzipped ({GZIP})")
        raise InputError(f"{path}: unknown format '{path.suffix}'; {advice}")
    with path.open("rb") as file:
        head = file.read(len(_GZIP_MAGIC))
    if not head:
        raise InputError(f"{path}: the file is empty; it needs at least a header and one row")
    if head == _GZIP_MAGIC and not is_gzipped(path):
        raise InputError(f"{path}: is gzipped; name it {path.name}{GZIP}, or unpack it")
    return format_


def describe_no_file(path: Path) -> str:
    """What there is in place of a file, in words."""
    return "is a folder" if path.is_dir() else "no such file"


def is_gzipped(path: Path) -> bool:
    """Whether a file is gzipped, by its name."""
    return path.suffix.lower() == GZIP


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that may be gzipped.

    Raises:
        InputError: it is gzipped but damaged, as far as it is read.
    """
    if not is_gzipped(path):
        with path.open("rb") as plain:
            yield plain
        return
    try:
        with gzip.open(path, "rb") as file:
            yield cast("IO[bytes]", file)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: cannot be unpacked ({error}); pack or copy it again") from error


def read_tail(path: Path, n_bytes: int) -> bytes:
    """The last bytes of a file; of a gzipped one all are unpacked for it."""
    with open_bytes(path) as file:
        if not is_gzipped(path):
            file.seek(max(0, path.stat().st_size - n_bytes))
            return file.read()
        tail = b""
        while chunk := file.read(_CHUNK_BYTES):
            tail = (tail + chunk)[-n_bytes:]
    return tail


def check_utf8(path: Path) -> None:
    """Find the place at which a file is no UTF-8.

    Raises:
        InputError: there is one.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    line = 1
    with open_bytes(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                line += chunk.count(b"\n", 0, max(error.start, 0))
                what = "is UTF-16, not UTF-8" if chunk.startswith(_UTF_16) else f"is not UTF-8 ({error.reason})"
                raise InputError(f"{path}: line {line} {what}; save the file as UTF-8") from None
            line += chunk.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        raise InputError(f"{path}: the last line ends inside a UTF-8 character; save the file again") from None
