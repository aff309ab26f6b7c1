"""The annotation page's server: one page, its files, and a small JSON interface."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from caliber_pipeline.annotate.formatting import format_text
from caliber_pipeline.annotate.records import Assets, Desk, Records
from caliber_pipeline.annotate.security import CSRF_HEADER, Guard, Session, Sessions
from caliber_pipeline.annotate.transfer import render_export
from caliber_pipeline.core.annotation_events import (
    MAX_NAME_LENGTH,
    MAX_NOTE_LENGTH,
    SEVERITIES,
    AnnotationEvent,
    check_event,
)
from caliber_pipeline.core.column_names import GOLD
from caliber_pipeline.core.conforming import frame_from_arrow
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.stores.annotation_store import AnnotationStore

_HERE: Final = Path(__file__).parent
MAX_BODY_BYTES: Final = 4 << 20  # a batch of MAX_EVENTS notes of full length in a script of three bytes a character
MAX_EVENTS: Final = 50
MAX_RECORDS: Final = 20  # at a time: enough to go on for a while without a connection
MAX_FILTER_PATTERNS: Final = 50
_COOKIE_AGE_S: Final = 30 * 24 * 3600
_FILTERS: Final = (("open", "Not annotated"), ("done", "Annotated"), ("skipped", "Skipped"), ("all", "All records"))

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_NAME_LENGTH)]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SignIn(_Input):
    """What a person says of himself."""

    annotator: Annotated[Name, StringConstraints(pattern=r"^[^\x00-\x1f]+$")]
    token: str = ""


class Change(_Input):
    """One change, as the page sends it."""

    event_id: Name
    record_id: Name
    action: Literal["annotate", "skip", "note", "undo"]
    score: Literal[0, 1] | None = None
    is_skipped: bool = False
    notes: Annotated[Text, Field(max_length=MAX_NOTE_LENGTH)] | None = None
    severity: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    criteria_version: Name | None = None
    saw_judge: bool = False
    saw_others: bool = False
    record_fingerprint: Name | None = None


class Changes(_Input):
    """A batch of changes by the person whom the page takes itself to be of."""

    annotator: Name
    events: list[Change] = Field(max_length=MAX_EVENTS)


class RefusedError(Exception):
    """An answer other than success, as JSON."""

    def __init__(self, status: int, message: str) -> None:
        """Say why.

        Args:
            status: The HTTP status.
            message: For the person.
        """
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class PageSettings:
    """How the page behaves.

    Attributes:
        default_annotator: Who sits at a browser that does not say; None to ask.
        shown_columns: Metadata columns shown with each record; by default none, since they may give a verdict away.
    """

    default_annotator: str | None = None
    shown_columns: tuple[str, ...] = ()


class Page:
    """The routes and what they share."""

    def __init__(self, assets: Assets, store: AnnotationStore, sessions: Sessions, settings: PageSettings) -> None:
        """Put the parts together.

        Args:
            assets: The records.
            store: The history of annotations.
            sessions: The annotators' sessions.
            settings: How the page behaves.
        """
        self._assets = assets
        self._store = store
        self._sessions = sessions
        self._settings = settings
        self._store_id = store.fact("store_id")
        self._desks: dict[str, Desk] = {}
        self._templates = Jinja2Templates(directory=_HERE / "templates")

    def routes(self) -> list[Route | Mount]:
        """All routes."""
        json_route = self._json_route
        return [
            Route("/", self._page),
            Route("/session", json_route(self._sign_in, needs_annotator=False), methods=["POST"]),
            Route("/api/overview", json_route(self._overview)),
            Route("/api/records", json_route(self._list_records)),
            Route("/api/reveal", json_route(self._reveal)),
            Route("/api/events", json_route(self._store_events), methods=["POST"]),
            Route("/api/export/{format}", json_route(self._export)),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ]

    async def _page(self, request: Request) -> Response:
        session = self._session(request)
        if "token" in request.query_params:
            admitted = self._sessions.admit(session, request.query_params["token"])
            response: Response = RedirectResponse("/", status_code=303)  # the token leaves the address bar
            if admitted is not None:
                self._set_cookie(response, admitted)
            return response
        if session.is_admitted and session.annotator is None and self._settings.default_annotator:
            session = replace(session, annotator=self._settings.default_annotator)
        context = {
            "session": session,
            "csrf_token": self._sessions.csrf_token(session),
            "store_id": self._store_id,
            "severities": list(SEVERITIES.items()),
            "max_note_length": MAX_NOTE_LENGTH,
        }
        is_signed_in = session.is_admitted and session.annotator is not None and "who" not in request.query_params
        name = "annotate.html" if is_signed_in else "sign_in.html"
        response = self._templates.TemplateResponse(request, name, context)
        self._set_cookie(response, session)
        return response

    def _json_route(
        self, answer: Callable[[Request, Session, bytes], Any], *, needs_annotator: bool = True
    ) -> Callable[[Request], Any]:
        async def route(request: Request) -> Response:
            try:
                session = self._session(request)
                self._check(request, session, needs_annotator=needs_annotator)
                body = await _read_body(request)
                result = await run_in_threadpool(partial(answer, request, session, body))
            except RefusedError as refusal:
                return JSONResponse({"error": refusal.message}, status_code=refusal.status)
            except (ValidationError, InputError) as error:
                return JSONResponse({"error": _explain(error)}, status_code=400)
            return result if isinstance(result, Response) else JSONResponse(result)

        return route

    def _check(self, request: Request, session: Session, *, needs_annotator: bool) -> None:
        if needs_annotator and not (session.is_admitted and session.annotator):
            raise RefusedError(401, "sign in again")
        token = request.headers.get(CSRF_HEADER)
        if request.method == "POST" and not self._sessions.is_csrf_token(session, token):
            raise RefusedError(403, "the page is out of date; reload it")

    def _session(self, request: Request) -> Session:
        return self._sessions.read(request.cookies.get(self._sessions.cookie_name))

    def _set_cookie(self, response: Response, session: Session) -> None:
        response.set_cookie(
            self._sessions.cookie_name,
            self._sessions.write(session),
            max_age=_COOKIE_AGE_S,
            httponly=True,
            samesite="strict",
        )

    def _sign_in(self, request: Request, session: Session, body: bytes) -> Response:
        given = SignIn.model_validate_json(body)
        if not session.is_admitted:
            admitted = self._sessions.admit(session, given.token)
            if admitted is None:
                raise RefusedError(403, "that is not the token")
            session = admitted
        if given.annotator.lower() == GOLD:
            raise RefusedError(400, f"'{GOLD}' is the name of the labels that came with the records; take another")
        response = JSONResponse({"annotator": given.annotator})
        self._set_cookie(response, replace(session, annotator=given.annotator))
        return response

    def _desk(self, session: Session) -> Desk:
        annotator = session.annotator or ""
        return self._desks.setdefault(annotator, Desk(self._store, annotator))

    def _progress(self, session: Session, records: Records) -> dict[str, int]:
        return self._desk(session).counts(records) | {"total": len(records)}

    def _overview(self, request: Request, session: Session, body: bytes) -> dict[str, Any]:
        records = self._assets.records()
        desk = self._desk(session)
        chosen = [(key, label, "") for key, label in _FILTERS]
        queues = list(records.queues.items())[:MAX_FILTER_PATTERNS]
        chosen += [(key, queue.label, queue.heading) for key, queue in queues]
        return {
            "progress": self._progress(session, records),
            "filters": [
                {"key": key, "label": label, "heading": heading, "count": len(desk.matching(records, key, ""))}
                for key, label, heading in chosen
            ],
            "has_judge": records.judge is not None,
            "criteria": {"version": records.criteria_version, "text": records.criteria_text},
        }

    def _list_records(self, request: Request, session: Session, body: bytes) -> dict[str, Any]:
        query = request.query_params
        records, desk = self._assets.records(), self._desk(session)
        if (record_id := query.get("id")) is not None:
            row = records.row(record_id)
            if row is None:
                raise RefusedError(404, "there is no such record any more")
            desk.counts(records)
            return {"records": [self._show(records, desk, row)], "n_matching": 1}
        filter_ = query.get("filter", "open")
        rows = desk.matching(records, filter_, query.get("q", "").strip()[:200])
        places = records.places(filter_)
        last = records.row(query.get("from", ""))
        wanted = query.get("n", "10")[:4]
        n = min(max(int(wanted), 1), MAX_RECORDS) if wanted.isdecimal() else MAX_RECORDS
        if query.get("direction") == "previous":
            end = len(rows) if last is None else int(np.searchsorted(places[rows], places[last]))
            chosen = np.roll(rows, -end)[::-1][:n]  # backwards from the place on, around the start
        else:
            start = 0 if last is None else int(np.searchsorted(places[rows], places[last], side="right"))
            chosen = np.roll(rows, -start)[:n]
        return {
            "records": [self._show(records, desk, int(row)) for row in chosen if row != last],
            "n_matching": len(rows),
        }

    def _show(self, records: Records, desk: Desk, row: int) -> dict[str, Any]:
        content = records.table.slice(row, 1).to_pylist()[0]
        metadata = dict(content["metadata"] or ())
        fingerprint = records.fingerprint(row)
        shown: dict[str, Any] = {
            "id": content["record_id"], "number": row + 1, "fingerprint": fingerprint, "texts": {}
        }  # fmt: skip
        for name in ("query", "output", "reference"):
            text = content[name]
            if text is not None:
                shown["texts"][name] = {"raw": text, "nodes": format_text(text)}
        shown["metadata"] = [[name, metadata.get(name)] for name in self._settings.shown_columns if metadata.get(name)]
        state = desk.state(content["record_id"])
        is_current = state is None or state.is_about(fingerprint)
        shown["judged_before"] = None
        if state is not None and not is_current:  # the note may still hold, the verdict is on another text
            shown["judged_before"] = None if state.status == "open" else state.status
            state = replace(state, score=None, is_skipped=False)
        shown["state"] = _state(state) if state else None
        return shown

    def _reveal(self, request: Request, session: Session, body: bytes) -> dict[str, Any]:
        record_id = request.query_params.get("id", "")
        if request.query_params.get("what") == "judge":
            return {"judge": self._assets.records().verdict(record_id)}
        states = [state for state in self._store.states_of_record(record_id) if state.annotator != session.annotator]
        return {"others": [{"annotator": s.annotator, **_state(s)} for s in states if s.status != "open"]}

    def _store_events(self, request: Request, session: Session, body: bytes) -> dict[str, Any]:
        given = Changes.model_validate_json(body)
        if given.annotator != session.annotator:
            raise RefusedError(409, f"this browser is now signed in as {session.annotator}; reload the page")
        records = self._assets.records()
        answers: list[dict[str, str]] = []
        sound: list[AnnotationEvent] = []
        for change in given.events:
            answer = {"event_id": change.event_id, "status": "stored"}
            try:
                sound.append(_event(change, given.annotator, records))
            except InputError as error:
                answer |= {"status": "refused", "reason": str(error)}
            answers.append(answer)
        self._store.append(sound)
        return {"results": answers, "progress": self._progress(session, records)}

    def _export(self, request: Request, session: Session, body: bytes) -> Response:
        table, fingerprints = self._store.annotations_with_texts()
        is_own = table["annotator"] == session.annotator
        own = table[is_own]
        records = self._assets.records().table
        format_ = request.path_params["format"]
        if format_ not in {"csv", "label-studio", "argilla"}:
            raise RefusedError(404, f"no format '{format_[:40]}'; take csv, label-studio or argilla")
        is_chosen = np.isin(records.column("record_id").to_numpy(zero_copy_only=False), own["record_id"].to_numpy())
        text, _ = render_export(format_, frame_from_arrow(records.filter(is_chosen)), own, fingerprints[is_own])
        suffix = "csv" if format_ == "csv" else "json"
        return Response(
            text,
            media_type="text/csv" if format_ == "csv" else "application/json",
            headers={"content-disposition": f'attachment; filename="annotations-{format_}.{suffix}"'},
        )


def create_app(
    assets: Assets,
    store: AnnotationStore,
    *,
    hosts: frozenset[str],
    port: int,
    is_open: bool = False,
    token: str | None = None,
    settings: PageSettings | None = None,
) -> Starlette:
    """The ASGI application.

    Args:
        assets: The records.
        store: The history of annotations.
        hosts: Names by which the server may be called.
        port: The port it listens on.
        is_open: It listens beyond loopback.
        token: What a browser must show once; None where none is needed.
        settings: How the page behaves.
    """
    sessions = Sessions(store.fact("session_secret"), token=token, port=port)
    page = Page(assets, store, sessions, settings or PageSettings())
    return Starlette(routes=page.routes(), middleware=[Middleware(Guard, allowed_hosts=hosts, is_open=is_open)])


def _event(change: Change, annotator: str, records: Records) -> AnnotationEvent:
    row = records.row(change.record_id)
    if row is None:
        raise InputError(f"there is no record '{change.record_id[:60]}' any more")
    probability = records.inclusion_probability(row)
    event = AnnotationEvent(annotator=annotator, inclusion_probability=probability, **change.model_dump())
    check_event(event)
    return event


async def _read_body(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError(413, f"more than {MAX_BODY_BYTES:,} bytes at once")
    return body


def _explain(error: ValidationError | InputError) -> str:
    if isinstance(error, InputError):
        return str(error)
    faults = [f"{'.'.join(map(str, e['loc'])) or 'body'}: {e['msg']}" for e in error.errors(include_input=False)]
    return "; ".join(faults[:5])


def _state(event: AnnotationEvent) -> dict[str, Any]:
    return {
        "status": event.status,
        "score": event.score,
        "is_skipped": event.is_skipped,
        "notes": event.notes,
        "severity": event.severity,
    }
