r"""s3prl's run_downstream.py, with the upstream of this folder among its own.

In the folder s3prl/ of a checkout of s3prl, NAME being what upstream.json says:

    python FOLDER/run_s3prl.py -m train -u NAME -n NAME-pr \
        -d ctc -c downstream/ctc/libriphone.yaml
"""

import importlib
import importlib.util
import json
import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    sys.path[0] = ""  # as if run_downstream.py had been started here: the working directory
    hub = importlib.import_module("s3prl.hub")
    spec = importlib.util.spec_from_file_location("hubconf", folder / "hubconf.py")
    assert spec is not None and spec.loader is not None
    hubconf = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hubconf)
    name = json.loads((folder / "upstream.json").read_text(encoding="utf-8"))["name"]
    setattr(hub, name, getattr(hubconf, name))
    runpy.run_module("s3prl.run_downstream", run_name="__main__", alter_sys=True)
