"""The prefix tree against dictionaries of whole token lists."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tapster.runtime.engines.llamacpp.prefix_tree import Duplicate, PrefixTree
from tapster.runtime.engines.local.prefix import common_prefix

IDS = st.lists(st.integers(0, 2), max_size=12)


def shared(a: list[int], b: list[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@given(IDS, IDS, st.integers(0, 12))
def test_common_prefix_equals_a_loop(a: list[int], b: list[int], limit: int) -> None:
    assert common_prefix(a, 0, b, 0, limit) == min(shared(a, b), limit)


@settings(max_examples=500)
@given(st.data())
def test_behaves_like_a_dictionary_of_lists(data: st.DataObject) -> None:
    """Random shares, extensions and removals; matches and cell counts equal those of the plain model."""
    tree, plain, whole = PrefixTree(), dict[int, list[int]](), dict[int, list[int]]()
    for step in range(data.draw(st.integers(1, 20))):
        action = data.draw(st.sampled_from(["new", "extend", "remove"]))
        if action == "new":
            ids = data.draw(IDS)
            length, owner = tree.match(ids, len(ids))
            assert length == max((shared(ids, held) for held in plain.values()), default=0)
            if length:
                assert owner is not None
                assert plain[owner][:length] == ids[:length]
            tree.share(step, ids, length)
            plain[step], whole[step] = ids[:length], ids
        elif plain:
            seq_id = data.draw(st.sampled_from(sorted(plain)))
            if action == "remove":
                tree.remove(seq_id)
                del plain[seq_id]
            else:
                extend_and_check(tree, plain, whole, seq_id, data)
        distinct = {tuple(ids[: n + 1]) for ids in plain.values() for n in range(len(ids))}
        assert tree.num_cells == len(distinct)
        assert tree.cells_held_by(set(plain)) == len(distinct)


def extend_and_check(
    tree: PrefixTree, plain: dict[int, list[int]], whole: dict[int, list[int]], seq_id: int, data: st.DataObject
) -> None:
    ids = whole[seq_id]
    before, after = len(plain[seq_id]), data.draw(st.integers(len(plain[seq_id]), len(ids)))
    duplicates = tree.extend(seq_id, ids, after)
    known = {n for n in range(before, after) if any(plain[o][: n + 1] == ids[: n + 1] for o in plain if o != seq_id)}
    assert {n for d in duplicates for n in range(d.start, d.end)} == known
    for duplicate in duplicates:
        assert plain[duplicate.owner][: duplicate.end] == ids[: duplicate.end]
    plain[seq_id] = ids[:after]
    assert tree.tokens(seq_id) == plain[seq_id]


def test_two_that_computed_the_same_are_told_apart_from_their_difference() -> None:
    tree = PrefixTree()
    assert tree.extend(1, [7, 8, 9], 3) == []
    assert tree.extend(2, [7, 8, 5, 6], 4) == [Duplicate(0, 2, 1)]
    assert tree.num_cells == 5
    tree.remove(1)
    assert tree.num_cells == 4
    assert tree.match([7, 8, 9], 3) == (2, 2)


def test_a_prefix_is_covered_by_a_longer_one() -> None:
    tree = PrefixTree()
    tree.extend(1, [1, 2], 2)
    tree.extend(2, [1, 2, 3], 3)
    assert tree.is_covered(1, {2})
    assert not tree.is_covered(2, {1})
