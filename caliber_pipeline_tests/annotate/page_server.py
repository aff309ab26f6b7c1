import threading
import time
from pathlib import Path

import uvicorn

from caliber_pipeline.annotate.app import PageSettings, create_app
from caliber_pipeline.annotate.records import Assets
from caliber_pipeline.annotate.security import allowed_hosts
from caliber_pipeline.annotate.serve import listen
from caliber_pipeline.stores.annotation_store import AnnotationStore


class PageServer:
    """The annotation page on a loopback port, in a thread; can be stopped and started again on the same port."""

    def __init__(
        self,
        assets: Path,
        store_url: str,
        *,
        criteria: Path | None = None,
        token: str | None = None,
        settings: PageSettings | None = None,
    ) -> None:
        self._assets = assets
        self._store_url = store_url
        self._criteria = criteria
        self._token = token
        self._settings = settings
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        listener = listen("127.0.0.1", self.port)
        self.port = listener.getsockname()[1]
        self.store = AnnotationStore(self._store_url)
        app = create_app(
            Assets(self._assets, criteria_folder=self._criteria),
            self.store,
            hosts=allowed_hosts("127.0.0.1"),
            port=self.port,
            token=self._token,
            settings=self._settings,
        )
        config = uvicorn.Config(app, log_level="error", access_log=False, lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)
        self._listener.close()
        self.store.close()
