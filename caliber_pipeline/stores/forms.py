"""Forms that people fill in: records as CSV, with blank columns for a verdict on each."""

import csv
from pathlib import Path
from typing import Final

import pandas as pd
from upath import UPath

from caliber_pipeline.core.errors import InputError

_TO_FILL_IN: Final = ("annotator", "score", "notes")


def refuse_to_overwrite(path: Path | None) -> None:
    """Check that a form may be written: an earlier one is replaced only where nobody has filled in anything.

    Args:
        path: Where; None for nowhere.

    Raises:
        InputError: a folder or another file is there, or a form with verdicts.
    """
    if path is None or not path.exists():
        return
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a CSV file in it")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            is_form = {"record_id", *_TO_FILL_IN} <= set(rows.fieldnames or ())
            n_filled_in = sum(any((row[name] or "").strip() for name in _TO_FILL_IN) for row in rows) if is_form else 0
    except (OSError, ValueError, csv.Error):
        is_form, n_filled_in = False, 0
    if not is_form:
        raise InputError(f"{path}: is there already, and no form to fill in; name another file")
    if n_filled_in:
        raise InputError(
            f"{path}: {n_filled_in} of its rows are filled in; take them in with `caliber run --annotations {path}`, "
            f"or name another file"
        )


def write_form(path: Path | UPath, records: pd.DataFrame) -> None:
    """Write the records with blank columns to fill in, over what is there.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            records.assign(**dict.fromkeys(_TO_FILL_IN, "")).to_csv(file, index=False)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
