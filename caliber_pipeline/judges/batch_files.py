"""The batches of a provider: what was sent under which id, kept in files so that a restart finds it again."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.core.errors import JudgeError
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.stores.shards import temporary_path

if TYPE_CHECKING:
    import openai

ENDPOINT: Final = "/v1/chat/completions"
WINDOW: Final = "24h"
METADATA_KEY: Final = "caliber_batch"
_QUEUE_FULL: Final = "token_limit"  # OpenAI's `token_limit_exceeded`: of the tokens under way in all batches
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


class QueueFullError(JudgeError):
    """The provider takes no more batches until others have ended."""


@dataclass(frozen=True)
class StoredBatch:
    """A batch as its file holds it.

    Attributes:
        name: What it is found by, here and in the provider's metadata: a digest of its custom ids.
        custom_ids: Its lines.
        batch_id: The provider's id; None where the process died before it was known.
    """

    name: str
    custom_ids: tuple[str, ...]
    batch_id: str | None


@dataclass(frozen=True)
class Line:
    """What came back for one request: a chat completion's content, or why there is none."""

    content: Any
    reason: str | None


class BatchFiles:
    """The batches of one folder at one provider."""

    def __init__(self, client: "openai.OpenAI", folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        self._client = client
        self._folder = folder

    def open_batches(self) -> list[StoredBatch]:
        """The batches that were sent and whose results were not all taken yet."""
        batches = []
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(FileNotFoundError):  # another thread has taken its results meanwhile
                batches.append(self._load(path))
        return batches

    def send(self, requests: Mapping[str, Mapping[str, Any]]) -> StoredBatch:
        """Send requests by custom id as one batch.

        That it is about to be sent is noted first, and its name goes along: a process that dies between sending and
        noting the provider's id finds the batch by that name, and pays for it once.
        """
        custom_ids = tuple(requests)
        batch = StoredBatch(digest(*custom_ids)[:32], custom_ids, None)
        self._save(batch)
        lines = (
            {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
            for custom_id, body in requests.items()
        )
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        file = self._client.files.create(file=(f"{batch.name}.jsonl", content), purpose="batch")
        sent = self._client.batches.create(
            input_file_id=file.id,
            endpoint=ENDPOINT,
            completion_window=WINDOW,
            metadata={METADATA_KEY: batch.name},
        )
        return self._save(StoredBatch(batch.name, custom_ids, sent.id))

    def find_sent(self, batch: StoredBatch) -> StoredBatch | None:
        """The batch with its provider's id; None where it never got as far as the provider."""
        if batch.batch_id is not None:
            return batch
        for sent in self._client.batches.list():
            if (sent.metadata or {}).get(METADATA_KEY) == batch.name:
                return self._save(StoredBatch(batch.name, batch.custom_ids, sent.id))
        self.forget(batch)
        return None

    def look(self, batch: StoredBatch) -> "tuple[str, Iterator[tuple[str, Line]]]":
        """The provider's status of a batch, and the lines that came back, once it has ended.

        Raises:
            QueueFullError: the provider refused the batch because too much is under way.
            JudgeError: the provider refused the batch for another reason.
        """
        assert batch.batch_id is not None  # noqa: S101 `find_sent` gives it
        seen = self._client.batches.retrieve(batch.batch_id)
        if seen.status == "failed":
            faults = (seen.errors.data if seen.errors else None) or []
            words = "; ".join(fault.message or fault.code or "" for fault in faults[:3]) or "no reason given"
            self.forget(batch)
            is_full = any((fault.code or "").startswith(_QUEUE_FULL) for fault in faults)
            raise (QueueFullError if is_full else JudgeError)(f"the provider refused batch {batch.batch_id}: {words}")
        if seen.status not in ENDED:
            return seen.status, iter(())
        return seen.status, self._lines([seen.output_file_id, seen.error_file_id])

    def forget(self, batch: StoredBatch) -> None:
        """Take a batch off the list: all that it gave is taken."""
        self._path(batch.name).unlink(missing_ok=True)

    def _lines(self, file_ids: Sequence[str | None]) -> Iterator[tuple[str, Line]]:
        for file_id in file_ids:
            if file_id is not None:
                for text in self._client.files.content(file_id).text.splitlines():
                    if text.strip():
                        yield _parse_line(text)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _load(self, path: Path) -> StoredBatch:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return StoredBatch(path.stem, tuple(stored["custom_ids"]), stored["batch_id"])

    def _save(self, batch: StoredBatch) -> StoredBatch:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(batch.name)
        temporary = temporary_path(self._folder, path.name)
        temporary.write_text(json.dumps({"batch_id": batch.batch_id, "custom_ids": batch.custom_ids}), encoding="utf-8")
        temporary.replace(path)
        return batch


def _parse_line(text: str) -> tuple[str, Line]:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        return "", Line(None, "the line is not JSON")
    custom_id, response, error = str(line.get("custom_id", "")), line.get("response") or {}, line.get("error") or {}
    if response.get("status_code") == 200:
        return custom_id, Line(response.get("body"), None)
    words = (
        error.get("message") or ((response.get("body") or {}).get("error") or {}).get("message") or "no reason given"
    )
    return custom_id, Line(None, f"HTTP {response.get('status_code', 'none')}: {words}")
