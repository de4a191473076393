"""What a dead letter means for people."""

from typing import Any

from msgspec import ValidationError, convert

from webimages.messages import Task

__all__ = ["reason_of", "task_of"]

# Errors whose text was written to be read, in this example: their type adds nothing.
_PLAIN = {"Reject", "CannotFetch", "TryAgain", "NotAnImage", "Poison"}


def task_of(letter: Any) -> Task | None:
    """Return the task that a message was about, whatever role it was for; None if about none."""
    if not isinstance(letter, dict):
        return None
    try:
        return convert(letter.get("task"), Task)
    except ValidationError:
        return None


def reason_of(error: str, text: str, attempts: int = 1) -> str:
    """Return why a message failed, in a sentence, and how often it was tried if more than once."""
    if error in _PLAIN and text:
        reason = text
    else:
        reason = ": ".join(part for part in (error, text) if part) or "nobody said why"
    return reason if attempts < 2 else f"{reason} (tried {attempts} times)"
