"""The criteria folder: one immutable YAML file per version."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from caliber_pipeline.core.criteria import VERSION_PATTERN, Criteria, next_version, parse_criteria, render_criteria
from caliber_pipeline.core.errors import CriteriaError, InputError, describe_read_error


@dataclass(frozen=True)
class CriteriaListing:
    """What a criteria folder holds.

    Attributes:
        valid: The criteria by version, in the order of the names.
        invalid: By file name why a file is no criteria version: half-written, ill-formed, or misnamed.
    """

    valid: Mapping[str, Criteria]
    invalid: Mapping[str, str]


class CriteriaFiles:
    """Reads and adds criteria files; changes and removes none."""

    def __init__(self, folder: Path) -> None:
        """Use a folder, which need not exist yet."""
        self.folder = folder

    def load_all(self) -> CriteriaListing:
        """Read every criteria file.

        Raises:
            InputError: the folder cannot be read; that is not the same as an empty one.
        """
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.suffix in {".yaml", ".yml"})
        except OSError as error:
            raise InputError(f"{self.folder}: cannot read the criteria folder ({error.strerror})") from error
        valid, invalid = {}, {}
        for path in paths:
            try:
                valid[path.stem] = self._load(path)
            except CriteriaError as error:
                invalid[path.name] = str(error)
        return CriteriaListing(valid, invalid)

    def load(self, version: str) -> Criteria:
        """Read one version.

        Raises:
            CriteriaError: there is no such file, or it is not valid.
        """
        return self._load(self.folder / f"{version}.yaml")

    def add(self, criteria: Criteria) -> str:
        """Write the next free numbered version; a number that another process takes meanwhile is left to it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        while True:
            version = next_version([path.stem for path in self.folder.iterdir()])
            if self.add_as(version, criteria):
                return version

    def add_as(self, version: str, criteria: Criteria) -> bool:
        """Write a version under its name, whole or not at all; False where there is one already."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / f".{version}.{uuid.uuid4().hex}"
        temporary.write_text(render_criteria(criteria), encoding="utf-8")
        try:
            # a link, unlike a rename, fails where the name is taken
            (self.folder / f"{version}.yaml").hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    @staticmethod
    def _load(path: Path) -> Criteria:
        if not VERSION_PATTERN.fullmatch(path.stem):
            raise CriteriaError(f"{path}: '{path.stem}' is no version name; use letters, digits, '.', '_' and '-'")
        if path.suffix == ".yml":
            raise CriteriaError(f"{path}: rename it to {path.stem}.yaml")
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise CriteriaError(
                f"{path}: no such criteria file; write one there (a line such as 'criteria: Accept what answers the "
                f"question.'), or set CALIBER_CRITERIA_DIR to the folder that has it"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise CriteriaError(f"{path}: cannot be read ({describe_read_error(error)})") from error
        return parse_criteria(text, source=str(path))
