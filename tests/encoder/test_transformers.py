"""Models of `transformers` however people store them: the same states, or a reason."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from helpers.encoders import error, irregular, pair, reference_states, utterances
from safetensors.torch import load_file, save_file

from skill.encoder.checkpoint import load_encoder, save_encoder
from skill.encoder.formats import export
from skill.encoder.formats.transformers import FAMILIES, ONE_VALUE, USED, WITHOUT_EFFECT
from skill.utils.errors import SkillError

SMALL: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 40,
    "conv_dim": [24] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
LARGE = SMALL | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
FAMILY_NAMES = {"Wav2Vec2": "wav2vec2", "Hubert": "hubert", "WavLM": "wavlm",
                "UniSpeech": "unispeech", "UniSpeechSat": "unispeech_sat"}  # fmt: skip
HEADS = [
    f"{family}For{task}"
    for family in FAMILY_NAMES
    for task in ("PreTraining", "CTC", "SequenceClassification", "AudioFrameClassification",
                 "XVector")
    if hasattr(transformers, f"{family}For{task}")
]  # fmt: skip


def random_model(name: str, **settings: Any) -> Any:
    """A model class of `transformers` with random weights that matter everywhere."""
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    model = kind(kind.config_class(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def largest_error(reference: Any, source: Path, normalized: bool = False) -> float:
    """Between the states of the loaded encoder and those of `transformers`."""
    waves, _ = utterances([6000], torch.float32)
    waves = 3 * waves + 0.5
    encoder = load_encoder(source)
    given = waves
    if normalized:
        given = (waves - waves.mean()) / (waves.var(unbiased=False) + 1e-7).sqrt()
    base = getattr(reference, reference.base_model_prefix, reference)
    theirs = reference_states(base, given, None)
    states = encoder(waves)[0]
    return max(error(own, their) for own, their in zip(states, theirs, strict=True))


@pytest.mark.parametrize("name", HEADS)
def test_every_class_with_a_head(tmp_path: Path, name: str) -> None:
    reference = random_model(name, **SMALL)
    reference.save_pretrained(tmp_path)
    assert largest_error(reference, tmp_path) < 1e-6


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize(
    "settings",
    [LARGE, SMALL | {"conv_bias": True, "feat_extract_norm": "layer"},
     SMALL | {"do_stable_layer_norm": True, "layer_norm_eps": 1e-3},
     SMALL | {"num_conv_pos_embeddings": 15, "conv_dim": [8, 16, 24, 24, 16, 16, 20]}],
    ids=["large", "layer", "stable", "odd"],
)  # fmt: skip
def test_every_family_and_arrangement(
    tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    """XLS-R and MMS are `large` of wav2vec 2.0, mHuBERT-147 is a Base HuBERT."""
    reference = random_model(f"{family}Model", **settings)
    reference.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    layered = settings.get("feat_extract_norm") == "layer"
    assert largest_error(reference, tmp_path, normalized=layered) < 1e-5


@pytest.mark.parametrize("name", ["Wav2Vec2Config", "HubertConfig", "WavLMConfig",
                                  "UniSpeechConfig", "UniSpeechSatConfig"])  # fmt: skip
def test_every_setting_is_used_or_known_to_be_without_effect(name: str) -> None:
    """A setting that `transformers` adds fails here, and needs one of the three lists."""
    config = getattr(transformers, name)()
    assert config.model_type in FAMILIES
    known = USED | ONE_VALUE.keys() | WITHOUT_EFFECT
    assert set(config.to_dict()) - known == set()
    assert not USED & ONE_VALUE.keys() and not (USED | ONE_VALUE.keys()) & WITHOUT_EFFECT


@pytest.mark.parametrize("name", ["Wav2Vec2Model", "HubertModel", "WavLMModel"])
def test_settings_without_effect_change_no_state(name: str) -> None:
    """Each of the settings in that list, one after the other, in `transformers` itself."""
    reference = random_model(name, **SMALL)
    waves, _ = utterances([4000], torch.float32)
    expected = reference_states(reference, waves, None)
    values = {**reference.config.to_dict()}
    for setting in sorted(WITHOUT_EFFECT & values.keys()):
        value = values[setting]
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        other = type(reference)(type(reference.config)(**values | {setting: value + 1})).eval()
        other.load_state_dict(reference.state_dict())
        for own, their in zip(reference_states(other, waves, None), expected, strict=True):
            torch.testing.assert_close(own, their)


@pytest.mark.parametrize(
    ("model", "setting", "message"),
    [
        ("HubertModel", {"hidden_act": "relu"}, "hidden_act is 'relu'"),
        ("WavLMModel", {"feat_extract_activation": "silu"}, "feat_extract_activation is 'silu'"),
        ("HubertModel", {"conv_pos_batch_norm": True}, "a batch norm before the positional"),
        ("Wav2Vec2Model", LARGE | {"adapter_attn_dim": 8}, "adapters in the blocks"),
        ("Wav2Vec2Model", {"add_adapter": True}, "the convolutional adapter behind the blocks"),
        ("Data2VecAudioModel", {}, "its stack of positional convolutions is not computed"),
    ],
)
def test_what_is_not_computed_is_refused(
    tmp_path: Path, model: str, setting: dict[str, Any], message: str
) -> None:
    random_model(model, **SMALL | setting).save_pretrained(tmp_path)
    with pytest.raises(SkillError, match=message) as raised:
        load_encoder(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["sew", "wav2vec2-bert", "whisper", "bert", None, ["hubert"]])
def test_other_kinds_of_models_are_refused(tmp_path: Path, kind: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(SkillError, match=r"model_type is .*(is not computed|none of wav2vec2)"):
        load_encoder(tmp_path)


def test_distilhubert_of_the_hub(tmp_path: Path) -> None:
    reference = random_model("HubertModel", **SMALL | {"feat_proj_layer_norm": False})
    reference.save_pretrained(tmp_path)
    assert largest_error(reference, tmp_path) < 1e-6


S3PRL = {
    "feature_projection.projection": "post_extract_proj", "pos_conv_embed.conv": "pos_conv.0",
    "parametrizations.weight.original0": "weight_g", ".conv.": ".0.",
    "parametrizations.weight.original1": "weight_v", ".attention.": ".self_attn.",
    "feed_forward.intermediate_dense": "fc1", "feed_forward.output_dense": "fc2",
}  # fmt: skip


def distiller(reference: Any, layered: bool) -> dict[str, Any]:
    """A HuBERT of `transformers` as s3prl's distiller saves it."""
    tensors = {}
    for name, tensor in reference.state_dict().items():
        for ours, theirs in S3PRL.items():
            name = name.replace(ours, theirs)
        if name.startswith("feature_extractor"):
            name = name.replace("layer_norm", "2.1" if layered else "2")
        elif ".layers." in name and "final" not in name:
            name = name.replace("layer_norm", "self_attn_layer_norm")
        tensors[name] = tensor
    del tensors["masked_spec_embed"]
    tensors["output_layer.0.weight"] = torch.zeros(3, 3)
    config = {
        "extractor_mode": "layer_norm" if layered else "default", "conv_pos": 16,
        "extractor_conv_feature_layers": "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2",
        "conv_pos_groups": 4, "encoder_layers": 2, "encoder_embed_dim": 32,
        "encoder_ffn_embed_dim": 40, "encoder_attention_heads": 4, "activation_fn": "gelu",
        "layer_norm_first": layered,
    }  # fmt: skip
    arguments = argparse.Namespace(config="distilhubert.yaml", seed=1)
    return {"Distiller": tensors, "Config": {"distiller": config}, "Args": arguments}


