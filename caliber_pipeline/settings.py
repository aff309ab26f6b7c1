"""Where things lie and how the loop runs: the settings that the environment, the command line and Dagster share."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError, field_validator
from upath import UPath

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.core.input_formats import list_suffixes

DEFAULT_OUTPUT: Final = UPath("data/assets")
DEFAULT_STATE_DIR: Final = Path("data/state")
DEFAULT_CRITERIA_DIR: Final = Path("data/criteria")
DEFAULT_INPUT_DIR: Final = Path("data/input")
LOCAL_PROTOCOLS: Final = frozenset({"", "file", "local"})
CACHE_FOLDER: Final = ".cache"
_SECRET: Final = re.compile("key|token|secret|sig|password|auth", re.IGNORECASE)
_MAY_HOLD_SECRETS: Final = frozenset({"annotation_store", "judge_options", "output", "ray_address"})
PREFIX: Final = "CALIBER_"
STRATEGIES: Final = ("rules", "examples", "rewrite", "gepa")
JUDGES: Final = ("local", "recorded", "openai")


Location = Annotated[UPath, PlainValidator(lambda given: UPath(given)), PlainSerializer(str)]
"""A local folder, or an object store's prefix as `s3://bucket/prefix`."""


class Settings(BaseModel):
    """All settings of a project; none of them is a secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: Location = DEFAULT_OUTPUT
    state_dir: Path | None = None
    records: Path | None = None
    annotations: Path | None = None
    criteria_dir: Path | None = None
    judge: Literal["local", "recorded", "openai"] = "local"
    mode: Literal["live", "batch"] = "live"
    backend: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    ray_workers: int = Field(default=2, ge=1)
    judge_options: dict[str, str | int | float] = Field(default_factory=dict)
    verdict_cache: Path | None = None
    group_by: str | None = None
    columns: dict[str, str] = Field(default_factory=dict)
    annotation_columns: dict[str, str] = Field(default_factory=dict)
    slice_columns: tuple[str, ...] = ()
    consensus: Literal["majority", "dawid_skene"] = "majority"
    kappa_target: float = Field(default=0.6, gt=-1, le=1)
    max_iterations: int = Field(default=3, ge=0)
    drift_anchors: int = Field(default=50, ge=0)
    abstention_alpha: float = Field(default=0.1, gt=0, lt=1)
    abstention_delta: float = Field(default=0.1, gt=0, lt=1)
    strategies: tuple[Literal["rules", "examples", "rewrite", "gepa"], ...] = ()
    max_new_errors: float = Field(default=1.0, ge=0)
    max_loop_cost_usd: float | None = Field(default=None, gt=0)
    recalibration_cron: str = "0 6 * * 1"
    annotation_store: str | None = None
    recalibrate_after: int = Field(default=20, ge=1)

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Self:
        """Read the variables CALIBER_OUTPUT, CALIBER_RECORDS and so on.

        Lists have commas between: CALIBER_COLUMNS and CALIBER_ANNOTATION_COLUMNS are of NAME=COLUMN,
        CALIBER_SLICE_COLUMNS of metadata columns, CALIBER_STRATEGIES of strategies.
        The options of an endpoint have variables of their own, which `judges.openai_settings` reads.

        Raises:
            InputError: a value does not fit; the message names the variable.
        """
        values: dict[str, object] = {
            name: environ[PREFIX + name.upper()]
            for name in cls.model_fields
            if name != "judge_options" and environ.get(PREFIX + name.upper())
        }
        for mapping in ("columns", "annotation_columns"):
            if isinstance(text := values.get(mapping), str):
                values[mapping] = parse_columns(text.split(","))
        for listed in ("slice_columns", "strategies"):
            if isinstance(text := values.get(listed), str):
                values[listed] = tuple(name.strip() for name in text.split(","))
        return cls.checked(values, prefix=PREFIX)

    @classmethod
    def checked(cls, values: Mapping[str, object], *, prefix: str = "") -> Self:
        """Build settings with one line for all that is wrong.

        Raises:
            InputError: a value does not fit.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            faults = "; ".join(_describe_fault(str(e["loc"][0]), e["msg"], e["input"], prefix) for e in error.errors())
            raise InputError(faults) from None  # the cause would show values, passwords among them

    @field_validator("annotation_store")
    @classmethod
    def _has_no_password(cls, url: str | None) -> str | None:
        if url is not None and (secret := find_secret(url, may_name_user=True)):
            raise ValueError(f"holds {secret}, which settings show; put a password in ~/.pgpass or PGPASSWORD")
        return url

    @field_validator("judge_options")
    @classmethod
    def _has_no_password_in_url(cls, options: dict[str, str | int | float]) -> dict[str, str | int | float]:
        if secret := find_secret(str(options.get("base_url", ""))):
            raise ValueError(f"base_url holds {secret}, which settings show; put the key into CALIBER_API_KEY")
        return options

    @property
    def is_default_output(self) -> bool:
        """Whether this is the project's own output, with the criteria folder and the Dagster instance beside it."""
        return not self.is_remote and self.state_folder.resolve() == Path(DEFAULT_OUTPUT.path).resolve()

    @property
    def is_remote(self) -> bool:
        """Whether the tables go to an object store."""
        return self.output.protocol not in LOCAL_PROTOCOLS

    @property
    def local_output(self) -> Path:
        """The output, where it is a local folder.

        Raises:
            InputError: it is not.
        """
        if self.is_remote:
            raise InputError(f"{self.output}: no local folder; this command reads its tables from one")
        return Path(self.output.path)

    @property
    def state_folder(self) -> Path:
        """Where everything lies that is no table: caches, criteria, annotations, the Dagster instance.

        The output itself; where that is no local folder, one of its own on this machine.
        """
        if self.state_dir is not None:
            return self.state_dir
        return DEFAULT_STATE_DIR / self.output.path.strip("/") if self.is_remote else Path(self.output.path)

    @property
    def criteria_folder(self) -> Path:
        """The criteria folder: the project's own for the project's own output, else in the state folder."""
        if self.criteria_dir is not None:
            return self.criteria_dir
        return DEFAULT_CRITERIA_DIR if self.is_default_output else self.state_folder / "criteria"

    @property
    def cache_folder(self) -> Path:
        """Where verdicts and embeddings are kept."""
        return self.state_folder / CACHE_FOLDER

    @property
    def verdict_cache_file(self) -> Path:
        """The verdict cache: where it is set to be, else in the cache folder."""
        return self.verdict_cache or self.cache_folder / "verdicts.sqlite"

    @property
    def records_file(self) -> Path:
        """The records: as set, else the one file of them that lies in data/input.

        Raises:
            InputError: several lie there.
        """
        return self.records or _find_input("records") or DEFAULT_INPUT_DIR / "records.csv"

    @property
    def annotations_file(self) -> Path | None:
        """The annotations: as set; else those in data/input, where the records are from there too.

        Raises:
            InputError: several files of them lie there.
        """
        if self.annotations is not None:
            return self.annotations
        return _find_input("annotations") if self.records is None else None

    @property
    def annotation_store_url(self) -> str:
        """Where the annotation page keeps people's verdicts: as set, else a file beside the input or in the output."""
        if self.annotation_store is not None:
            return self.annotation_store
        return str((DEFAULT_INPUT_DIR if self.is_default_output else self.state_folder) / "annotations.sqlite")

    @property
    def uses_own_input(self) -> bool:
        """Whether the records are those of the project's own input folder."""
        return self.records is None or self.records.resolve() in {path.resolve() for path in _list_input("records")}


