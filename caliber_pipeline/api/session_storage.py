"""A session kept: as a dict, as a JSON file, as files of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from caliber_pipeline.api.session_records import SessionRecords
from caliber_pipeline.core.arguments import PATH, TEXT, accepts

if TYPE_CHECKING:
    from caliber_pipeline.judges.protocol import Judge


class SessionStorage(SessionRecords):
    """Saves and restores what a session holds."""

    def to_dict(self) -> dict[str, Any]:
        """All of the session, ready for JSON; a judge, an encoder and a cache of one's own are not part of it."""
        from caliber_pipeline.api.session_data import content_to_dict

        return {"state": self.state.value, **content_to_dict(self._content)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, judge: Judge | None = None) -> Self:
        """The session that `to_dict` was made from; verdicts in it are not paid for again.

        Raises:
            InputError: the data is no session, or one of another version of this package.
        """
        from caliber_pipeline.api.session_data import content_from_dict

        return cls(judge=judge).resume(content_from_dict(data))

    def to_state(self) -> dict[str, Any]:
        """As `to_dict`, for stores that keep a session's state between requests."""
        return self.to_dict()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], *, judge: Judge | None = None) -> Self:
        """As `from_dict`."""
        return cls.from_dict(state, judge=judge)

    @accepts(path=PATH)
    def save(self, path: str | Path) -> Path:
        """Write the session to a JSON file, whole or not at all.

        Raises:
            InputError: it cannot be written.
        """
        from caliber_pipeline.api.session_data import save_json

        return save_json(self.to_dict(), Path(path))

    @classmethod
    @accepts(path=PATH)
    def load(cls, path: str | Path, *, judge: Judge | None = None) -> Self:
        """The session that `save` wrote.

        Raises:
            InputError: there is no such file, or it holds no session.
        """
        from caliber_pipeline.api.session_data import load_json

        return cls.from_dict(load_json(Path(path)), judge=judge)

    @classmethod
    @accepts(directory=PATH, criteria_version=TEXT.or_none, criteria_dir=PATH.or_none)
    def from_assets(
        cls,
        directory: str | Path,
        criteria_version: str | None = None,
        *,
        criteria_dir: str | Path | None = None,
        judge: Judge | None = None,
    ) -> Self:
        """Open what the pipeline wrote: records, annotations, and the evaluation of one criteria version.

        Args:
            directory: The pipeline's output folder.
            criteria_version: Which version; None takes the champion.
            criteria_dir: Where the criteria files are; None looks beside and below the output folder.
            judge: Who judges from here on.

        Raises:
            InputError: there are no such tables or criteria.
        """
        from caliber_pipeline.api.session_files import open_assets

        folder = Path(criteria_dir) if criteria_dir else None
        return cls(judge=judge).resume(open_assets(Path(directory), criteria_version, folder))

    @accepts(directory=PATH)
    def export(self, directory: str | Path) -> list[Path]:
        """Write files that the pipeline reads: records.csv, annotations.csv, and the criteria as versions.

        `caliber run --records DIR/records.csv --annotations DIR/annotations.csv --output DIR` goes on from there (no
        --annotations where there is no such file). After `iterate` the folder holds every round too, as the tables that
        the pipeline would have stored: nothing is evaluated twice, and the next version has to beat the champion.

        Returns:
            The files that were written.

        Raises:
            MissingStepError: there are no records.
            InputError: other criteria or other evaluations are there already, or nothing can be written.
        """
        from caliber_pipeline.api.session_files import export_content

        upload = self._need_upload("export")
        self._still_valid(None)
        return export_content(self._content, upload, Path(directory), self._open_encoder, datetime.now(UTC))
