"""`snakemake --lint`, with one advice left out: the environment is locked, so no conda per rule."""

import re
import subprocess
import sys

ALLOWED = "Specify a conda environment or container for each rule."


def main() -> int:
    """Print what the linter says; 1 if it says anything."""
    run = subprocess.run(["snakemake", "--lint"], capture_output=True, text=True, check=False)
    text = run.stdout + run.stderr
    titles = [title for title in re.findall(r"^    \* (.*?):$", text, re.M) if title != ALLOWED]
    if titles or "Lints for" not in text:
        print(text, *titles, sep="\n", file=sys.stderr)
        return 1
    print("snakemake --lint: nothing to say")
    return 0


if __name__ == "__main__":
    sys.exit(main())
