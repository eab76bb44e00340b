"""`snakemake --lint`, with one advice left out: the environment is locked, so no conda per rule."""

import json
import subprocess
import sys

ALLOWED = "Specify a conda environment or container for each rule."


def main() -> int:
    """Print what the linter says; 1 if it says anything."""
    run = subprocess.run(
        ["snakemake", "--lint", "json"], capture_output=True, text=True, check=False
    )
    start = run.stdout.find("{")
    if start < 0:
        print(run.stdout + run.stderr, file=sys.stderr)
        return run.returncode
    report = json.loads(run.stdout[start:])
    found = [
        f"{part.get('rule', 'Snakefile')}: {lint['title']}"
        for part in [*report.get("rules", []), *report.get("snakefiles", [])]
        for lint in part["lints"]
        if lint["title"] != ALLOWED
    ]
    print("\n".join(found) or "snakemake --lint: nothing to say")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
