"""An advice that shows itself and says how to apply it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from batchlab import _html
from batchlab._text import Language, usual_language
from batchlab.advisor import record
from batchlab.errors import ResultError, cannot_read
from batchlab.patching import Patch, make
from batchlab.report.brief import summary
from batchlab.report.notebook import first_screen

FILE = "advice.json"


class Advice(record.Advice):
    """What ``batchlab.advise`` returns: the record, with what can be done with it.

    In a notebook it is the first screen of the report. ``apply`` gives the change as a patch,
    ``params`` is flat, for other tools: ``optuna.Study.enqueue_trial(advice.params)``.
    """

    @classmethod
    def of(cls, made: record.Advice) -> Advice:
        """The same record.

        Args:
            made: An advice.
        """
        return cls(**vars(made))

    @staticmethod
    def load(path: str | Path) -> Advice:
        """Read an advice back.

        Args:
            path: Result directory of ``advise``, or its ``advice.json``.

        Raises:
            ResultError: If there is none.
        """
        file = Path(path) / FILE if Path(path).is_dir() else Path(path)
        if not file.is_file():
            raise ResultError(f"`{path}` holds no result of batchlab advise ({FILE} is missing).")
        try:
            return Advice.of(record.Advice.load(file))
        except (OSError, ValueError, TypeError, KeyError) as error:
            unknown = isinstance(error, TypeError | KeyError)
            why = "it is no advice" if unknown else str(error).splitlines()[0]
            raise cannot_read(file, why) from error

    def apply(
        self,
        kind: str = "auto",
        file: str | Path | Iterable[str | Path] = (),
        *,
        world_size: int | None = None,
        micro_batch_size: int | None = None,
    ) -> Patch:
        """The change as a patch for your own script; nothing is written.

        Args:
            kind: ``pytorch``, ``lightning`` or ``huggingface``; ``auto``: what the script calls,
                and without a script, how the task was made.
            file: Your script, or several that belong together. Left out, the lines are those to
                write by hand.
            world_size: Processes that train together; what the script says if left out.
            micro_batch_size: Largest micro-batch that fits where you train; what was measured
                here if left out. The batch is kept by accumulation.

        Returns:
            A patch whose ``str`` is read by ``git apply -p0``; its ``write`` changes the script.

        Raises:
            UserError: With one sentence about what is wrong.
        """
        files = [file] if isinstance(file, str | Path) else file
        return make(self, kind, files, world_size=world_size, micro_batch_size=micro_batch_size)

    def html(self, language: Language | None = None) -> str:
        """The first screen of the report, for a notebook.

        Args:
            language: ``en`` or ``ja``; what the locale says if left out.
        """
        return first_screen(self, language or usual_language())

    def __str__(self) -> str:
        """The report in ten lines."""
        return summary(self)

    def _repr_html_(self) -> str:
        """For notebooks."""
        return self.html()

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, str]:
        """For IPython, which would write the whole record beside the first screen."""
        return _html.bundle(self.html(), str(self))