@pytest.mark.parametrize("layered", [False, True])
def test_distilhubert_of_s3prl(tmp_path: Path, layered: bool) -> None:
    settings = (LARGE if layered else SMALL) | {"feat_proj_layer_norm": False, "conv_bias": False}
    reference = random_model("HubertModel", **settings)
    content = distiller(reference, layered)
    torch.save(content, tmp_path / "states-epoch-1.ckpt")
    assert largest_error(reference, tmp_path / "states-epoch-1.ckpt") < 1e-6
    for key, value in (("task_emb_type", "concat"), ("attention_type", "sparse")):
        changed = content["Config"]["distiller"] | {key: value}
        torch.save(content | {"Config": {"distiller": changed}}, tmp_path / "other.ckpt")
        with pytest.raises(SkillError, match=f"{key} is '{value}', which is not computed"):
            load_encoder(tmp_path / "other.ckpt")


EXTRACTOR = {"do_normalize": True, "sampling_rate": 16000, "feature_size": 1}


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "WavLM"])
@pytest.mark.parametrize("place", ["processor", "preprocessor", "nowhere"])
def test_normalisation_is_read_wherever_it_is_written(
    tmp_path: Path, family: str, place: str, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = random_model(f"{family}Model", **LARGE)
    reference.save_pretrained(tmp_path)
    if place == "processor":
        nested = json.dumps({"processor_class": "P", "feature_extractor": EXTRACTOR})
        (tmp_path / "processor_config.json").write_text(nested)
    elif place == "preprocessor":
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR))
        (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "P"}))
    assert largest_error(reference, tmp_path, normalized=True) < 1e-5
    said = "no file of a feature extractor; a model with layer norms"
    assert (said in capfd.readouterr().err) is (place == "nowhere")


