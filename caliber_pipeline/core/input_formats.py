"""What input files are called: their formats by suffix."""

from typing import Final

FORMATS: Final = {".csv": "CSV", ".tsv": "CSV", ".jsonl": "JSONL", ".ndjson": "JSONL", ".parquet": "Parquet"}
GZIP: Final = ".gz"


def is_gzippable(format_: str) -> bool:
    """Whether files of a format may be gzipped; Parquet is compressed in itself, and read in pieces."""
    return format_ != "Parquet"


def list_suffixes() -> list[str]:
    """All endings that a file of input may have."""
    return [*FORMATS, *(suffix + GZIP for suffix, format_ in FORMATS.items() if is_gzippable(format_))]
