"""A clock that tests set."""


class Clock:
    """It stands in for the module `time`."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now
