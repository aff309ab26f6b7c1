"""People's annotations in a database of events that only grows: SQLite by default, PostgreSQL by URL."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from caliber_pipeline.core.annotation_events import EVENT_FIELDS, EVENTS, AnnotationEvent, check_event
from caliber_pipeline.core.annotation_imports import EPOCH, ImportedRow, Place, place_of, select_news
from caliber_pipeline.core.column_names import GOLD
from caliber_pipeline.core.conforming import conform_table, frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.schemas import ANNOTATIONS

_BUSY_TIMEOUT_S: Final = 60.0
_LAYOUT_VERSION: Final = "2"
_LOCK_KEY: Final = 0x63616C69  # of PostgreSQL's advisory lock that lets one writer in at a time
_TICK: Final = timedelta(microseconds=1)
_N_ASKED: Final = 500  # records that one query asks for; the oldest SQLite takes 999 values

_METADATA: Final = sa.MetaData()
_BIG_ID: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_EVENTS: Final = sa.Table(
    "annotation_events",
    _METADATA,
    sa.Column("seq", _BIG_ID, primary_key=True, autoincrement=True),
    sa.Column("event_id", sa.Text, nullable=False, unique=True),
    sa.Column("record_id", sa.Text, nullable=False),
    sa.Column("annotator", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("score", sa.SmallInteger),
    sa.Column("is_skipped", sa.Boolean, nullable=False),
    sa.Column("notes", sa.Text),
    sa.Column("severity", sa.Double),
    sa.Column("criteria_version", sa.Text),
    sa.Column("inclusion_probability", sa.Double),
    sa.Column("saw_judge", sa.Boolean, nullable=False),
    sa.Column("saw_others", sa.Boolean, nullable=False),
    sa.Column("record_fingerprint", sa.Text),
    sa.Column("created_at", sa.BigInteger, nullable=False),  # microseconds since 1970 UTC: equal on every database
    sa.Index("annotation_events_by_pair", "record_id", "annotator", "created_at", "seq"),
    sa.Index("annotation_events_by_annotator", "annotator", "seq"),
)
_FACTS: Final = sa.Table(
    "annotation_store", _METADATA, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text)
)
_GUARDS: Final[Mapping[str, tuple[str, ...]]] = {
    "sqlite": (
        "CREATE TRIGGER IF NOT EXISTS annotation_events_keep_{verb} BEFORE {verb} ON annotation_events "
        "BEGIN SELECT RAISE(ABORT, 'annotation events are never changed'); END",
    ),
    "postgresql": (
        "CREATE OR REPLACE FUNCTION annotation_events_keep() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'annotation events are never changed'; END $$",
        "CREATE OR REPLACE TRIGGER annotation_events_keep_{verb} BEFORE {verb} ON annotation_events "
        "FOR EACH ROW EXECUTE FUNCTION annotation_events_keep()",
    ),
}


class AnnotationStore:
    """An append-only history of annotations, safe for several threads, processes and machines at once.

    Nothing is ever changed or removed: every verdict, note, skip and undo is an event, and a person's judgment of a
    record is that person's latest event on it. Writers take turns, so that the order of `seq` is the order in which
    events became visible. An event that arrives twice is stored once.
    """

    def __init__(self, url: str | Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Open or create the store.

        Args:
            url: A path of a SQLite file, or an SQLAlchemy URL (`sqlite:///…`, `postgresql://…`).
            clock: The time of events that bring none.

        Raises:
            InputError: the database cannot be reached, is no annotation store, or is of a later layout.
        """
        self._clock = clock
        self._url = parse_store_url(url)
        self._engine = _create_engine(self._url)
        self._is_sqlite = self._engine.dialect.name == "sqlite"
        # SQLite's own waiting is by polling and not fair; threads of one process queue here instead
        self._turn: AbstractContextManager[object] = threading.Lock() if self._is_sqlite else nullcontext()
        try:
            self._prepare()
        except (OSError, SQLAlchemyError) as error:
            self.close()
            raise InputError(
                f"{self.name}: not usable as annotation store ({_reason(error)}); check the URL or name another"
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The store's URL without its password."""
        return self._url.render_as_string(hide_password=True)

    def __enter__(self) -> Self:
        """Return the open store."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def append(self, events: Sequence[AnnotationEvent]) -> list[bool]:
        """Store events in their order, in one transaction.

        An event without a time gets the store's, moved past the latest one of the same person on the same record,
        so that the last one stored is the last one in time whatever the clock does.

        Returns:
            Per event whether it is new; False where its id was there already.

        Raises:
            InputError: an event cannot be meant; nothing is stored.
        """
        for event in events:
            check_event(event)
        with self._writing() as connection:
            return [self._append_one(connection, event) for event in events]

    def import_annotations(
        self,
        annotations: pd.DataFrame,
        fingerprints: Sequence[str | None] | None = None,
        *,
        current: Sequence[str | None] | None = None,
    ) -> int:
        """Store annotations of the `annotations` schema; the same ones again change nothing.

        Among imports of one person's verdict on one record at one time the last one counts: a verdict that is set
        back is set back. A row without a time is taken for earlier than all that people did here.

        Args:
            annotations: The annotations.
            fingerprints: Per row that of the record's text which was judged, None where that is not told.
            current: Per row that of the record's text as it is now: a new row that tells none is about this one.

        Returns:
            How many were new.

        Raises:
            InputError: an annotation cannot be meant; nothing is stored.
        """
        table = pa.table({c: pa.array(annotations[c], from_pandas=True) for c in ANNOTATIONS.names})
        rows = conform_table(table, ANNOTATIONS, "annotations").drop_columns(["is_gold"]).to_pylist()
        unknown = [None] * len(rows)
        said = [ImportedRow(*row) for row in zip(rows, fingerprints or unknown, current or unknown, strict=True)]
        with self._writing() as connection:
            news = select_news(said, self._latest_imports(connection, sorted({row["record_id"] for row in rows})))
            for event in news:
                check_event(event)
            if news:
                connection.execute(sa.insert(_EVENTS), [_stored(event, event.created_at or EPOCH) for event in news])
        return len(news)

    def state(self, record_id: str, annotator: str) -> AnnotationEvent | None:
        """Where one person's judgment of one record stands; None where the person never touched it."""
        chosen = sa.and_(_EVENTS.c.record_id == record_id, _EVENTS.c.annotator == annotator)
        query = sa.select(_EVENTS).where(chosen).order_by(_EVENTS.c.created_at.desc(), _EVENTS.c.seq.desc()).limit(1)
        with self._reading() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _event(row)

    def states_of_record(self, record_id: str) -> list[AnnotationEvent]:
        """Where everyone's judgment of one record stands, by annotator's name."""
        with self._reading() as connection:
            rows = connection.execute(_latest(_EVENTS.c.record_id == record_id)).mappings().all()
        return sorted((_event(row) for row in rows), key=lambda event: event.annotator)

    def changes(self, annotator: str, *, after: int = 0) -> tuple[list[AnnotationEvent], int]:
        """One person's events after a place in the history, oldest first, and the place of the last one."""
        query = sa.select(_EVENTS).where(_EVENTS.c.annotator == annotator, _EVENTS.c.seq > after)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(_EVENTS.c.seq)).mappings().all()
        return [_event(row) for row in rows], rows[-1]["seq"] if rows else after

    def annotations(self) -> pd.DataFrame:
        """Each person's latest verdict per record, in the `annotations` schema; skipped and undone ones have none."""
        return self.annotations_with_texts()[0]

    def annotations_with_texts(self) -> tuple[pd.DataFrame, pd.Series]:
        """The same, and per row the fingerprint of the record's text that was judged, null where not known."""
        with self._reading() as connection:
            table = _table(connection.execute(_latest(sa.true())), EVENTS)
        judged = table.filter(table.column("score").is_valid())
        at = judged.column("created_at")
        timed = pc.if_else(pc.equal(at, pa.scalar(EPOCH, at.type)), pa.scalar(None, at.type), at)
        judged = judged.set_column(judged.column_names.index("created_at"), "created_at", timed)
        judged = judged.append_column("is_gold", pc.equal(judged.column("annotator"), GOLD))
        judged = judged.sort_by([("record_id", "ascending"), ("annotator", "ascending")])
        conformed = conform_table(judged.select(ANNOTATIONS.names), ANNOTATIONS, "annotations")
        return frame_from_arrow(conformed), frame_from_arrow(judged.select(["record_fingerprint"])).iloc[:, 0]

    def history(self) -> pd.DataFrame:
        """Every event that was ever stored, in the layout EVENTS, oldest first."""
        with self._reading() as connection:
            return frame_from_arrow(_table(connection.execute(sa.select(_EVENTS).order_by(_EVENTS.c.seq)), EVENTS))

    def last_seq(self) -> int:
        """The place of the latest event; 0 for an empty store. It grows with every change."""
        with self._reading() as connection:
            return connection.execute(sa.select(sa.func.max(_EVENTS.c.seq))).scalar() or 0

    def n_changed(self, *, after: int) -> int:
        """How many judgments, of one person on one record each, have changed since a place in the history."""
        moved = sa.and_(_EVENTS.c.seq > after, _EVENTS.c.action.in_(("annotate", "undo", "import")))
        pairs = sa.select(_EVENTS.c.record_id, _EVENTS.c.annotator).where(moved).distinct().subquery()
        with self._reading() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(pairs)).scalar_one()

    def fact(self, name: str) -> str:
        """A random value that belongs to this store for good, made at the first asking."""
        with self._writing() as connection:
            return self._fact(connection, name, secrets.token_urlsafe(32))

    def _append_one(self, connection: sa.Connection, event: AnnotationEvent) -> bool:
        if connection.execute(sa.select(_EVENTS.c.seq).where(_EVENTS.c.event_id == event.event_id)).first():
            return False
        created_at = event.created_at
        if created_at is None:
            chosen = sa.and_(_EVENTS.c.record_id == event.record_id, _EVENTS.c.annotator == event.annotator)
            latest = connection.execute(sa.select(sa.func.max(_EVENTS.c.created_at)).where(chosen)).scalar()
            created_at = self._clock()
            if latest is not None:
                created_at = max(created_at, _moment(latest) + _TICK)
        connection.execute(sa.insert(_EVENTS), _stored(event, created_at))
        return True

    def _latest_imports(self, connection: sa.Connection, record_ids: Sequence[str]) -> dict[Place, AnnotationEvent]:
        """The last imported event of each place of these records."""
        latest = {}
        for start in range(0, len(record_ids), _N_ASKED):
            asked = _EVENTS.c.record_id.in_(record_ids[start : start + _N_ASKED])
            query = sa.select(_EVENTS).where(asked, _EVENTS.c.action == "import").order_by(_EVENTS.c.seq)
            events = [_event(row) for row in connection.execute(query).mappings()]
            latest.update({place_of(event): event for event in events})
        return latest

    def _prepare(self) -> None:
        if self._is_sqlite and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        with self._writing() as connection:
            _METADATA.create_all(connection)
            for verb in ("UPDATE", "DELETE"):
                for statement in _GUARDS.get(self._engine.dialect.name, ()):
                    connection.exec_driver_sql(statement.format(verb=verb))
            layout = self._fact(connection, "layout", _LAYOUT_VERSION)
        if layout != _LAYOUT_VERSION:
            raise InputError(
                f"{self.name}: an annotation store of layout {layout}, but this package reads {_LAYOUT_VERSION}; "
                "update the package or name another store"
            )

    def _fact(self, connection: sa.Connection, name: str, default: str) -> str:
        found = connection.execute(sa.select(_FACTS.c.value).where(_FACTS.c.name == name)).scalar()
        if found is None:
            connection.execute(sa.insert(_FACTS), {"name": name, "value": default})
        return default if found is None else found

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._turn, self._engine.execution_options(is_writing=True).begin() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as connection:
            yield connection


