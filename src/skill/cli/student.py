"""Commands that use a student."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from skill.cli.command import STUDENT, command
from skill.cli.options import Upstream, parse_job
from skill.config import params


@command(
    STUDENT,
    "run a trained head on audio files",
    "sid recording.wav --head results/superb/skill-wavlm/sid.safetensors "
    "--encoder results/stage2/skill-wavlm.safetensors",
)
def predict(
    task: Annotated[str, Argument(help="A SUPERB task: pr, asr, ks, sid, ...")],
    files: Annotated[list[Path], Argument(help="Recordings, of any rate and format.")],
    head: Annotated[Path, Option(metavar="FILE", help="results/superb/UPSTREAM/TASK.safetensors")],
    encoder: Upstream = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Run a trained SUPERB head on audio files and print what it predicts."""
    from skill.superb.predict import run

    run(task, files, head, encoder, as_json)


@command(STUDENT, "write a student in other formats", "skill-wavlm folder --onnx")
def export(
    student: Annotated[str, Argument(help="A name under results/stage2/, or a file.")],
    folder: Annotated[Path, Argument(help="Made new; holds all files of the export.")],
    onnx: Annotated[bool, Option("--onnx", help="ONNX models, float32 and int8.")] = False,
    s3prl: Annotated[bool, Option("--s3prl", help="A folder that s3prl loads.")] = False,
    dphubert: Annotated[bool, Option("--dphubert", help="DPHuBERT's layout.")] = False,
    states: Annotated[Literal["all", "last"], Option(help="What ONNX models return.")] = "all",
) -> None:
    """Write a student as a folder for `transformers` or, if so asked, in other formats."""
    from skill.encoder.formats.export import run
    from skill.paper import model_card

    chosen = {"onnx": onnx, "s3prl": s3prl, "dphubert": dphubert}
    forms = [form for form, is_asked_for in chosen.items() if is_asked_for]
    texts = {} if forms else {"README.md": model_card.text(student)}
    run(student, folder, forms, states, texts)


@command(STUDENT, "CKA and clusters of any layers", "states.safetensors")
def analyze(
    files: Annotated[list[Path], Argument(help="Layer states of any model, or a table of CKA.")],
    similarity: Annotated[str, Option(metavar="JSON", help="Keys of `similarity`.")] = "{}",
    clustering: Annotated[
        str, Option(metavar="JSON", help="Keys of `clustering`.")
    ] = '{"num_clusters": "auto"}',
    output: Annotated[
        Path | None, Option(metavar="STEM", help="Of the files that are written; default: FILE's.")
    ] = None,
) -> None:
    """Compare the layers in files of states by CKA, cluster them, and draw both.

    Several files of the same frames, of several models, are compared with each other. A .csv is a
    table of CKA, which is clustered. The files' format is in docs/alone.md.
    """
    from skill.paper.analyze import analyze as run

    compare = parse_job(params.Similarity, similarity, "--similarity")
    run(files, compare, parse_job(params.Clustering, clustering, "--clustering"), output)
