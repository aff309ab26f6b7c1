"""The batches of a provider: sends them, looks at them, and notes them in a folder so that a restart finds them."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from caliber_pipeline.core.errors import JudgeError, JudgeSettingsError
from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.judges.openai_settings import OpenAIJudgeSettings, shown_url
from caliber_pipeline.stores.batch_folder import BatchFolder, StoredBatch, take_sample

if TYPE_CHECKING:
    import openai

_log = logging.getLogger(__name__)

ENDPOINT: Final = "/v1/chat/completions"
WINDOW: Final = "24h"
METADATA_KEY: Final = "caliber_batch"
_QUEUE_FULL: Final = "token_limit"  # OpenAI's `token_limit_exceeded`: of the tokens under way in all batches
_POLL_TIMEOUT_S: Final = 20.0  # a sensor's tick ends after a minute
_POLLED_AT_ONCE: Final = 16
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


class QueueFullError(JudgeError):
    """The provider takes no more batches until others have ended."""


@dataclass(frozen=True)
class Line:
    """What came back for one request: a chat completion's content, or why there is none."""

    content: Any
    reason: str | None


@dataclass(frozen=True)
class BatchProgress:
    """How far batches are at the provider.

    Attributes:
        n_batches: How many there are.
        n_ended: Those of them that have ended, in whatever way.
        n_answered: Their lines that were answered, as far as the provider tells.
    """

    n_batches: int
    n_ended: int
    n_answered: int

    def __str__(self) -> str:
        """In words."""
        return f"{self.n_ended} of {self.n_batches} have ended, {self.n_answered:,} records answered"


@contextmanager
def open_client(settings: OpenAIJudgeSettings) -> "Iterator[openai.OpenAI]":
    """A client of the endpoint, closed at the end.

    Raises:
        JudgeError: the endpoint refuses something, or does not answer.
    """
    import openai

    url, key = settings.endpoint_url, settings.key
    with (
        openai.AzureOpenAI(azure_endpoint=url, api_version=settings.api_version, api_key=key)
        if settings.provider_name == "azure"
        else openai.OpenAI(base_url=url, api_key=key, max_retries=settings.max_retries)
    ) as client:
        try:
            yield client
        except openai.APIError as error:
            words = error.body.get("message") if isinstance(error.body, dict) else None
            reason = str(words or error.__cause__ or error).replace(key, "***")
            kind = JudgeSettingsError if isinstance(error, openai.AuthenticationError) else JudgeError
            raise kind(f"batches of {settings.provider_name} at {shown_url(url)}: {reason}") from None


