"""What the groups depend on: the commands `stability` and `sensitivity`.

How little calibration audio is enough, and how much does the clustering method matter? The SKILL
paper leaves both open.

Axes: L states.
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from skill.config.jobs import StudyJob
from skill.similarity.clustering import LINKAGES, Array, Dendrogram, Groups
from skill.similarity.hsic import align
from skill.similarity.layer_states import LayerStates, read_stacks
from skill.similarity.stability import adjusted_rand, bootstrap, co_membership, subsets
from skill.similarity.steps import curve_rows
from skill.utils.errors import SkillError
from skill.utils.files import write_csv
from skill.utils.progress import track

STUDY_COLUMNS = [
    "kernel", "linkage", "seconds", "frames", "clusters", "cka_error", "rand_all", "rand_all_low",
    "rand_repeat", "rand_repeat_low", "rand_default",
]  # fmt: skip


def run_stability(activations: Sequence[Path], job: StudyJob, matrix: Path, curve: Path) -> None:
    """The bootstrap over calibration utterances, always with HSIC_1.

    `matrix` has one row per state: its group, and how often each state shares its group.
    `curve` has one row per number of groups: silhouette, height, the mean adjusted Rand index
    between resamples with its 5 % and 95 % quantiles, and whether the number was chosen.

    Raises:
        SkillError: as the command `similarity`, or groups that the states do not allow.
    """
    stack = read_stacks(activations).first(job.similarity.max_frames)
    full, resamples = _resampled(stack, job)
    tree = _tree(full, stack, job)
    chosen = tree.chosen(job.clustering.num_clusters)
    trees = [_tree(cka, stack, job) for cka in resamples]
    groups = tree.cut(chosen)
    shared = co_membership([other.cut(chosen) for other in trees], len(stack.names))
    label = {state: number for number, group in enumerate(groups) for state in group}
    rows = [
        {"state": name, "cluster": label.get(state, "")}
        | {other: float(v) for other, v in zip(stack.names, shared[state], strict=True)}
        for state, name in enumerate(stack.names)
    ]
    write_csv(matrix, rows, ["state", "cluster", *stack.names])
    points = curve_rows(tree, chosen)
    for point in points:
        partitions = [other.cut(point["clusters"]) for other in trees]
        values = [adjusted_rand(a, b) for a, b in combinations(partitions, 2)] or [1.0]
        low, high = np.quantile(values, [0.05, 0.95])
        point |= {"rand": float(np.mean(values)), "rand_low": float(low), "rand_high": float(high)}
    columns = ["clusters", "silhouette", "height", "rand", "rand_low", "rand_high", "chosen"]
    write_csv(curve, points, columns)


def run_study(activations: Sequence[Path], job: StudyJob, output: Path) -> None:
    """The study of calibration audio, linkage and kernel: one row for each combination.

    For each amount of audio, `studies.resamples` random sets of utterances are drawn.
    `cka_error`: mean difference of CKA from that of all audio; `rand_all`: mean adjusted Rand
    index between the groups and those of all audio, `rand_repeat`: between the groups of two
    disjoint sets (empty where the audio does not hold two), both with their 10 % quantile;
    `rand_default`: between the groups and those of the configured linkage and kernel on all audio.

    Raises:
        SkillError: as the command `similarity`; or a file without the utterances' lengths.
    """
    stack = read_stacks(activations).first(job.similarity.max_frames)
    if stack.seconds is None:
        raise SkillError(f"{activations[0]}: does not say how many seconds its utterances last")
    numbers = {int(number) for number in stack.utterance.unique()}
    total = sum(stack.seconds[number] for number in numbers)
    rate = len(stack.utterance) / total
    amounts = [s for s in sorted(job.studies.seconds) if s < total] + [total]
    kernels = sorted(["linear", "rbf"], key=lambda kernel: kernel != job.similarity.kernel)
    reference: Groups | None = None
    rows: list[dict[str, Any]] = []
    with track(2 * len(amounts), "study") as progress:
        for kernel in kernels:
            sums = stack.sums(
                kernel=kernel,
                bandwidth=job.similarity.bandwidth,
                standardize=job.similarity.standardize,
            )
            full = align(sums.hsic(sums.sizes * 0 + 1), stack.names).numpy()
            if reference is None:
                tree = _tree(full, stack, job)
                count = tree.chosen(job.clustering.num_clusters)
                reference = tree.cut(count)
            for seconds in amounts:
                frames = round(seconds * rate)
                draws = 1 if seconds == total else job.studies.resamples
                pairs = list(subsets(sums, frames, draws, job.seed))
                error = float(np.mean([_difference(first, full) for first, _ in pairs]))
                for linkage in LINKAGES:
                    of_all = _tree(full, stack, job, linkage).cut(count)
                    first = [_tree(a, stack, job, linkage).cut(count) for a, _ in pairs]
                    second = [
                        None if b is None else _tree(b, stack, job, linkage).cut(count)
                        for _, b in pairs
                    ]
                    against_all = [adjusted_rand(groups, of_all) for groups in first]
                    repeat = [
                        adjusted_rand(a, b)
                        for a, b in zip(first, second, strict=True)
                        if b is not None
                    ]
                    rows.append(
                        {
                            "kernel": kernel,
                            "linkage": linkage,
                            "seconds": float(seconds),
                            "frames": frames,
                            "clusters": count,
                            "cka_error": error,
                            "rand_all": float(np.mean(against_all)),
                            "rand_all_low": float(np.quantile(against_all, 0.1)),
                            "rand_repeat": float(np.mean(repeat)) if repeat else "",
                            "rand_repeat_low": float(np.quantile(repeat, 0.1)) if repeat else "",
                            "rand_default": float(
                                np.mean([adjusted_rand(groups, reference) for groups in first])
                            ),
                        }
                    )
                progress.update(len(rows) // len(LINKAGES))
    write_csv(output, rows, STUDY_COLUMNS)


def _resampled(stack: LayerStates, job: StudyJob) -> tuple[Array, list[Array]]:
    section = job.similarity
    sums = stack.sums(
        kernel=section.kernel, bandwidth=section.bandwidth, standardize=section.standardize
    )
    full = align(sums.hsic(sums.sizes * 0 + 1), stack.names).numpy()
    resamples = []
    with track(job.studies.resamples, "stability") as progress:
        for resample in bootstrap(sums, job.studies.resamples, job.seed):
            resamples.append(resample)
            progress.update(len(resamples))
    return full, resamples


def _tree(cka: Array, stack: LayerStates, job: StudyJob, linkage: str | None = None) -> Dendrogram:
    section = job.clustering
    return Dendrogram(
        cka,
        linkage or section.linkage,
        section.contiguous,
        state0=section.state0,
        model_of_layer=stack.stacks,
    )


def _difference(one: Array, two: Array) -> float:
    above = np.triu_indices(len(one), 1)
    return float(np.abs(one[above] - two[above]).mean())
