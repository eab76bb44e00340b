"""Pictures of Snakemake's report, taken by headless Chromium: the front page and a figure of each
category, as a reader sees them.

    snakemake --report report.html && python workflow/screenshots.py report.html docs/images

The browser is `chromium-headless-shell`, `chromium`, or the program that SKILL_CHROMIUM names.
Exits with 1 where there is none, or where a figure is not in the report.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SHOWN = {"report-layers": "similarity-", "report-training": "layers.png", "report-results": "size."}
_WAIT = "<script>setTimeout(() => {{ {steps} }}, 500)</script>"
_STEPS = """const path = {path}, category = {category};
app.setView({{navbarMode: "resultinfo", category: category,
    subcategory: Object.keys(categories[category])[0], resultPath: path,
    content: "img", contentPath: results[path].data_uri}});"""


def results_of(report: str) -> dict[str, list[str]]:
    """{path of a result: its categories} of a report's text."""
    start = report.rindex("var categories = ") + len("var categories = ")
    categories, _ = json.JSONDecoder().raw_decode(report, start)
    return {
        path: [category]
        for category, parts in categories.items()
        for paths in parts.values()
        for path in paths
    }


def shoot(browser: str, page: Path, picture: Path) -> None:
    """Photograph a local page."""
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        "--window-size=1400,900", "--virtual-time-budget=6000", f"--screenshot={picture}",
        page.resolve().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode or not picture.exists():
        sys.exit(f"{browser}: no picture of {page}: {done.stderr[-500:]}")


def main(report: Path, folder: Path) -> None:
    """Write report.png and one picture for each of `SHOWN`."""
    named = os.environ.get("SKILL_CHROMIUM")
    found = [named, shutil.which("chromium-headless-shell"), shutil.which("chromium")]
    browser = next((program for program in found if program), None)
    if browser is None:
        sys.exit("there is no Chromium: install it, or name it in SKILL_CHROMIUM")
    folder.mkdir(parents=True, exist_ok=True)
    text = report.read_text(encoding="utf-8")
    results = results_of(text)
    shoot(browser, report, folder / "report.png")
    for name, start in SHOWN.items():
        paths = [path for path in results if Path(path).name.startswith(start)]
        if not paths:
            sys.exit(f"{report}: has no figure {start}")
        quoted = {"path": json.dumps(paths[0]), "category": json.dumps(results[paths[0]][0])}
        with tempfile.TemporaryDirectory() as place:
            page = Path(place, "report.html")
            steps = _WAIT.format(steps=_STEPS.format(**quoted))
            page.write_text(text + steps, encoding="utf-8")
            shoot(browser, page, folder / f"{name}.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
