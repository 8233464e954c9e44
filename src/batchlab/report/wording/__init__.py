"""The sentences of the first screen, each a pure function of the record, in two languages."""

from __future__ import annotations

from batchlab.report.wording import part
from batchlab.report.wording.headline import answer, changes, headline, reason
from batchlab.report.wording.lines import alone, engineer, next_step, not_tested, settings_line
from batchlab.report.wording.meeting import meeting
from batchlab.report.wording.phrases import goal
from batchlab.report.wording.row import Row
from batchlab.report.wording.rows import head, on_all, table
from batchlab.report.wording.top import circumstances, date, interrupted, stage, title

__all__ = [
    "Row",
    "alone",
    "answer",
    "changes",
    "circumstances",
    "date",
    "engineer",
    "goal",
    "head",
    "headline",
    "interrupted",
    "meeting",
    "next_step",
    "not_tested",
    "on_all",
    "part",
    "reason",
    "settings_line",
    "stage",
    "table",
    "title",
]
