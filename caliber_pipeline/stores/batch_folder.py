"""What is under way at a provider, kept in a folder so that a restart, a sensor or another command finds it.

FOLDER/NAME.batch    a line of JSON about one batch, then its custom ids, one a line
"""

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from caliber_pipeline.core.fingerprints import digest
from caliber_pipeline.stores.shards import temporary_path

_SUFFIX: Final = ".batch"
_MAX_SAMPLE: Final = 64


@dataclass(frozen=True)
class StoredBatch:
    """A batch as its file tells of it.

    Attributes:
        name: What it is found by, here and in the provider's metadata: a digest of its custom ids.
        n_requests: Its lines.
        sent_at: When it was sent, as ISO 8601 in UTC.
        batch_id: The provider's id; None where the process died before it was known.
        is_alone: Whether no other batch of the folder was under way when it was sent.
        sample: Custom ids from all over it, or all where they are few: whose records it holds, without reading more.
        file_id: The provider's id of the file that was uploaded for it; None where it is not known.
    """

    name: str
    n_requests: int
    sent_at: str
    batch_id: str | None = None
    is_alone: bool = False
    sample: tuple[str, ...] = ()
    file_id: str | None = None


class BatchFolder:
    """The batches whose results were not all taken yet, for one table of one criteria version."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        self._folder = folder

    def load_all(self) -> list[StoredBatch]:
        """The batches by their names; their custom ids stay in the files."""
        batches = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8") as file:  # just taken, perhaps
                stored = json.loads(file.readline())
                batches.append(StoredBatch(**stored | {"sample": tuple(stored["sample"])}))
        return batches

    def load_custom_ids(self, batch: StoredBatch) -> tuple[str, ...]:
        """A batch's lines, in their order; none where its results were taken meanwhile."""
        try:
            return tuple(self.path(batch).read_text(encoding="utf-8").splitlines()[1:])
        except FileNotFoundError:
            return ()

    def save(self, batch: StoredBatch, custom_ids: Iterable[str]) -> None:
        """Keep a batch, in place of what was known of it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self.path(batch)
        temporary = temporary_path(self._folder, path.name)
        temporary.write_text("\n".join([json.dumps(asdict(batch)), *custom_ids, ""]), encoding="utf-8")
        temporary.replace(path)

    def forget(self, batch: StoredBatch) -> None:
        """Take a batch off the list: all that it gave is taken."""
        self.path(batch).unlink(missing_ok=True)

    def path(self, batch: StoredBatch) -> Path:
        """The batch's file."""
        return self._folder / f"{batch.name}{_SUFFIX}"


def take_sample(custom_ids: Sequence[str]) -> tuple[str, ...]:
    """A batch's sample: a batch of which half is still asked for is missed by it once in 10^9 times."""
    return tuple(custom_ids[:: -(-len(custom_ids) // _MAX_SAMPLE)])


def identify(batches: Iterable[StoredBatch]) -> str:
    """Equal for the same batches of the provider; records that are sent again make another one."""
    return digest(*(f"{batch.name}:{batch.batch_id}" for batch in batches))[:16]


def describe_batches(batches: Iterable[StoredBatch]) -> str:
    """How many batches are under way, of how many records, and since when."""
    listed = list(batches)
    n_requests = sum(batch.n_requests for batch in listed)
    what = "1 batch is" if len(listed) == 1 else f"{len(listed)} batches are"
    since = min((batch.sent_at for batch in listed), default="")
    sent = f", sent {datetime.fromisoformat(since).astimezone(UTC):%Y-%m-%d %H:%M} UTC" if since else ""
    return f"{what} under way at the provider, of {n_requests:,} records{sent}"