def test_a_processor_of_transformers_itself(tmp_path: Path) -> None:
    """The folder that `Wav2Vec2Processor.save_pretrained` fills, whatever files that are."""
    reference = random_model("WavLMModel", **LARGE)
    reference.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3}))
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False)
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path)
    assert largest_error(reference, tmp_path) < 1e-5


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"sampling_rate": 8000}, "sampling_rate is 8000; only 16000 is read"),
        ({"feature_size": 80}, "feature_size is 80"),
        ({"do_normalize": "yes"}, "do_normalize is 'yes'"),
    ],
)
def test_feature_extractors_of_other_models(
    tmp_path: Path, spoiled: dict[str, Any], message: str
) -> None:
    random_model("HubertModel", **LARGE).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(EXTRACTOR | spoiled))
    with pytest.raises(SkillError, match=message):
        load_encoder(tmp_path)


def as_shards(folder: Path) -> Path:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    places = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        part = {name: tensors[name] for name in names if places[name] == shard}
        save_file(part, folder / shard, {"format": "pt"})
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def as_pickle(name: str, wrap: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Path]:
    def store(folder: Path) -> Path:
        tensors = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(wrap(tensors), folder / name)
        return folder if name == "pytorch_model.bin" else folder / name

    return store


def as_pickled_shards(folder: Path, prefix: str = "") -> Path:
    tensors = {prefix + n: t for n, t in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    places = {name: f"pytorch_model-{len(name) % 3}.bin" for name in tensors}
    for shard in set(places.values()):
        torch.save({n: t for n, t in tensors.items() if places[n] == shard}, folder / shard)
    index = {"weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize(
    "store",
    [
        as_shards,
        as_pickled_shards,
        lambda folder: as_shards(folder) / "model.safetensors.index.json",
        lambda folder: folder / "model.safetensors",
        as_pickle("pytorch_model.bin", dict),
        as_pickle("weights.pt", dict),
        as_pickle("pytorch_model.bin", lambda t: {"state_dict": t, "epoch": 3}),
        as_pickle("best.ckpt", lambda t: {"model_state_dict": {f"module.{n}": t[n] for n in t}}),
        as_pickle("pytorch_model.bin", lambda t: {f"module.hubert.{n}": t[n] for n in t}),
        as_pickle("pytorch_model.bin", lambda t: {f"_orig_mod.{n}": t[n] for n in t}),
        as_pickle("w.pt", lambda t: {f"module._orig_mod.model.{n}": t[n] for n in t}),
        as_pickle("w.pt", lambda t: {f"_orig_mod.module.hubert.{n}": t[n] for n in t}),
        lambda folder: as_pickled_shards(folder, prefix="_orig_mod."),
    ],
    ids=["shards", "bin shards", "index", "file", "bin", "pt", "state_dict", "module", "prefixes",
         "compiled", "nested", "compiled first", "compiled shards"],
)  # fmt: skip
def test_weights_however_they_are_stored(tmp_path: Path, store: Callable[[Path], Path]) -> None:
    reference = random_model("HubertModel", **SMALL)
    reference.save_pretrained(tmp_path)
    assert largest_error(reference, store(tmp_path)) < 1e-6


def test_shards_that_save_pretrained_writes(tmp_path: Path) -> None:
    reference = random_model("WavLMForXVector", **SMALL)
    reference.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert largest_error(reference, tmp_path) < 1e-6


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 377569754\n"


def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    random_model("HubertModel", **SMALL).save_pretrained(folder)
    (folder / "model.safetensors").write_text(POINTER)
    for name in ("model.safetensors", "pytorch_model.bin", "hubert.pt"):
        (tmp_path / name).write_text(POINTER)
        with pytest.raises(SkillError, match="a pointer of Git LFS, not the file itself"):
            load_encoder(tmp_path)
    with pytest.raises(SkillError, match=r"model\.safetensors: a pointer of Git LFS"):
        load_encoder(folder)


TENSORS = {"encoder.layer_norm.weight": torch.ones(8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TENSORS, "weights without an architecture"),
        ({"cfg": {}, "model": TENSORS}, "a checkpoint of fairseq"),
        ([1, 2], "holds no weights but list"),
        ({"state_dict": {"x": 3}}, "'x' is no tensor but int"),
        ({"x": torch.zeros(3).to_sparse()}, "x is sparse, quantised or without values"),
        ({"x": torch.zeros(3, device="meta")}, "x is sparse, quantised or without values"),
        ({"x": torch.zeros(1).expand(10**6)}, "claim 4000000 bytes, the file has fewer"),
        ({"x": argparse.ArgumentParser}, "it holds argparse.ArgumentParser, and only tensors"),
    ],
)
def test_what_a_pickle_may_not_hold(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "alone.bin")
    with pytest.raises(SkillError, match=message) as raised:
        load_encoder(tmp_path / "alone.bin")
    assert "\n" not in str(raised.value) and str(tmp_path / "alone.bin") in str(raised.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), r"config.json is missing \(there: \)"),
        (("adapter_config.json",), r"config.json is missing \(there: adapter_config.json\)"),
        (("config.json", "model.h5"), "model.h5, which is not read$"),
        (("config.json", "best.pt"), "best.pt, which is read where its own path is given$"),
        (("config.json", "model.fp16.safetensors"), "model.fp16.safetensors, which is read"),
    ],
)
def test_what_lies_in_a_folder_without_a_model_is_named(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    for file in files:
        (tmp_path / file).write_text('{"model_type": "hubert"}')
    if "config.json" in files:
        random_model("HubertModel", **SMALL).config.save_pretrained(tmp_path)
    with pytest.raises(SkillError, match=message):
        load_encoder(tmp_path)


def test_one_shard_alone(tmp_path: Path) -> None:
    random_model("HubertModel", **SMALL).save_pretrained(tmp_path)
    as_shards(tmp_path)
    with pytest.raises(SkillError, match="one of the shards that model"):
        load_encoder(tmp_path / "model-00001-of-00002.safetensors")


def test_a_damaged_index_of_shards(tmp_path: Path) -> None:
    random_model("HubertModel", **SMALL).save_pretrained(tmp_path)
    index = as_shards(tmp_path) / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    for shard, message in (("../model.safetensors", "names no file beside"), ("x", "missing")):
        changed = places | {"masked_spec_embed": shard}
        index.write_text(json.dumps({"weight_map": changed}))
        with pytest.raises(SkillError, match=message):
            load_encoder(tmp_path)
    index.write_text(json.dumps({"weight_map": places | {"hat": places["masked_spec_embed"]}}))
    with pytest.raises(SkillError, match="the tensor hat is in none of the shards"):
        load_encoder(tmp_path)
    index.write_text("[]")
    with pytest.raises(SkillError, match="`weight_map` is missing"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t > 0, "of bool, no floats"),
        (lambda t: t.int(), "of int32, no floats"),
        (lambda t: t.to(torch.complex64), "of complex64, no floats"),
        (lambda t: t.double() + 1e300, "values that are not finite"),
    ],
    ids=["bool", "int", "complex", "overflow"],
)
def test_tensors_of_other_kinds_are_refused(
    tmp_path: Path, change: Callable[[Any], Any], message: str
) -> None:
    random_model("HubertModel", **SMALL).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["encoder.layer_norm.weight"] = change(tensors["encoder.layer_norm.weight"])
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SkillError, match=rf"the tensor encoder\.layer_norm\.weight .*{message}"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("kind", ["AutoModel", "AutoModelForCTC"])
@torch.no_grad()
def test_a_student_that_transformers_saved_again(tmp_path: Path, kind: str) -> None:
    """Without this project's header: the architecture is in config.json."""
    student = irregular()
    save_encoder(student, tmp_path / "student.safetensors")
    export.run(str(tmp_path / "student.safetensors"), tmp_path / "export")
    export.register()
    model = getattr(transformers, kind).from_pretrained(tmp_path / "export")
    model.save_pretrained(tmp_path / "again")
    transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "export").save_pretrained(
        tmp_path / "again"
    )
    waves, _ = utterances([6000], torch.float32)
    for own, their in zip(load_encoder(tmp_path / "again")(waves)[0], student.eval()(waves)[0],
                          strict=True):  # fmt: skip
        assert torch.equal(own, their)


def test_a_pair_of_the_same_weights_is_still_equal(tmp_path: Path) -> None:
    """The check of this file's own yardstick."""
    reference, _ = pair("wavlm", large=False)
    reference.save_pretrained(tmp_path)
    assert largest_error(reference, tmp_path) < 1e-6


@pytest.mark.parametrize("low", [0x80, 0x50])
def test_a_safetensors_file_is_one_whatever_its_length(tmp_path: Path, low: int) -> None:
    """It begins with its header's length, whose bytes may be those that others begin with."""
    save_encoder(irregular(), tmp_path / "a.safetensors", {"x": ""})
    for padding in range(0, 264, 8):
        save_encoder(irregular(), tmp_path / "a.safetensors", {"x": "x" * padding})
        if (tmp_path / "a.safetensors").read_bytes()[0] == low:
            break
    assert (tmp_path / "a.safetensors").read_bytes()[0] == low
    assert load_encoder(tmp_path / "a.safetensors").config == irregular().config
