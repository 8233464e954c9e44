"""Money: what nodes have cost, and what it still pays for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchlab.cluster.connection import Node, kind_of, need
from batchlab.cluster.dispatch import Call, Trial
from batchlab.cluster.purse import Purse
from batchlab.errors import ClusterError, InvalidValueError

SECONDS = st.floats(0, 1e5)


@given(st.lists(st.tuples(st.floats(0, 100), SECONDS, SECONDS), max_size=8), SECONDS)
def test_money_is_the_sum_of_price_times_seconds(held, later):
    """The naive twin: each node by itself."""
    purse = Purse({str(i): price for i, (price, _, _) in enumerate(held)} or None)
    now = 2e5 + later
    for i, (_, since, _) in enumerate(held):
        purse.use(f"node {i}", str(i), since)
    for i, (_, since, seconds) in enumerate(held):
        if i % 2:
            purse.lose(f"node {i}", since + seconds)
    whole = sum(p * (s if i % 2 else now - a) for i, (p, a, s) in enumerate(held)) / 3600
    assert purse.spent(now) == pytest.approx(whole, abs=1e-9)


def test_a_node_is_paid_once_however_many_cells_run_there():
    purse = Purse(3600.0)
    for now in (0.0, 1.0, 5.0):
        purse.use("node", "cpu", now)
    assert purse.spent(10.0) == 10.0
    purse.rest(10.0)
    assert purse.spent(99.0) == 10.0


def test_the_limit_counts_what_the_nodes_will_cost():
    purse = Purse(3600.0, limit=20.0)
    purse.use("node", "cpu", 0.0)
    assert purse.pays(purse.after(10.0, 10.0))
    assert not purse.pays(purse.after(10.0, 10.5))
    assert not purse.pays(purse.after(10.0, 10.0, more=1.0))


@pytest.mark.parametrize(
    ("price", "limit", "words"),
    [
        (-1.0, None, "`price_per_hour` must be 0 or more"),
        ({"cpu": float("nan")}, None, "`price_per_hour` must be 0 or more"),
        (1.0, 0.0, "`max_spend` must be above 0"),
        (None, 1.0, "`max_spend` must be given with a price"),
    ],
)
def test_impossible_money_is_refused(price, limit, words):
    with pytest.raises(InvalidValueError, match=words):
        Purse(price, limit)


def test_a_kind_without_a_price_is_refused_by_name():
    with pytest.raises(InvalidValueError, match=r"given for every kind; .* gpu-b=PRICE"):
        Purse({"gpu-a": 1.0}).price("gpu-b")


def test_kinds_come_from_labels_before_resources_before_models():
    offers = {"CPU": 2.0, "memory": 1.0, "node:1.2.3.4": 1.0, "node:__internal_head__": 1.0}
    named = offers | {"accelerator_type:A100": 1.0, "GPU": 1.0}
    assert kind_of(offers, {}) == "cpu"
    assert kind_of(offers | {"GPU": 1.0}, {}) == "gpu"
    assert kind_of(named, {}) == "A100"
    assert kind_of(named | {"gpu-a": 1.0}, {}) == "gpu-a"
    assert kind_of(named | {"gpu-a": 1.0}, {"ray.io/node-group": "spot"}) == "spot"


def test_memory_that_no_node_has_is_said():
    nodes = {"a": Node("a", "cpu", 4.0, 0.0, 2**30)}
    need(nodes, 0, 2**30, "ray")
    with pytest.raises(ClusterError, match=r"the 2\.0 GiB that a cell needs; .* at most 1\.0 GiB"):
        need(nodes, 0, 2**31, "ray")


def test_time_left_follows_the_pace_of_this_attempt():
    # From 40 % to 60 % in ten seconds: twenty more for the rest.
    trial = Trial("a", Call(print, None), share=0.6, before=0.4, began=100.0)
    assert trial.seconds_left(110.0, usual=0.0) == pytest.approx(20.0)
    assert Trial("a", Call(print, None), began=100.0).seconds_left(104.0, usual=10.0) == 6.0
    assert Trial("a", Call(print, None)).seconds_left(104.0, usual=10.0) == 10.0
