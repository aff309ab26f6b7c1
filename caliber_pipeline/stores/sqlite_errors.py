"""What SQLite's errors mean for the file."""

import sqlite3
from typing import Final

_BROKEN: Final = {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}


def is_broken(error: Exception) -> bool:
    """Whether the file is no database, or a damaged one; other errors pass, as a lock or a full disk does."""
    code = getattr(error, "sqlite_errorcode", None)  # absent where not SQLite but Python's module complains
    return code is not None and code & 0xFF in _BROKEN
