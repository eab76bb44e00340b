"""The one error that users see: bad input, said in words."""


class SkillError(Exception):
    """Bad input. The message names the file, key or utterance and says what is wrong with it."""
