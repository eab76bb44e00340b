"""Files by which s3prl, and `torch.hub.load(FOLDER, NAME, source="local")`, find an upstream."""

import re

from skill.encoder import SpeechEncoder
from skill.utils.errors import SkillError

_HUBCONF = '''"""The name by which s3prl (`-u {name}`) and `torch.hub.load` know this model."""

import importlib.util as _util
import sys as _sys
from pathlib import Path as _Path

# By its place: this file is loaded under several names, with and without a package around it.
_spec = _util.spec_from_file_location("{name}_expert", _Path(__file__).with_name("expert.py"))
_expert = _util.module_from_spec(_spec)
_sys.modules[_spec.name] = _expert
_spec.loader.exec_module(_expert)
dependencies = ["torch", "safetensors"]


def {name}(*args, **kwargs):
    """{text}"""
    return _expert.UpstreamExpert(*args, **kwargs)
'''

_LAUNCHER = '''"""s3prl's run_downstream.py, with the upstream of this folder among its own.

In the folder s3prl/ of a checkout of s3prl:

    python FOLDER/run_s3prl.py -m train -u {name} -n {name}-pr \\
        -d ctc -c downstream/ctc/libriphone.yaml
"""

import importlib.util
import runpy
import sys
from pathlib import Path

folder = Path(__file__).resolve().parent
sys.path[0] = ""  # as if run_downstream.py had been started here: the working directory
import s3prl.hub  # noqa: E402

spec = importlib.util.spec_from_file_location("hubconf", folder / "hubconf.py")
hubconf = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hubconf)
s3prl.hub.{name} = hubconf.{name}
runpy.run_module("s3prl.run_downstream", run_name="__main__", alter_sys=True)
'''


def files(encoder: SpeechEncoder, name: str) -> dict[str, str]:
    """`hubconf.py` and `run_s3prl.py` for a model of that name.

    Raises:
        SkillError: the encoder's frames are not 20 ms apart, which s3prl takes for granted.
    """
    step = 1
    for stride in encoder.config.conv_strides:
        step *= stride
    if step != 320:
        raise SkillError(f"{name}: frames are {step} samples apart; s3prl's tasks need 320")
    legal = identifier(name)
    text = f"{name}: {encoder.num_parameters():,} parameters, {encoder.config.num_blocks} blocks."
    return {
        "hubconf.py": _HUBCONF.format(name=legal, text=text),
        "run_s3prl.py": _LAUNCHER.format(name=legal),
    }


def identifier(name: str) -> str:
    """`name` as a Python function may be called."""
    legal = re.sub(r"\W", "_", name, flags=re.ASCII)
    return legal if legal[:1].isalpha() else f"skill_{legal}"
