"""What a poller remembers of keys that had fired."""

from __future__ import annotations

from cloaca.polling.repeats import Repeats


def test_what_was_seen_is_known_until_it_is_deleted() -> None:
    repeats = Repeats()
    repeats.add("run-a", repeats.mark)
    repeats.add("run-b", repeats.mark)
    repeats.forget("run-a")

    assert ("run-a" in repeats, "run-b" in repeats) == (False, True)


def test_an_answer_that_a_deletion_may_have_overtaken_is_not_kept() -> None:
    repeats = Repeats()
    mark = repeats.mark
    repeats.forget("run-a")
    repeats.add("run-a", mark)

    assert "run-a" not in repeats


def test_after_deletions_that_may_have_been_missed_nothing_is_known() -> None:
    repeats = Repeats()
    mark = repeats.mark
    repeats.add("run-a", mark)
    repeats.clear()
    repeats.add("run-b", mark)

    assert ("run-a" in repeats, "run-b" in repeats) == (False, False)


def test_the_oldest_are_let_go_of() -> None:
    repeats = Repeats(most=2)
    for name in ("run-a", "run-b", "run-c"):
        repeats.add(name, repeats.mark)

    assert [name in repeats for name in ("run-a", "run-b", "run-c")] == [False, True, True]
