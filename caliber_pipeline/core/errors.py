"""Every error that this project raises on purpose, in one tree."""

from collections.abc import Sequence


class CaliberError(Exception):
    """Base of all errors whose message alone tells a person what to do."""


class InputError(CaliberError):
    """A file or argument from outside cannot be used; the message says what, where and what to do."""


class MissingColumnsError(InputError):
    """A file has no column for what it must hold; each surface says in its own way how to name one.

    Attributes:
        fact: Which file lacks what.
        missing: Our names of what it lacks.
        setting: Which setting maps our names to the file's: `columns` or `annotation_columns`.
    """

    def __init__(self, fact: str, missing: Sequence[str], setting: str) -> None:
        """The advice is that of the command line, until a surface gives its own."""
        self.fact = fact
        self.missing = tuple(missing)
        self.setting = setting
        option = f"--{setting.removesuffix('s').replace('_', '-')}"
        super().__init__(self.advise(" ".join(f"{option} {name}=COLUMN" for name in missing)))

    def advise(self, how: str) -> str:
        """The message, with how to name the columns."""
        return f"{self.fact}; name {'it' if len(self.missing) == 1 else 'them'} with {how}"


def describe_read_error(error: OSError | ValueError) -> str:
    """Why a file cannot be read, without the number of the fault and the path again."""
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


class SchemaError(CaliberError):
    """A table does not have the columns, types or nullability that its schema declares."""


class CriteriaError(InputError):
    """A criteria file is invalid, changed after it was evaluated, or names a base that does not exist."""


class JudgeError(CaliberError):
    """The judge as a whole cannot work (no key, unknown model, refused connection); single failures are rows."""


class JudgeSettingsError(InputError, JudgeError):
    """The judge cannot work as it is set up: no key or a wrong one, no model, nothing that answers at the URL."""


class SpendingCapError(CaliberError):
    """The spending cap ended a run before enough was judged; what was judged is kept."""


class DriftAlarmError(CaliberError):
    """The champion agrees less with people on newer labels than it was certified for."""


class ReplyError(CaliberError):
    """A language model's reply is not of the form that it was asked for."""


class MissingStepError(CaliberError):
    """A step was asked for before the step that it needs."""
