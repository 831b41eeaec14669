"""Stretches of a text whose borders two tokenizers share."""

from __future__ import annotations

from collections.abc import Sequence


def shared_borders(ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[slice, slice]]:
    """For each smallest stretch of text that both cover with whole tokens: which tokens of each.

    ``ours`` and ``theirs`` are the offsets, in bytes or characters, at which the tokens of one text end, ascending;
    both begin at 0. A token without text, like an end of turn, ends where the one before it does and joins its stretch.
    What follows the last shared border is in no stretch.
    """
    stretches: list[tuple[slice, slice]] = []
    begin_ours = begin_theirs = i = j = 0
    while i < len(ours) and j < len(theirs):
        if ours[i] < theirs[j]:
            i += 1
        elif ours[i] > theirs[j]:
            j += 1
        else:
            border = ours[i]
            while i < len(ours) and ours[i] == border:
                i += 1
            while j < len(theirs) and theirs[j] == border:
                j += 1
            stretches.append((slice(begin_ours, i), slice(begin_theirs, j)))
            begin_ours, begin_theirs = i, j
    return stretches
