"""An answer as people read it."""

import sys
from typing import Any

from holdfast.agent import Answer
from holdfast.feature import RELEASE

SHOWN = 40


def lines(title: str, answer: Answer) -> list[str]:
    """One line per change; refusals, faults and what is pending named after them."""
    count = (
        f"{len(answer.changes)} change{'' if len(answer.changes) == 1 else 's'}" if answer.changes else "nothing to do"
    )
    said = [f"{title}: {answer.reason or count}, generation {answer.generation}, {answer.seconds:.2f} s"]
    said += answer.changes[:SHOWN]
    if len(answer.changes) > SHOWN:
        said.append(f"  … and {len(answer.changes) - SHOWN} more changes")
    said += [f"refused: {text}" for text in answer.refused[:SHOWN]]
    if len(answer.refused) > SHOWN:
        said.append(f"refused: … and {len(answer.refused) - SHOWN} more")
    said += [f"warning: {text}" for text in answer.warnings[:SHOWN]]
    said += [f"stored, not applied yet: {text}" for text in answer.stored[:SHOWN]]
    said += [f"not as wanted: {text}" for text in answer.faults]
    said += [f"conflict: {text}" for text in answer.conflicts]
    said += [f"damaged: {text}" for text in answer.damage]
    kept = [text for text in answer.pending if text.endswith(RELEASE)]
    said += [f"pending: {text}" for text in answer.pending if text not in kept]
    if kept:
        said.append(f"pending: {len(kept)} more (holdfast status lists them)")
    return said


def tell(title: str, answer: Any) -> int:
    """Print and return the exit status."""
    sys.stdout.write("".join(f"{line}\n" for line in lines(title, answer)))
    return int(answer.code)
