"""The calibration set and its file; the verbs that lead from it to groups and pictures."""

import hashlib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from sklearn.metrics import adjusted_rand_score

from skill.config.jobs import ActivationsJob, StudyJob
from skill.config.params import Activations, Clustering, Similarity, Studies, Unlabelled
from skill.data.manifest import Utterance, write_manifest
from skill.encoder import EncoderConfig, SpeechEncoder
from skill.paper import analyze
from skill.paper.figures import similarity as figures
from skill.paper.figures.style import save
from skill.similarity import activations, sensitivity, steps
from skill.similarity.cka import cka
from skill.similarity.layer_states import read_stack, read_stacks
from skill.similarity.matrix import read_matrix
from skill.similarity.stability import (
    adjusted_rand,
    bootstrap,
    co_membership,
    subsets,
    utterance_bounds,
)
from skill.utils import files
from skill.utils.errors import SkillError

RATE = 16_000


def encoder(seed: int, width: int = 16, blocks: int = 4) -> SpeechEncoder:
    torch.manual_seed(seed)
    config = EncoderConfig.uniform(
        "hubert", width=width, blocks=blocks, heads=2, ffn=32, conv=8, pos_conv_groups=4
    )
    return SpeechEncoder(config).eval()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ten utterances in one file, and encoders that `load` gives for any file."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * RATE)
    sound = noise * np.repeat(np.random.default_rng(1).uniform(0.1, 1, 600), RATE // 10)
    soundfile.write("audio.flac", sound, RATE, subtype="PCM_16")
    starts = np.arange(10) * 6 * RATE
    seconds = [0.5, 1.0, 2.0, 5.5, 3.0, 2.5, 1.5, 4.0, 2.0, 3.5]
    write_manifest(
        "corpus.csv",
        [
            Utterance(f"u{i}", "corpus", "audio.flac", int(start), int(s * RATE), split=split)
            for i, (start, s) in enumerate(zip(starts, seconds, strict=True))
            for split in ["test" if i == 8 else "train"]
        ],
    )
    encoders = {"one": encoder(0), "two": encoder(1, width=24, blocks=3)}
    for name in encoders:
        Path(f"{name}.safetensors").write_bytes(name.encode())
    monkeypatch.setattr(activations, "load", lambda path: encoders[path.stem])
    return tmp_path


def job(seconds: float = 100.0, max_frames: int = 10_000, longest: float = 4.0) -> ActivationsJob:
    return ActivationsJob(
        seed=1,
        unlabelled=Unlabelled(corpora=("corpus",), min_seconds=1.0, max_seconds=longest),
        activations=Activations(seconds=seconds, max_frames=max_frames),
    )


def record(teacher: str, settings: ActivationsJob) -> Path:
    output = Path(f"{teacher}-states.safetensors")
    activations.run(Path(f"{teacher}.safetensors"), [Path("corpus.csv")], settings, output)
    return output


def study_job(**settings) -> StudyJob:
    return StudyJob(
        seed=3,
        similarity=Similarity(),
        clustering=Clustering(num_clusters=settings.pop("num_clusters", 2)),
        studies=Studies(**settings),
    )


def test_the_list_depends_on_names_and_seed_only() -> None:
    pool = [Utterance(f"u{i}", "c", "f", 0, (i + 1) * RATE) for i in range(30)]
    chosen = activations.select_calibration_set(pool, seed=1, seconds=60, shortest=2, longest=10)
    again = activations.select_calibration_set(
        pool[::-1], seed=1, seconds=60, shortest=2, longest=10
    )
    assert chosen == again
    assert sum(u.samples for u in chosen) == 60 * RATE
    assert all(2 * RATE <= u.samples <= 10 * RATE for u in chosen)
    assert any(u.samples == 10 * RATE for u in chosen), "long utterances are cut, not dropped"
    other = activations.select_calibration_set(pool, seed=2, seconds=60, shortest=2, longest=10)
    assert [u.id for u in other] != [u.id for u in chosen]
    keys = [hashlib.sha256(f"1/c/{u.id}".encode()).hexdigest() for u in chosen]
    assert keys == sorted(keys)
    held_out = [replace(u, split="test") for u in pool]
    assert (
        activations.select_calibration_set(held_out, seed=1, seconds=60, shortest=2, longest=10)
        == []
    )


def test_the_file_holds_the_encoders_states(here: Path) -> None:
    settings = job()
    path = record("one", settings)
    tensors, header = files.read_tensors(path)
    model = activations.load(Path("one.safetensors"))
    pieces = activations.calibration_set([Path("corpus.csv")], settings, model)
    assert header["utterances"] == [p.utterance.id for p in pieces]
    assert "u8" not in header["utterances"] and "u0" not in header["utterances"]
    assert max(header["seconds"]) == 4.0
    assert tensors["states"].dtype == torch.float16
    audio = soundfile.read("audio.flac", dtype="float32")[0]
    for index, piece in enumerate(pieces):
        u = piece.utterance
        with torch.no_grad():
            states, _ = model(torch.from_numpy(audio[u.start : u.start + u.samples])[None])
        stored = tensors["states"][tensors["utterance"] == index].float() + tensors["shift"]
        expected = torch.stack([state[0] for state in states], dim=1)
        torch.testing.assert_close(stored, expected, rtol=2e-3, atol=2e-3)


def test_frames_are_bounded_and_spread_over_all_utterances(here: Path) -> None:
    everything, _ = files.read_tensors(record("one", job()))
    few, header = files.read_tensors(record("one", job(max_frames=97)))
    assert len(few["states"]) == 97
    assert set(few["utterance"].tolist()) == set(range(len(header["utterances"])))
    kept = np.arange(97) * len(everything["states"]) // 97
    torch.testing.assert_close(
        few["states"].float() + few["shift"],
        everything["states"][kept].float() + everything["shift"],
        rtol=2e-3,
        atol=2e-3,
    )


def test_the_same_list_gives_the_same_bytes(here: Path) -> None:
    first = record("one", job()).read_bytes()
    assert record("one", job()).read_bytes() == first


def test_stored_and_streamed_similarity_are_equal(here: Path) -> None:
    paths = [record(name, job()) for name in ("one", "two")]
    steps.compare(paths, Similarity(), Path("cached.csv"))
    teachers, manifests = [Path("one.safetensors"), Path("two.safetensors")], [Path("corpus.csv")]
    steps.compare_streaming(teachers, manifests, job(), Similarity(), Path("streamed.csv"))
    names, cached = read_matrix(Path("cached.csv"))
    others, streamed = read_matrix(Path("streamed.csv"))
    assert names == others == [f"one:{i}" for i in range(5)] + [f"two:{i}" for i in range(4)]
    np.testing.assert_allclose(cached, streamed, atol=2e-5)  # half precision and six digits
    with pytest.raises(SkillError, match="rbf"):
        steps.compare_streaming(
            teachers, manifests, job(), Similarity(kernel="rbf"), Path("streamed.csv")
        )


@pytest.mark.parametrize(
    ("value", "words"),
    [(float("nan"), "NaN or infinite"), (1e7, "half precision"), (None, "constant")],
)
def test_a_broken_state_names_teacher_state_and_utterance(
    here: Path, monkeypatch: pytest.MonkeyPatch, value: float | None, words: str
) -> None:
    model = activations.load(Path("one.safetensors"))
    forward, calls = type(model).forward, []

    def broken(self, waveforms, lengths=None):
        states, frames = forward(self, waveforms, lengths)
        calls.append(1)
        if len(calls) == 2:
            if value is None:
                states[3] = torch.full_like(states[3], 0.25)
            else:
                states[3][0, -1, 0] = value
        return states, frames

    monkeypatch.setattr(SpeechEncoder, "forward", broken)
    second = activations.calibration_set([Path("corpus.csv")], job(), model)[1].utterance.id
    with pytest.raises(SkillError, match=rf"one: state 3 .*{words}.*utterance {second}"):
        record("one", job())
    assert not Path("one-states.safetensors").exists()


def test_no_audio_is_an_error(here: Path) -> None:
    settings = job(seconds=0.5)
    with pytest.raises(SkillError, match=r"corpus.csv: no training utterance"):
        record("one", settings)


def test_damaged_and_foreign_files_are_errors(here: Path) -> None:
    path = record("one", job())
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1  # the last tensor is the utterance index; the states lie before it
    damaged[len(damaged) // 2] ^= 64
    Path("damaged.safetensors").write_bytes(damaged)
    with pytest.raises(SkillError, match=r"damaged.safetensors"):
        read_stacks([Path("damaged.safetensors")])
    other = Path("other.safetensors")
    activations.run(Path("two.safetensors"), [Path("corpus.csv")], job(seconds=5.0), other)
    with pytest.raises(SkillError, match=r"other.safetensors: its frames are not those of"):
        read_stacks([path, other])
    with pytest.raises(SkillError, match="same name"):
        read_stacks([path, path])
    Path("text.safetensors").write_text("no tensors")
    with pytest.raises(SkillError, match=r"text.safetensors: not a readable safetensors file"):
        read_stack(Path("text.safetensors"))


def test_stacks_of_others(here: Path) -> None:
    states = torch.randn(3, 120, 7)
    save_file({"states": states}, "whole.safetensors")
    stack = read_stack(Path("whole.safetensors"))
    assert stack.names == ["whole:0", "whole:1", "whole:2"] and len(stack.utterances) == 50
    layers = {f"layer{i}": torch.randn(120, 3 + i) for i in range(11)}
    owner = torch.arange(120) // 10 + 5
    save_file(layers | {"utterance": owner}, "layers.safetensors")
    stack = read_stack(Path("layers.safetensors"))
    assert stack.names == [f"layers:layer{i}" for i in range(11)]
    assert stack.utterance.tolist() == (torch.arange(120) // 10).tolist()
    order = torch.randperm(120)
    mixed = {name: states[order] for name, states in layers.items()}
    save_file(mixed | {"utterance": owner[order]}, "mixed.safetensors")
    found = read_stack(Path("mixed.safetensors"))  # frames of a recording stand together again
    assert torch.equal(found.utterance, stack.utterance)
    for state, whole in zip(found.states, stack.states, strict=True):
        for first in range(0, 120, 10):
            part = slice(first, first + 10)
            assert sorted(state[part].tolist()) == sorted(whole[part].tolist())
    layers["layer4"][33, 0] = float("nan")
    save_file(layers | {"utterance": owner}, "nan.safetensors")
    with pytest.raises(SkillError, match=r"nan:layer4 is NaN .* frame 33, in utterance number 3"):
        read_stacks([Path("nan.safetensors")])
    save_file({"a": torch.randn(5, 2), "b": torch.randn(6, 2)}, "bad.safetensors")
    with pytest.raises(SkillError, match=r"bad.safetensors: holds neither"):
        read_stack(Path("bad.safetensors"))


def test_from_states_to_groups_tables_and_pictures(here: Path) -> None:
    paths = [record(name, job()) for name in ("one", "two")]
    steps.compare(paths, Similarity(), Path("cka.csv"))
    section = Clustering(num_clusters=4, state0="own")
    steps.cluster(Path("cka.csv"), section, Path("g.json"), Path("g.csv"), Path("c.csv"))
    found = files.read_json("g.json")
    assert len(found["layers"]) == 4 and [["one", 0]] in found["layers"]
    assert sorted(tuple(pair) for group in found["layers"] for pair in group) == sorted(
        [("one", i) for i in range(5)] + [("two", i) for i in range(4)]
    )
    sensitivity.run_stability(paths, study_job(resamples=12), Path("s.csv"), Path("r.csv"))
    sensitivity.run_study(paths[:1], study_job(resamples=5, seconds=(3.0, 6.0)), Path("study.csv"))
    rows = files.read_csv("study.csv")
    assert list(rows[0]) == sensitivity.STUDY_COLUMNS
    assert {row["linkage"] for row in rows} == {"average", "complete", "single", "ward"}
    whole = [row for row in rows if row["seconds"] == rows[-1]["seconds"]]
    assert len(whole) == 8 and all(row["rand_all"] == "1" for row in whole)
    assert all(float(row["cka_error"]) < 1e-6 for row in whole)
    pictures = {
        "cka": figures.matrix,
        "g": figures.groups,
        "c": figures.criterion,
        "r": figures.criterion,
        "s": figures.stability,
        "study": figures.calibration,
    }
    for name, draw in pictures.items():
        save(draw(Path(f"{name}.csv")), Path(name))
    before = [Path(f"g{suffix}").read_bytes() for suffix in (".pdf", ".png")]
    save(figures.groups(Path("g.csv")), Path("g"))
    assert [Path(f"g{suffix}").read_bytes() for suffix in (".pdf", ".png")] == before
    table = Path("g.csv").read_bytes()
    steps.cluster(Path("cka.csv"), section, Path("g.json"), Path("g.csv"))
    assert Path("g.csv").read_bytes() == table


def test_the_groups_table_is_the_whole_dendrogram(here: Path) -> None:
    steps.compare([record("one", job())], Similarity(), Path("cka.csv"))
    steps.cluster(Path("cka.csv"), Clustering(num_clusters=2), Path("g.json"), Path("g.csv"))
    rows = files.read_csv("g.csv")
    _, matrix = read_matrix(Path("cka.csv"))
    order = [int(row["state"].partition(":")[2]) for row in rows]
    clusters = [row["cluster"] for row in rows]
    assert sum(a != b for a, b in pairwise(clusters)) == 1
    members = {leaf: [leaf] for leaf in range(5)}
    for step, row in enumerate(rows[:4]):
        left, right = members[int(row["left"])], members[int(row["right"])]
        distances = [1 - matrix[order[a], order[b]] for a in left for b in right]
        assert float(row["height"]) == pytest.approx(np.mean(distances), abs=1e-5)
        merged = sorted(left + right)
        assert merged == list(range(merged[0], merged[-1] + 1)), "branches do not cross"
        members[5 + step] = merged


def test_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    base = torch.randn(2, 300, 8)
    layers = {f"l{i}": base[i // 3] + 0.3 * torch.randn(300, 8) for i in range(6)}
    save_file(layers, "my model.safetensors")
    stack = Path("my model.safetensors")
    analyze.analyze([stack], Similarity(), Clustering(num_clusters="auto"), None)
    _, matrix = read_matrix(Path("my model-similarity.csv"))
    np.testing.assert_allclose(matrix, cka(list(layers.values())).numpy(), atol=1e-5)
    expected = [[["my model", f"l{i}"] for i in group] for group in ((0, 1, 2), (3, 4, 5))]
    assert files.read_json("my model-clusters.json")["layers"] == expected
    assert "cluster 2: my model:l3, my model:l4, my model:l5" in capsys.readouterr().out
    table = Path("my model-similarity.csv")
    analyze.analyze([table], Similarity(), Clustering(num_clusters=2), Path("again"))
    assert files.read_json("again-clusters.json")["layers"] == expected
    for name in (
        "my model-similarity",
        "my model-clusters",
        "my model-stability",
        "again-clusters",
    ):
        assert Path(f"{name}.png").stat().st_size > 1000 and Path(f"{name}.pdf").exists()


def test_adjusted_rand_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        labels = generator.integers(4, size=(2, 12))
        one, two = ([np.flatnonzero(row == k).tolist() for k in np.unique(row)] for row in labels)
        assert adjusted_rand(one, two) == pytest.approx(adjusted_rand_score(*labels))
    assert adjusted_rand([[0], [1], [2]], [[0], [1], [2]]) == 1
    assert adjusted_rand([[0, 1, 2]], [[0, 1, 2]]) == 1


def test_co_membership_counts() -> None:
    shared = co_membership([[[0, 1], [2]], [[0], [1, 2]]], 4)
    assert shared[:3, :3].tolist() == [[1, 0.5, 0], [0.5, 1, 0.5], [0, 0.5, 1]]
    assert not shared[3].any()


def test_resamples_equal_cka_of_the_frames_that_were_drawn(here: Path) -> None:
    stack = read_stacks([record("one", job())])
    sums = stack.sums(kernel="linear", bandwidth=0.8, standardize=False)
    assert len(sums.sizes) == len(stack.utterances)
    first = next(bootstrap(sums, 1, 0))
    assert np.array_equal(first, next(bootstrap(sums, 1, 0)))
    np.testing.assert_allclose(np.diag(first), 1.0)
    pieces = list(subsets(sums, 150, 4, 0))
    whole = cka([state.float() for state in stack.states]).numpy()
    assert all(a.shape == whole.shape for a, _ in pieces)
    complete, nothing = next(subsets(sums, 10**6, 1, 0))
    np.testing.assert_allclose(complete, whole, atol=1e-5)
    assert nothing is None


def test_many_utterances_are_joined_to_blocks() -> None:
    assert utterance_bounds([0, 0, 1, 2, 2, 2]) == [0, 2, 3, 6]
    bounds = utterance_bounds(np.repeat(np.arange(1000), 3), most=64)
    assert len(bounds) == 65 and bounds[0] == 0 and bounds[-1] == 3000
    assert all(bound % 3 == 0 for bound in bounds) and bounds == sorted(set(bounds))
