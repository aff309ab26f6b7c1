"""`caliber annotate`: the page on which people judge records, and annotations from and to other tools."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from caliber_pipeline.commands.arguments import (
    add_annotation_columns,
    add_columns,
    add_command,
    add_output,
    add_reporting,
)
from caliber_pipeline.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_DEFAULT_PORT = 8765
_EXAMPLES = """\
# the project's records, in a browser of this machine
caliber annotate
# bring in what was annotated elsewhere
caliber annotate --import label_studio.json
# Anna's file, which does not say whose it is
caliber annotate --import anna.csv --annotator anna
# everyone's latest verdicts
caliber annotate --export annotations.csv
# for a team: the token is in the link that each one opens
CALIBER_ANNOTATE_TOKEN=… caliber annotate --host 0.0.0.0 --no-open
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare the command."""
    parser = add_command(
        subparsers,
        "annotate",
        execute,
        summary="judge records by hand, on a page in the browser",
        description="Serve the page on which people accept or reject records; the pipeline reads what they say.",
        examples=_EXAMPLES,
    )
    add = parser.add_argument
    add_output(parser)
    add("--records", type=Path, metavar="FILE", help="records to judge before the first run")
    add_columns(parser)
    add("--store", metavar="URL", help="SQLite file or postgresql:// URL (default: beside the input)")
    add("--port", type=int, default=_DEFAULT_PORT, metavar="N", help=f"default: {_DEFAULT_PORT}; 0 for any free one")
    add("--host", default="127.0.0.1", metavar="ADDRESS", help="beyond loopback CALIBER_ANNOTATE_TOKEN must be set")
    add("--allow-host", action="append", default=[], metavar="NAME", help="a further name of the server")
    add("--annotator", metavar="NAME", help="who judges, or judged the rows of --import that name nobody")
    add("--show", action="append", default=[], metavar="COLUMN", help="show this column with each record")
    add("--no-open", action="store_true", help="do not open a browser")
    add("--import", type=Path, dest="import_", metavar="FILE", help="CSV, JSONL, Parquet; Label Studio, Argilla JSON")
    add_annotation_columns(parser)
    add("--export", type=Path, metavar="FILE", help="write everyone's latest verdicts, and end")
    add("--format", choices=("csv", "label-studio", "argilla"), help="of the export (default: by its suffix)")
    add_reporting(parser, has_json=False)


def execute(arguments: argparse.Namespace) -> None:
    """Import, export, or serve the page.

    Raises:
        InputError: no records, an unusable store or file, a taken port, or no token where one is needed.
    """
    from caliber_pipeline.commands.run import build_settings

    settings = build_settings(arguments)
    if arguments.records is not None and not arguments.records.is_file():
        from caliber_pipeline.core.errors import InputError

        raise InputError(f"{arguments.records}: no such file; give the records as a CSV, JSONL or Parquet file")
    store = arguments.store or settings.annotation_store_url
    records = _unstored_records(settings)
    if arguments.import_ is not None or arguments.export is not None:
        _transfer(arguments, settings, store, records)
        return
    from caliber_pipeline.annotate.serve import ServeSettings, serve

    serve(
        ServeSettings(
            assets=settings.local_output,
            records=records,
            store=store,
            criteria=settings.criteria_folder if settings.criteria_folder.is_dir() else None,
            host=arguments.host,
            port=arguments.port,
            token=os.environ.get("CALIBER_ANNOTATE_TOKEN") or None,
            allow_hosts=tuple(arguments.allow_host),
            annotator=arguments.annotator,
            shown_columns=tuple(arguments.show),
            opens_browser=not arguments.no_open,
        ),
        say=_say,
    )


def _unstored_records(settings: Settings) -> "pa.Table | None":
    """The records of the input file where no run has stored them yet: one may annotate first.

    Raises:
        InputError: other records are stored than those of the file that is named.
    """
    is_stored = (settings.local_output / "records.parquet").exists()
    if not settings.records_file.is_file() or (is_stored and settings.records is None):
        return None
    from caliber_pipeline.core.conforming import arrow_from_frame
    from caliber_pipeline.stores.ingest import load_records

    loaded = load_records(settings)
    if is_stored:
        _refuse_others(settings, loaded.table)
        return None
    if not loaded.rejected.empty:
        first = loaded.rejected.iloc[0]
        _say(
            f"{settings.records_file}: {len(loaded.rejected)} rows are no records and not shown; the first, "
            f"line {first['line']}: {first['reason']}"
        )
    return arrow_from_frame(loaded.table, "records")


def _refuse_others(settings: Settings, records: "pd.DataFrame") -> None:
    """Refuse records that are not stored: the stored ones would be shown, and verdicts on these be lost."""
    from caliber_pipeline.core.errors import InputError
    from caliber_pipeline.core.fingerprints import content_hash_by_id
    from caliber_pipeline.stores.ingest import stored_texts
    from caliber_pipeline.stores.tables import TableStore

    given = content_hash_by_id(records)
    stored = stored_texts(TableStore(str(settings.local_output)), given)
    if others := [record_id for record_id, text in given.items() if stored.get(record_id) != text]:
        raise InputError(
            f"{settings.records_file}: {len(others)} records are not those in {settings.output}, or have other texts "
            f"(the first: '{others[0]}'); run `caliber ingest --records {settings.records_file}` first, or leave out "
            "--records"
        )


def _transfer(arguments: argparse.Namespace, settings: Settings, url: str, unstored: "pa.Table | None") -> None:
    from caliber_pipeline.annotate.transfer import export_annotations, import_annotations, load_records
    from caliber_pipeline.stores.annotation_store import AnnotationStore

    records = load_records(settings.local_output, unstored)
    with AnnotationStore(url) as store:
        if arguments.import_ is not None:
            n_new, n_known, rejected = import_annotations(
                store, arguments.import_, records, settings.annotation_columns, annotator=arguments.annotator
            )
            _say(f"{n_new} annotations imported, {n_known} were there already, {len(rejected)} rows rejected")
            for reason in rejected[:20]:
                _say(f"  {reason}")
        if arguments.export is not None:
            n, n_outdated = export_annotations(store, arguments.export, records, format_=arguments.format)
            _say(f"{n} annotations written to {arguments.export}")
            if n_outdated:
                _say(f"  {n_outdated} left out: their records had another text when they were judged")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
