"""The file of clusters: which layers of which teachers a student learns the mean of.

A JSON mapping; `layers` holds for each cluster its [teacher, layer] pairs, in order.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from skill.utils.errors import SkillError
from skill.utils.files import read_json, write_json


def write_clusters(path: Path, clusters: Sequence[Sequence[str]], facts: Mapping[str, Any]) -> None:
    """Clusters of states named "teacher:layer"; `facts` stand beside them."""
    write_json(
        path, {"layers": [[_pair(name) for name in cluster] for cluster in clusters], **facts}
    )


def read_clusters(path: Path) -> list[list[tuple[str, int]]]:
    """For each cluster its (teacher, layer) pairs.

    Raises:
        SkillError: the file holds no clusters of numbered layers, or one layer twice.
    """
    content = read_json(path)
    clusters = content.get("layers") if isinstance(content, dict) else None
    if not isinstance(clusters, list) or not all(isinstance(c, list) and c for c in clusters):
        raise SkillError("no clusters of (teacher, layer) under `layers`")
    states = [state for cluster in clusters for state in cluster]
    for state in states:
        if not isinstance(state, list) or [type(part) for part in state] != [str, int]:
            raise SkillError(f"layers has {shown(state)}, which is no (teacher, layer)")
        if states.count(state) > 1:
            raise SkillError(f"layers has {shown(state)} twice")
    return [[(name, layer) for name, layer in cluster] for cluster in clusters]


def _pair(name: str) -> list[str | int]:
    model, _, layer = name.rpartition(":")
    return [model, int(layer) if layer.isdigit() else layer]