def _describe_fault(name: str, message: str, value: object, prefix: str) -> str:
    """What is wrong with a setting, under the name by which it was given: a variable, or an option."""
    given = f"{prefix}{name.upper()}" if prefix else f"--{name.replace('_', '-')}"
    shown = f" is {value}" if name not in _MAY_HOLD_SECRETS else ""
    return f"{given}{shown}: {message.removeprefix('Value error, ')}"


def find_secret(url: str, *, may_name_user: bool = False) -> str | None:
    """What of a URL must not be shown, in words: a user or password, or what looks like a key in its query."""
    if may_name_user and urlsplit(url).password:
        return "a password"
    if not may_name_user and "@" in urlsplit(url).netloc:
        return "a user or password"
    names = (name for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))
    return next((f"'{name}' in its query" for name in names if _SECRET.search(name)), None)


def parse_columns(pairs: list[str]) -> dict[str, str]:
    """Parse NAME=COLUMN pairs.

    Raises:
        InputError: a pair has no '=', or two have one name.
    """
    columns = {}
    for pair in pairs:
        name, separator, column = pair.partition("=")
        if not separator or not name.strip() or not column.strip():
            raise InputError(f"column mapping '{pair}' is not NAME=COLUMN, e.g. output=bot_reply")
        if name.strip() in columns:
            raise InputError(f"column mapping '{pair}': '{name.strip()}' is mapped already; give one column for it")
        columns[name.strip()] = column.strip()
    return columns


def _list_input(stem: str) -> list[Path]:
    paths = (DEFAULT_INPUT_DIR / f"{stem}{suffix}" for suffix in list_suffixes())
    return [path for path in paths if path.exists()]


def _find_input(stem: str) -> Path | None:
    found = _list_input(stem)
    if len(found) > 1:
        raise InputError(f"{found[0]} and {found[1]} are both there; remove one, or name the one to read by --{stem}")
    return found[0] if found else None