def parse_store_url(url: str | Path) -> sa.URL:
    """The SQLAlchemy URL of a store given as URL or as path of a SQLite file.

    Raises:
        InputError: it is neither.
    """
    text = str(url)
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(Path(text)))
    try:
        parsed = sa.make_url(text)
    except (SQLAlchemyError, ValueError):
        raise InputError("the store's URL cannot be read; give sqlite:///FILE or postgresql://HOST/DATABASE") from None
    if parsed.drivername in {"postgresql", "postgres"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in _GUARDS:
        raise InputError(f"no annotation store on '{parsed.drivername}'; give sqlite:///FILE or postgresql://…")
    return parsed


def find_store(url: str) -> AnnotationStore | None:
    """The store, opened; None where it is a file that nobody has made yet.

    Raises:
        InputError: as AnnotationStore.
    """
    parsed = parse_store_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        return None
    return AnnotationStore(url)


def _reason(error: OSError | SQLAlchemyError) -> str:
    """What is wrong in the system's or the database's own words, without the statement."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()[0]


def _create_engine(url: sa.URL) -> sa.Engine:
    is_sqlite = url.get_backend_name() == "sqlite"
    settings: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}} if is_sqlite else {"pool_pre_ping": True}
    try:
        engine = sa.create_engine(url, pool_size=8, max_overflow=32, **settings)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise InputError(
            f"{url.render_as_string()}: the database's driver is missing ({error}); "
            "pip install 'caliber-pipeline[postgres]'"
        ) from error
    if is_sqlite:
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:  # noqa: ANN401 - a DBAPI connection has no type
    connection.isolation_level = None  # SQLAlchemy's begin, below, and not the driver's
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").close()
            connection.execute("PRAGMA synchronous = FULL").close()  # a verdict that was answered for outlives a crash
        except connection.OperationalError as error:  # the switch to WAL does not wait by itself
            if "locked" not in str(error) or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: sa.Connection) -> None:
    is_writing = connection.get_execution_options().get("is_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")


def _latest(condition: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The latest event per record and annotator among those that meet the condition."""
    latest_first = (_EVENTS.c.created_at.desc(), _EVENTS.c.seq.desc())
    place = sa.func.row_number().over(partition_by=(_EVENTS.c.record_id, _EVENTS.c.annotator), order_by=latest_first)
    ranked = sa.select(_EVENTS, place.label("place")).where(condition).subquery()
    return sa.select(*(ranked.c[name] for name in EVENTS.names)).where(ranked.c.place == 1)


def _table(result: sa.CursorResult[Any], schema: pa.Schema) -> pa.Table:
    rows = result.all()
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)


def _event(row: sa.RowMapping) -> AnnotationEvent:
    values = {name: row[name] for name in EVENT_FIELDS}
    return AnnotationEvent(**(values | {"created_at": _moment(row["created_at"])}))


def _stored(event: AnnotationEvent, created_at: datetime) -> dict[str, object]:
    """An event's row as the database keeps it."""
    row = {name: getattr(event, name) for name in EVENT_FIELDS}
    return row | {"created_at": (created_at - EPOCH) // _TICK}


def _moment(microseconds: int) -> datetime:
    return EPOCH + timedelta(microseconds=microseconds)
