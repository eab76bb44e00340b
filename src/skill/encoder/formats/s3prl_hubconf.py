"""The name by which s3prl and `torch.hub.load` know the model of this folder: see upstream.json."""

import importlib as _importlib
import json as _json
import sys as _sys
import types as _types
import zlib as _zlib
from pathlib import Path as _Path

dependencies = ["torch", "safetensors"]
_folder = _Path(__file__).resolve().parent
_about = _json.loads((_folder / "upstream.json").read_text(encoding="utf-8"))


def _upstream(*args, **kwargs):  # type: ignore[no-untyped-def]
    # The folder as a package of its own, by its place: this file is loaded under several names,
    # with and without a package around it.
    name = f"skill_upstream_{_zlib.crc32(str(_folder).encode()):08x}"
    if name not in _sys.modules:
        package = _types.ModuleType(name)
        package.__path__ = [str(_folder)]
        _sys.modules[name] = package
    return _importlib.import_module(f"{name}.expert").UpstreamExpert(*args, **kwargs)


_upstream.__doc__ = _about["text"]
globals()[_about["name"]] = _upstream
