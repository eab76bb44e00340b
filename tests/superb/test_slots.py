"""Slot filling: the symbols of a transcript, and the metrics against a plain restatement."""

import re

import numpy as np
import pytest
from rapidfuzz.distance import Levenshtein

from skill.superb import slots, vocabulary

NAMES = ("artist", "art", "city", "timeRange")


def spans(text, cleaned):
    """Slots of a string by the protocol's rule, walked through by hand.

    From each opening mark on, the shortest non-empty value up to a blank and the closing mark of
    the same name (which may be the beginning of a longer name); blanks count once.
    """
    text = re.sub(" {2,}", " ", text)
    found, at = [], 0
    while (begin := text.find("B-", at)) >= 0:
        name = re.match(r"\S+", text[begin + 2 :])
        value_at = begin + 2 + (name.end() if name else 0) + 1
        end = text.find(f" E-{name.group()}", value_at + 1) if name else -1
        if name is None or text[value_at - 1 : value_at] != " " or end < 0:
            at = begin + 1
            continue
        value = text[value_at:end]
        if cleaned:
            value = re.sub(r"B-\S+ ", "", value)
            value = re.sub(r" E-\S+", "", value)
        found.append((name.group(), value))
        at = end + len(f" E-{name.group()}")
    return found


def restated(references, hypotheses):
    """(slot type F1, slot value CER) over a corpus."""
    scores, edits, characters = [], 0, 0
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        true, said = spans(reference, False), spans(hypothesis, True)
        kinds, said_kinds = {name for name, _ in true}, {name for name, _ in said}
        if not kinds or not said_kinds:
            scores.append(float(kinds == said_kinds))
        else:
            precision = len(kinds & said_kinds) / len(said_kinds)
            recall = len(kinds & said_kinds) / len(kinds)
            total = precision + recall
            scores.append(2 * precision * recall / total if total else 0.0)
        for name, value in true:
            rates = [
                (Levenshtein.distance(other, value) / len(value), other)
                for slot, other in said if slot == name
            ]  # fmt: skip
            best = min((pair for pair in rates if pair[0] < 100), default=(1, ""))[1]
            edits += Levenshtein.distance(best, value)
            characters += len(value)
    return np.mean(scores), edits / characters


def corpus(seed, dropped, wrong, letters):
    """Pairs of strings with slots: marks dropped, of a wrong slot or nested, letters changed."""
    generator = np.random.default_rng(seed)
    words = ("PLAY", "A", "SONG", "BY", "ABBA", "IN  PARIS", "NOW", "E", "B")
    references, hypotheses = [], []
    for _ in range(120):
        reference, hypothesis = [], []
        for _ in range(int(generator.integers(1, 5))):
            chosen = str(generator.choice(words))
            noisy = "".join(
                str(generator.choice(list("ABCE "))) if generator.random() < letters else letter
                for letter in chosen
            )
            if generator.random() < 0.6:
                slot = str(generator.choice(NAMES))
                reference += [f"B-{slot}", chosen, f"E-{slot}"]
                inside = [f"B-{slot}", noisy, f"E-{slot}"]
                if generator.random() < wrong:  # nested marks of another slot
                    other = str(generator.choice(NAMES))
                    inside[1] = f"B-{other} {noisy} E-{other}"
                for place in (0, 2):
                    if generator.random() < dropped:
                        inside[place] = ""
                    elif generator.random() < wrong:
                        inside[place] = inside[place][:2] + str(generator.choice(NAMES))
                hypothesis += inside
            else:
                reference.append(chosen)
                hypothesis.append(noisy)
        references.append(" ".join(reference))
        hypotheses.append(" ".join(hypothesis))
    return references, hypotheses


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise", [(0, 0, 0.08), (0.02, 0, 0.08), (0.05, 0.05, 0), (0.3, 0.3, 0.1)])
def test_slot_metrics_equal_the_restated_rule(seed, noise):
    references, hypotheses = corpus(seed, *noise)
    f1, cer = restated(references, hypotheses)
    assert slots.slot_f1(references, hypotheses) == pytest.approx(f1, abs=1e-12)
    assert slots.slot_value_cer(references, hypotheses) == pytest.approx(cer, abs=1e-12)


def test_slots_by_hand():
    reference = "PLAY B-artist ABBA E-artist ON B-service TUBE E-service"
    assert slots.reference_slots(reference) == [("artist", "ABBA"), ("service", "TUBE")]
    hypothesis = "PLAY B-artist ABA E-artist"
    assert slots.slot_type_score(reference, hypothesis) == pytest.approx(2 / 3)
    assert slots.slot_value_cer([reference], [hypothesis]) == pytest.approx(5 / 8)
    with pytest.raises(ValueError, match="reference value"):
        slots.slot_value_cer(["PLAY"], [hypothesis])


def test_marks_within_a_value_count_in_references_only():
    lost = "B-artist ABBA ON B-service TUBE E-service E-artist"
    assert slots.hypothesis_slots(lost) == [("artist", "ABBA ON TUBE")]
    assert slots.reference_slots(lost)[0][1] == "ABBA ON B-service TUBE E-service"


def test_a_slot_of_blanks_is_none():
    assert slots.slot_f1(["B-artist ABBA E-artist"], ["B-artist   E-artist"]) == 0
    assert slots.reference_slots("B-artist  ABBA   LIVE E-artist") == [("artist", "ABBA LIVE")]


def test_the_last_word_brings_the_end_symbol():
    names = ["B-n", "E-n"]
    ids = vocabulary.slot_vocabulary(names)
    spoken, dotted = slots.slot_symbols("GO/O HOME/n"), slots.slot_symbols("GO/O HOME/n ./O")
    assert spoken == ["G", "O", " ", "B-n", *"HOME", "E-n", vocabulary.END]
    assert dotted == [*spoken[:-1], " "]
    assert ids.encode(spoken) == [*ids.encode(spoken[:-1]), ids.end]
    assert ids.end not in ids.encode(dotted)
    assert slots.slot_text(dotted) == slots.slot_text(spoken) + " " == "GO B-n HOME E-n "


def test_figures_and_small_letters_are_unknown():
    """As in s3prl, whose corpus has capitals only."""
    assert slots.slot_symbols("go/O") == ["<unk>", "<unk>", vocabulary.END]
    symbols = slots.slot_symbols("4/n CAFÉ/O")
    assert symbols == ["B-n", "<unk>", "E-n", " ", "C", "A", "F", "<unk>", vocabulary.END]
    assert vocabulary.slot_vocabulary(["B-n", "E-n"]).encode(symbols)[1] == 2
