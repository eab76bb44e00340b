# SKILL, from speech corpora to the paper's tables and figures. This file is the table of contents;
# the numbers of the experiment stand in params.yaml (or in the file that
# `--config params=FILE` names), what a rule runs stands in src/skill.

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/corpora.smk"
include: "workflow/rules/teachers.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/similarity.smk"
include: "workflow/rules/clustering.smk"
include: "workflow/rules/stage1.smk"
include: "workflow/rules/stage2.smk"
include: "workflow/rules/superb.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/studies.smk"


rule all:
    default_target: True
    input:
        PAPER,
