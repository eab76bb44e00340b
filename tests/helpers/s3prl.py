"""A stand-in for s3prl: what its runner and its featurizer ask of an upstream."""

from pathlib import Path

# A package `s3prl` whose `hub` takes names from `upstream/*/hubconf.py`, and whose program builds
# an upstream as the runner does and looks at its features as the featurizer does.
HUB = """
import importlib, pathlib
for file in (pathlib.Path(__file__).parent / "upstream").glob("*/hubconf.py"):
    found = importlib.import_module(f"s3prl.upstream.{file.parent.name}.hubconf")
    globals().update({n: v for n, v in vars(found).items() if not n.startswith("_")})
"""
RUNNER = """
import argparse, json, sys
import torch
from s3prl import hub
parser = argparse.ArgumentParser()
parser.add_argument("-u"), parser.add_argument("-k"), parser.add_argument("-g")
a, _ = parser.parse_known_args()
assert "skill" not in sys.modules or sys.modules["skill"] is None
torch.manual_seed(0)
upstream = getattr(hub, a.u)(ckpt=a.k, model_config=a.g, refresh=False).to("cpu")
upstream.eval()
with torch.no_grad():
    names = sorted(upstream([torch.randn(16000)]))
    rate = upstream.get_downsample_rates("hidden_states")
    wavs = [torch.randn(n) for n in (16000, 9000, 12345)]
    features = upstream(wavs)["hidden_states"]
    again = upstream(wavs)["hidden_states"]
assert isinstance(features, (list, tuple)) and all(isinstance(f, torch.Tensor) for f in features)
assert all(torch.equal(x, y) for x, y in zip(features, again))
stacked = torch.stack(tuple(features))  # all of one shape
lengths = [round(len(wav) / rate) for wav in wavs]
assert abs(stacked.shape[2] - max(lengths)) < 5
upstream.train()
assert all(p.requires_grad for p in upstream.parameters())
print(json.dumps({"names": names, "rate": rate}))
torch.save({"wavs": wavs, "states": stacked, "folder": sys.path}, "features.pt")
"""


def s3prl_stand_in(package: Path) -> Path:
    """The part of s3prl that meets an upstream, in that folder."""
    (package / "upstream").mkdir(parents=True)
    for name, text in {"__init__": "", "hub": HUB, "run_downstream": RUNNER}.items():
        (package / f"{name}.py").write_text(text)
    return package
