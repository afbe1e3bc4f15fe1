"""Words that get through wherever a connection can be made, in place of long ones that do not.

The first packet of TLS, which begins every encrypted connection, is of 300 to 500 bytes, and no path in use carries
less than 576.  What is made here is smaller, whatever it is made of, with the headers of TLS, TCP and IPv6 around it.
"""

from __future__ import annotations

import pickle
from typing import TypeVar

from .outcome import unpack_failure
from .protocol import GiveBack, RebuildFailure, SetupFailure

_MOST_MESSAGE, _MOST_NAME = 270, 40  # bytes of text
_MOST_NUMBERS = 5  # of tasks; the master takes back the others when it is asked for a lease, or the runner ends

Word = TypeVar("Word", GiveBack, RebuildFailure, SetupFailure)


def pack_brief_failure(type_name: str, message: str) -> bytes:
    """A failure as `outcome.pack_failure` packs it, without traceback and exception."""
    return pickle.dumps((clipped(type_name, _MOST_NAME), clipped(message, _MOST_MESSAGE), "", None), 5)


def brief(word: Word) -> Word:
    """The same word, as far as it can be said in few bytes."""
    if isinstance(word, GiveBack):
        return word._replace(unstarted=word.unstarted[:_MOST_NUMBERS])
    failure = unpack_failure(word.data)
    data = pack_brief_failure(failure.type_name, failure.message)
    if isinstance(word, SetupFailure):
        return word._replace(data=data, unstarted=word.unstarted[:_MOST_NUMBERS])
    return word._replace(data=data, module=clipped(word.module, _MOST_NAME), remedy="")


def clipped(text: str, most: int) -> str:
    """The beginning and the end of a text, of ``most`` bytes at most."""
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= most:
        return text
    end = most // 3
    return f"{data[: most - end - 3].decode('utf-8', 'ignore')}...{data[-end:].decode('utf-8', 'ignore')}"
