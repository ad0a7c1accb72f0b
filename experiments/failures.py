"""The exceptions for trouble that is neither the user's mistake nor a run's own failure."""

import errno

FULL_OR_READ_ONLY = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # which no patience mends


class OperationError(Exception):
    """Something on this machine does not work, such as starting a process; the message is complete.

    The command line prints it without a traceback and exits with code 1.
    """


class DeviceBrokenError(OperationError):
    """The accelerator has failed this process, which cannot use it any more; a new process may."""
