"""Pictures of Snakemake's report and of DVC's plots as a reader sees them, by headless Chromium.

    snakemake --report report.html && dvc plots show --out plots
    python workflow/screenshots.py report.html plots/index.html docs/images

Of the report: the front page and a figure of each category. The browser is
`chromium-headless-shell`, `chromium`, or the program that SKILL_CHROMIUM names
(`workflow/chromium.sh` unpacks one without root). Exits with 1 where there is none, where a figure
is not in the report, or where a chart of DVC's is not drawn.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

SHOWN = {"report-layers": "dendrogram-", "report-training": "layers.png", "report-results": "size."}
_WAIT = "<script>setTimeout(() => {{ {steps} }}, 500)</script>"
_STEPS = """const path = {path}, category = {category};
app.setView({{navbarMode: "resultinfo", category: category,
    subcategory: Object.keys(categories[category])[0], resultPath: path,
    content: "img", contentPath: results[path].data_uri}});"""
_REMOTE = re.compile(r'<script src="https://[^"]*/(vega(?:-lite|-embed)?)@[^"]*"></script>')


def results_of(report: str) -> dict[str, str]:
    """{path of a result: its category} of a report's text."""
    start = report.rindex("var categories = ") + len("var categories = ")
    categories, _ = json.JSONDecoder().raw_decode(report, start)
    return {
        path: category
        for category, parts in categories.items()
        for paths in parts.values()
        for path in paths
    }


def offline(page: str) -> str:
    """DVC's page with the Vega that Snakemake ships in the place of the one from the network."""
    found = find_spec("snakemake.assets")
    assert found is not None and found.origin is not None
    data = Path(found.origin).parent / "data"

    def script(match: re.Match[str]) -> str:
        name = match[1]
        source = (data / name / f"{name}.js").as_uri()
        return f'<script src="{source}" charset="utf-8"></script>'

    return _REMOTE.sub(script, page)


def browse(browser: str, page: Path, *options: str) -> str:
    """Load a local page; what the browser prints of it."""
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--window-size=1400,900", "--virtual-time-budget=6000", *options, page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        sys.exit(f"{browser}: {page} does not load: {done.stderr[-500:]}")
    return done.stdout


def shoot(browser: str, text: str, picture: Path, drawn: int = 0) -> None:
    """Photograph a page on which at least `drawn` canvases must be, in 128 colours."""
    with tempfile.TemporaryDirectory() as place:
        page, taken = Path(place, "page.html"), Path(place, "taken.png")
        page.write_text(text, encoding="utf-8")
        count = browse(browser, page, "--dump-dom").count("<canvas") if drawn else 0
        if count < drawn:
            sys.exit(f"{picture.name}: {count} of {drawn} charts are drawn")
        browse(browser, page, f"--screenshot={taken}")
        if not taken.exists():
            sys.exit(f"{browser}: made no picture for {picture.name}")
        Image.open(taken).convert("RGB").quantize(128).save(picture, optimize=True)


def main(report: Path, plots: Path, folder: Path) -> None:
    """Write report.png, one picture for each of `SHOWN`, and plots.png."""
    named = os.environ.get("SKILL_CHROMIUM")
    found = [named, shutil.which("chromium-headless-shell"), shutil.which("chromium")]
    browser = next((program for program in found if program), None)
    if browser is None:
        sys.exit("there is no Chromium: install it, or name it in SKILL_CHROMIUM")
    folder.mkdir(parents=True, exist_ok=True)
    text = report.read_text(encoding="utf-8")
    results = results_of(text)
    shoot(browser, text, folder / "report.png")
    for name, start in SHOWN.items():
        paths = [path for path in results if Path(path).name.startswith(start)]
        if not paths:
            sys.exit(f"{report}: has no figure {start}")
        quoted = {"path": json.dumps(paths[0]), "category": json.dumps(results[paths[0]])}
        steps = _WAIT.format(steps=_STEPS.format(**quoted))
        shoot(browser, text + steps, folder / f"{name}.png")
    page = plots.read_text(encoding="utf-8")
    shoot(browser, offline(page), folder / "plots.png", drawn=page.count("vegaEmbed("))


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
