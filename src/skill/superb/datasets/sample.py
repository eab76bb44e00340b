"""Examples of the sample scale's tasks, from the manifests of corpora with real speech.

PR and ASR: transcripts. SID: characters of Amazon Queen (a character is a voice, an actor may have
several). KS: Hedgewars phrases; in each fold the test voices are heard in no other split.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from skill.config.tasks import Task
from skill.data.manifest import Utterance
from skill.superb.datasets import constructed
from skill.superb.datasets.common import SHORTEST, example_of, split, transcripts
from skill.superb.examples import Fold, group_folds, hashed, with_crops
from skill.utils.errors import SkillError


def speakers(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """SID among the speakers with `min_clips` clips or more, and with some in each split.

    In a second fold dev and test change places: as many test clips again, of which pretraining and
    distillation have heard as little.
    """
    usable = [u for u in utterances if u.speaker and u.samples >= SHORTEST]
    clips = Counter(u.speaker for u in usable)
    fewest = max(task.min_clips, 3)
    complete = [
        {u.speaker for u in usable if u.split == split} for split in ("train", "dev", "test")
    ]
    names = tuple(sorted(s for s in set.intersection(*complete) if clips[s] >= fewest))
    if len(names) < 2:
        raise SkillError(
            f"{task.name}: fewer than two speakers have {fewest} clips, and some in each split"
        )
    number = {name: index for index, name in enumerate(names)}
    selected: list[Utterance] = []
    for name in names:
        ranked = sorted((u for u in usable if u.speaker == name), key=lambda u: hashed(u.id))
        selected += ranked[: task.max_clips]
    known = sum(clips[name] for name in names)
    left_out = {
        "speaker with few clips": len(usable) - known,
        "more clips than a speaker may have": known - len(selected),
    }
    examples = [(u.split, example_of(task, u, (number[u.speaker],))) for u in selected]
    fold = split(task, examples, labels=(names,), left_out=left_out)
    folds = [fold, replace(fold, dev=fold.test, test=fold.dev)][: task.folds]
    return [
        replace(fold, train=with_crops(fold.train, task.crop_seconds, task.crops)) for fold in folds
    ]


def phrases(task: Task, utterances: Sequence[Utterance]) -> list[Fold]:
    """KS among the phrases that `min_clips` voices or more say; folds of unseen voices."""
    usable = [
        u
        for u in utterances
        if u.speaker and u.text and u.language == "en" and u.samples >= SHORTEST
    ]
    voices = Counter(phrase for phrase, _ in {(u.text, u.speaker) for u in usable})
    fewest = max(task.min_clips, 3)
    names = tuple(sorted(p for p, count in voices.items() if count >= fewest))
    groups = group_folds((u.speaker for u in usable), task.folds)
    if len(names) < 2 or not all(groups):
        raise SkillError(
            f"{task.name}: {len(names)} phrases in {len({u.speaker for u in usable})} voices, said "
            f"by {fewest} voices or more, do not make "
            f"{task.folds} folds of unseen voices"
        )
    number = {name: index for index, name in enumerate(names)}
    left_out = {"phrase of few voices": sum(u.text not in number for u in usable)}
    folds = []
    for fold in range(task.folds):
        test, dev = groups[fold], groups[(fold + 1) % task.folds]
        examples = [
            ("test" if u.speaker in test else "dev" if u.speaker in dev else "train",
             example_of(task, u, (number[u.text],)))
            for u in usable if u.text in number
        ]  # fmt: skip
        folds.append(split(task, examples, labels=(names,), left_out=left_out))
    return folds


SAMPLE: dict[str, Callable[[Task, Sequence[Utterance]], list[Fold]]] = {
    "pr": transcripts,
    "asr": transcripts,
    "pr_all": transcripts,
    "asr_all": transcripts,
    "sid": speakers,
    "ks": phrases,
    "asv": constructed.trials,
    "sd": constructed.mixtures,
}
