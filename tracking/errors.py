"""What exceptions say."""


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says; where it says nothing, its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
