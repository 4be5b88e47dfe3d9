"""Accuracy of methods on clips whose answers are known, all methods on the same clips."""

from holitom.evaluation.results import Log, Row
from holitom.evaluation.run import evaluate, label
from holitom.evaluation.statistics import KINDS, LEAKING, Interval, accuracy_table, paired_bootstrap

__all__ = ["KINDS", "LEAKING", "Interval", "Log", "Row", "accuracy_table", "evaluate", "label", "paired_bootstrap"]
