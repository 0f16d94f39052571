"""What is said to the user: the exception that means, you can mend this, and a warning about the noise."""

from __future__ import annotations


class UserError(ValueError):
    """Something the caller can put right: a rule, the value that broke it (both in `rule`), and the `fix`.

    The command line prints the message on one line and exits with status 2; every other exception is a bug of
    ours and exits with status 1.

    >>> raise UserError("steps must be a positive integer", got=0, fix="pass steps=10")
    Traceback (most recent call last):
    noiseopt.errors.UserError: steps must be a positive integer; got 0; fix: pass steps=10
    """

    def __init__(self, rule: str, *, got: object = None, fix: str) -> None:
        """`rule`: what must hold. `got`: the value received (left out when None). `fix`: what to do."""
        self.rule = rule if got is None else f"{rule}; got {_short(got)}"
        self.fix = fix
        super().__init__(f"{self.rule}; fix: {fix}")

    def about(self, who: str) -> UserError:
        """The same, of somebody named."""
        return UserError(f"{who}: {self.rule}", fix=self.fix)


class NoiseWarning(UserWarning):
    """Noise is not where, or not whose, the caller may think."""


class Diverged(UserError):
    """A loss that is not finite any more."""


def _short(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."
