"""Names: equal for equal identities, different for different ones, and valid whatever goes in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloaca.resources.names import (
    RESERVED_RUN_NAME,
    RESERVED_TRIGGER_NAME,
    RESERVED_WORDS,
    keyed_run_name,
    label_value,
    manual_run_name,
    object_name,
    run_labels,
    scheduled_run_name,
    tick_of,
    tick_run_name,
    trigger_labels,
    trigger_object_name,
)

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
TEXT = st.text(st.characters(codec=None), max_size=300)  # lone surrogates too: a file name may hold any byte


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("data-ingest", "data-ingest", id="valid"),
        pytest.param("data_ingest", "data-ingest", id="underscore"),
        pytest.param("Data.Ingest", "data-ingest", id="upper case and dot"),
        pytest.param("data ingest", "data-ingest-wvlgkz", id="lossy"),
        pytest.param("data/ingest", "data-ingest-lyhllr", id="lossy in another way"),
        pytest.param("_private", "private-httmes", id="bad first character"),
        pytest.param("数据", "x-krapoq", id="nothing is left"),
        pytest.param("", "x-4oymiq", id="empty"),
        pytest.param("a" * 60, "a" * 45 + "-chxdse", id="too long"),
    ],
)
def test_object_name(text: str, name: str) -> None:
    assert object_name(text) == name


@pytest.mark.parametrize(
    ("package", "trigger", "name"),
    [
        pytest.param("data-ingest", "inbox_watcher", "data-ingest-inbox-watcher", id="short"),
        pytest.param("data-ingest", "Inbox", "data-ingest-inbox-l6i76v", id="upper case"),
        pytest.param("p" * 30, "inbox_watcher", "p" * 30 + "-in-cfxfm5", id="long"),
        pytest.param("p" * 60, "inbox_watcher", "p" * 33 + "-7qi5x3", id="long package"),
    ],
)
def test_trigger_object_name(package: str, trigger: str, name: str) -> None:
    assert trigger_object_name(package, trigger) == name


def test_a_keyed_run_is_named_after_trigger_uid_and_key() -> None:
    name = keyed_run_name("inbox", "uid-1", "orders.parquet")
    assert name == "inbox-" + name[-10:]
    assert keyed_run_name("inbox", "uid-1", "orders.parquet") == name
    assert keyed_run_name("inbox", "uid-2", "orders.parquet") != name
    assert keyed_run_name("inbox", "uid-1", "orders.parquet ") != name
    assert keyed_run_name("inbox", "uid-1o", "rders.parquet") != name


def test_a_run_without_a_key_is_named_after_its_tick() -> None:
    assert tick_run_name("inbox", 7) == "inbox-7"
    assert tick_run_name("inbox", 7, 0) == "inbox-7-0"


def test_a_run_by_hand_is_named_by_what_the_caller_brings() -> None:
    assert manual_run_name("data_ingest", "k3x9q") == "data-ingest-k3x9q"


RESERVED = re.compile(RESERVED_RUN_NAME)
WORDY = st.lists(
    st.sampled_from(["a", "data", "poller", "inspect", "source", "Poller", "7"]), min_size=1, max_size=9
).map("-".join)


def test_a_trigger_whose_name_is_a_reserved_word_is_told_apart_by_a_hash() -> None:
    for word in RESERVED_WORDS:
        name = trigger_object_name("data", word)
        assert re.fullmatch(f"data-{word}-[a-z2-7]{{6}}", name)
        assert trigger_object_name(f"data-{word}", "x") == f"data-{word}-x"
    assert trigger_object_name("data", "pollers") == "data-pollers"


def test_runs_of_a_trigger_that_was_made_before_words_were_reserved_have_names_of_their_own() -> None:
    assert re.fullmatch("data-poller-[a-z2-7]{6}-7", tick_run_name("data-poller", 7))
    assert tick_of("data-poller", tick_run_name("data-poller", 7)) == 7
    assert re.fullmatch("data-poller-[a-z2-7]{6}-[a-z2-7]{10}", keyed_run_name("data-poller", "uid", "key"))
    assert tick_run_name("data-poller", 7, 0) == "data-poller-7-0"  # no pod of a poller is named so


@given(package=WORDY | TEXT, trigger=WORDY | TEXT, text=WORDY | TEXT, tick=st.integers(0, 10**12))
def test_no_name_that_we_make_is_one_that_the_server_refuses(package: str, trigger: str, text: str, tick: int) -> None:
    made = trigger_object_name(package, trigger)
    assert not re.search(RESERVED_TRIGGER_NAME, made)
    for base in (made, package, trigger):  # a person may have named the trigger or the workflow
        runs = [
            keyed_run_name(base, "uid", text),
            tick_run_name(base, tick),
            tick_run_name(base, tick, 0),
            scheduled_run_name(base, tick),
            manual_run_name(base, text),
        ]
        for name in runs:
            assert not RESERVED.search(name), name
            assert DNS_LABEL.fullmatch(name), name
            assert len(name) <= 52, name


@given(base=TEXT, text=TEXT, tick=st.integers(0, 10**12), index=st.none() | st.integers(0, 10**5))
def test_every_name_is_a_dns_label_within_its_limit(base: str, text: str, tick: int, index: int | None) -> None:
    limits = {
        object_name(text): 52,
        trigger_object_name(base, text): 40,
        keyed_run_name(base, "uid", text): 52,
        tick_run_name(base, tick, index): 52,
        manual_run_name(base, text): 52,
    }
    for name, limit in limits.items():
        assert DNS_LABEL.fullmatch(name), name
        assert len(name) <= limit, name


@given(text=TEXT)
def test_every_label_value_is_valid(text: str) -> None:
    assert LABEL_VALUE.fullmatch(label_value(text))
    assert len(label_value(text)) <= 63


@given(first=TEXT, second=TEXT)
def test_what_is_lost_is_told_apart_by_a_hash(first: str, second: str) -> None:
    if object_name(first) == object_name(second):  # only what we hold to be one name: case, '_', '.' and '-'
        assert re.sub("[_.]", "-", first.lower()) == re.sub("[_.]", "-", second.lower())


def test_labels_of_a_run() -> None:
    assert run_labels("data-ingest", "data-ingest-inbox", "Load orders!") == {
        "cloacina.io/package": "data-ingest",
        "cloacina.io/trigger": "data-ingest-inbox",
        "cloacina.io/workflow": "Load-orders-44acqi",
    }
    assert run_labels(workflow="load") == {"cloacina.io/workflow": "load"}
    assert trigger_labels("data-ingest") == {"cloacina.io/package": "data-ingest"}
