"""Names that cannot be served."""

nothing = None
number = 42


def factory():
    """Gives nothing back."""
