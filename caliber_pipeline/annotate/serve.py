"""Starts the annotation page's server."""

import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from caliber_pipeline.annotate.app import PageSettings, create_app
from caliber_pipeline.annotate.records import Assets
from caliber_pipeline.annotate.security import allowed_hosts, check_token, is_loopback
from caliber_pipeline.core.errors import InputError
from caliber_pipeline.stores.annotation_store import AnnotationStore

DEFAULT_PORT: Final = 8765
_BROWSER_PATIENCE_S: Final = 15.0


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Where the page is served, from which records, into which store.

    Attributes:
        assets: The folder with the pipeline's tables.
        records: The records to show as long as that folder has none.
        store: A path of a SQLite file or a database URL.
        criteria: The folder of criteria files; None to show none.
        host: The address to listen on.
        port: The port; 0 for any free one.
        token: Demanded of each browser once; needed beyond loopback.
        allow_hosts: Further names by which the server may be called, as behind a proxy.
        annotator: Who sits at a browser that does not say; None to ask.
        shown_columns: Metadata columns to show with each record.
        opens_browser: Open the page in a browser of this machine.
    """

    assets: Path
    records: pa.Table | None = None
    store: str | Path
    criteria: Path | None = None
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    token: str | None = None
    allow_hosts: tuple[str, ...] = ()
    annotator: str | None = None
    shown_columns: tuple[str, ...] = ()
    opens_browser: bool = True


def serve(settings: ServeSettings, *, say: Callable[[str], None] = lambda _line: None) -> None:
    """Serve the page until the process is told to stop.

    Args:
        settings: What to serve.
        say: Takes lines for the person who started it.

    Raises:
        InputError: no records, an unusable store, a port in use, or no token where one is needed.
    """
    import uvicorn

    check_token(settings.host, settings.token)
    listener = listen(settings.host, settings.port)
    port = listener.getsockname()[1]
    with listener, AnnotationStore(settings.store) as store:
        app = create_app(
            Assets(settings.assets, criteria_folder=settings.criteria, records=settings.records),
            store,
            hosts=allowed_hosts(settings.host, settings.allow_hosts),
            port=port,
            is_open=not is_loopback(settings.host),
            token=settings.token,
            settings=PageSettings(settings.annotator, settings.shown_columns),
        )
        name = "127.0.0.1" if settings.host in {"0.0.0.0", "::"} else settings.host  # noqa: S104
        url = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
        say(f"Annotating {settings.assets} at {url}  (annotations go to {store.name}; Ctrl+C ends)")
        if not is_loopback(settings.host):
            say(f"Others open http://{socket.gethostname()}:{port}/?token=… with the token of CALIBER_ANNOTATE_TOKEN")
        if settings.opens_browser:
            threading.Thread(target=_open_browser, args=(url, settings.token), daemon=True).start()
        config = uvicorn.Config(app, log_level="warning", access_log=False, server_header=False, lifespan="off")
        with suppress(KeyboardInterrupt):  # the usual end; every verdict is in the store by then
            uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the host and port.

    Raises:
        InputError: the port is taken or the host is not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
        except BaseException:
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port} ({error}); give another --port") from error
    return listener


def _open_browser(url: str, token: str | None) -> None:
    host, port = url.removeprefix("http://").rstrip("/").rsplit(":", 1)
    give_up_at = time.monotonic() + _BROWSER_PATIENCE_S
    while time.monotonic() < give_up_at:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            webbrowser.open(f"{url}?token={token}" if token else url)
            return
