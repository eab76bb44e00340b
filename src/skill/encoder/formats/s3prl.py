"""A folder by which s3prl, and `torch.hub.load(FOLDER, NAME, source="local")`, find an upstream.

Its Python files are the same for every model; what differs stands in `upstream.json`.
"""

import keyword
import math
import re
from typing import Any

from skill.encoder import SpeechEncoder
from skill.utils.errors import SkillError

# Files of this package and what they are called in the folder.
FILES = {
    "formats/s3prl_expert.py": "expert.py",
    "formats/s3prl_hubconf.py": "hubconf.py",
    "formats/s3prl_launcher.py": "run_s3prl.py",
}


def upstream(encoder: SpeechEncoder, name: str) -> dict[str, Any]:
    """What `upstream.json` says of a model of that name.

    Raises:
        SkillError: the encoder's frames are not 20 ms apart, which s3prl takes for granted.
    """
    step = math.prod(encoder.config.conv_strides)
    if step != 320:
        raise SkillError(f"{name}: frames are {step} samples apart; s3prl's tasks need 320")
    text = f"{name}: {encoder.num_parameters():,} parameters, {encoder.config.num_blocks} blocks."
    return {"name": identifier(name), "text": text}


def identifier(name: str) -> str:
    """`name` as a Python function may be called."""
    legal = re.sub(r"\W", "_", name, flags=re.ASCII)
    reserved = not legal[:1].isalpha() or keyword.iskeyword(legal)
    return f"skill_{legal}" if reserved else legal
