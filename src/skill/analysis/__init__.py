"""Which layers are alike, from files to files: the verbs around the mathematics of
`skill.similarity`, `skill.grouping` and `skill.stability`."""