class BatchFiles:
    """The batches of one folder at one provider."""

    def __init__(self, client: "openai.OpenAI", folder: BatchFolder) -> None:
        """Use a folder, which need not exist yet."""
        self._client = client
        self._folder = folder

    def send(self, requests: Mapping[str, Mapping[str, Any]]) -> StoredBatch:
        """Send requests by custom id as one batch.

        That it is about to be sent is noted first, and its name goes along: a process that dies between sending and
        noting the provider's id finds the batch by that name, and pays for it once.
        """
        import openai

        is_alone = not self._folder.load_all()
        batch = StoredBatch(
            name=digest(*requests)[:32],
            n_requests=len(requests),
            sent_at=datetime.now(UTC).isoformat(),
            is_alone=is_alone,
            sample=take_sample(list(requests)),
        )
        self._folder.save(batch, requests)
        lines = (
            {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
            for custom_id, body in requests.items()
        )
        content = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
        try:
            file = self._client.files.create(file=(f"{batch.name}.jsonl", content), purpose="batch")
            batch = replace(batch, file_id=file.id)
            sent = self._client.batches.create(
                input_file_id=file.id,
                endpoint=ENDPOINT,
                completion_window=WINDOW,
                metadata={METADATA_KEY: batch.name},
            )
        except openai.APIStatusError:  # it was refused, so that there is nothing to be found
            self.discard(batch)
            raise
        batch = replace(batch, batch_id=sent.id)
        self._folder.save(batch, requests)
        return batch

    def find_sent(self, batch: StoredBatch) -> StoredBatch | None:
        """The batch with its provider's id; None where it never got as far as the provider."""
        if batch.batch_id is not None:
            return batch
        for sent in self._client.batches.list():
            if (sent.metadata or {}).get(METADATA_KEY) == batch.name:
                found = replace(batch, batch_id=sent.id, file_id=sent.input_file_id)
                self._folder.save(found, self._folder.load_custom_ids(batch))
                return found
        self._folder.forget(batch)
        return None

    def look(self, batch: StoredBatch) -> "tuple[str, Iterator[tuple[str, Line]]]":
        """The provider's status of a batch, and the lines that came back, once it has ended.

        Raises:
            QueueFullError: the provider refused the batch because too much is under way.
            JudgeError: the provider refused the batch for another reason, or does not know it.
        """
        assert batch.batch_id is not None  # noqa: S101 `find_sent` gives it
        with self._needs(batch, "does not know"):
            seen = self._client.batches.retrieve(batch.batch_id)
        if seen.status == "failed":
            faults = (seen.errors.data if seen.errors else None) or []
            words = "; ".join(fault.message or fault.code or "" for fault in faults[:3]) or "no reason given"
            self.discard(batch)
            is_full = any((fault.code or "").startswith(_QUEUE_FULL) for fault in faults)
            refusal = f"the provider refused batch {batch.batch_id} of {batch.n_requests} records: {words}"
            if is_full:
                raise QueueFullError(f"{refusal}; run again when other batches of this account have ended")
            raise JudgeError(f"{refusal}; correct that and run again")
        if seen.status not in ENDED:
            return seen.status, iter(())
        return seen.status, self._lines(batch, [seen.output_file_id, seen.error_file_id])

    def discard(self, batch: StoredBatch) -> None:
        """Take a batch off the list, and delete what was uploaded for it: all that it gave is taken."""
        import openai

        self._folder.forget(batch)
        if batch.file_id is None:
            return
        try:
            self._client.with_options(timeout=_POLL_TIMEOUT_S, max_retries=0).files.delete(batch.file_id)
        except openai.APIError as error:  # the verdicts are there all the same
            _log.warning("%s is still at the provider (%s); delete it there", batch.file_id, type(error).__name__)

    @contextmanager
    def _needs(self, batch: StoredBatch, fault: str) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.NotFoundError:
            raise JudgeError(
                f"the provider {fault} batch {batch.batch_id}, sent {batch.sent_at[:16]}: another account's key, "
                f"or too long ago; to have its {batch.n_requests} records asked again remove {self._folder.path(batch)}"
            ) from None

    def poll(self, batches: Sequence[StoredBatch]) -> BatchProgress:
        """How far the batches are; one that the provider does not know has ended, and the next run says so."""
        import openai

        impatient = self._client.with_options(timeout=_POLL_TIMEOUT_S, max_retries=0)

        def retrieve(batch: StoredBatch) -> "openai.types.Batch | None":
            try:
                return None if batch.batch_id is None else impatient.batches.retrieve(batch.batch_id)
            except openai.NotFoundError:
                return None

        with ThreadPoolExecutor(_POLLED_AT_ONCE) as executor:
            found = list(executor.map(retrieve, batches))
        n_ended = sum(seen is None or seen.status in ENDED for seen in found)
        counts = [seen.request_counts for seen in found if seen is not None and seen.request_counts is not None]
        return BatchProgress(len(batches), n_ended, sum(count.completed + count.failed for count in counts))

    def _lines(self, batch: StoredBatch, file_ids: Sequence[str | None]) -> Iterator[tuple[str, Line]]:
        for file_id in file_ids:
            if file_id is not None:
                with self._needs(batch, "has no results any more of"):
                    content = self._client.files.content(file_id).content
                # not `splitlines`, which splits texts too, at U+2028 and others that JSON leaves as they are
                for text in content.split(b"\n"):
                    if text.strip():
                        yield _parse_line(text)


def _parse_line(text: bytes) -> tuple[str, Line]:
    try:
        line = json.loads(text)
    except ValueError:
        return "", Line(None, "the line is not JSON")
    custom_id, response, error = str(line.get("custom_id", "")), line.get("response") or {}, line.get("error") or {}
    if response.get("status_code") == 200:
        return custom_id, Line(response.get("body"), None)
    words = (
        error.get("message") or ((response.get("body") or {}).get("error") or {}).get("message") or "no reason given"
    )
    return custom_id, Line(None, f"HTTP {response.get('status_code', 'none')}: {words}")
