"""A clock for waits that tests make jump."""


class Jumping:
    """A sleep on it takes no time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
