"""What goes wrong with SLURM; every message is complete, so whoever catches one shows it as it is."""


class SlurmMistake(Exception):  # noqa: N818 - not an error of the machine's
    """A mistake of the user's; the message says the rule, the value found and what would be valid."""


class SlurmError(Exception):
    """Something on this machine does not work, such as starting a daemon; the message holds the end of its log."""
