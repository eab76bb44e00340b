"""The SUPERB tasks: frozen upstream, learned weighted sum of its states, a light head per task.

The verbs' functions are looked up when called: what `predict` does is no reason to train a head
again, so the modules do not import each other through here. For a code fingerprint name the module
that works: `skill.superb.evaluation`, `.cost`, `.table`.
"""

from importlib import import_module
from typing import Any


def run(*arguments: Any, **named: Any) -> None:
    """The verb `superb`: one upstream on one task; see `evaluation.run`."""
    import_module("skill.superb.evaluation").run(*arguments, **named)


def size(*arguments: Any, **named: Any) -> None:
    """The verb `size`: parameters, MACs and real-time factor; see `cost.run`."""
    import_module("skill.superb.cost").run(*arguments, **named)


def scores(*arguments: Any, **named: Any) -> None:
    """The verb `scores`: all results in one table; see `table.run`."""
    import_module("skill.superb.table").run(*arguments, **named)


def predict(*arguments: Any, **named: Any) -> None:
    """The verb `predict`: a trained head on one's own files; see `prediction.run`."""
    import_module("skill.superb.prediction").run(*arguments, **named)
