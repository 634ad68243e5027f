"""The registry of strategies, and what `adaptive` chooses from it."""

from itertools import pairwise
from math import sqrt

import pytest

from phase21.domain.plans import REASONS
from phase21.domain.records import AgentRecord
from phase21.domain.tasks import Task
from phase21.planning.forecast import Forecast
from phase21.planning.planner import plan
from phase21.planning.registry import ADAPTIVE, CHOSEN_FROM, NAMES, STRATEGIES, chosen


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_reasons_have_words(name):
    """Every strategy's reason is one that can be told, and so is every choice of its plans."""
    assert STRATEGIES[name].reason in REASONS
    agents = [AgentRecord(agent_id=one) for one in "ab"]
    tasks = [Task(task_id=f"t{n}", predictions={"a": 0.9, "b": 0.8}) for n in range(3)] + [Task(task_id="p", agent_id="b")]
    made = plan(tasks, agents, forecast=Forecast(agents, enabled=True), strategy=name)
    assert {choice.reason for choice in made.choices} <= set(REASONS)


def test_names():
    """What may be configured is every strategy, and `adaptive`, which chooses among some of them."""
    assert ADAPTIVE in NAMES
    assert ADAPTIVE not in STRATEGIES
    assert set(CHOSEN_FROM) < set(STRATEGIES) < set(NAMES)
    assert len(set(NAMES)) == len(NAMES)


def test_what_was_not_tried_is_tried_first():
    """Every strategy without a record has its turn first, in their order, whatever the others did."""
    record = {}
    for name in CHOSEN_FROM:
        assert chosen(record) == name
        record[name] = (1000, 1000)
    assert chosen({CHOSEN_FROM[0]: (0, 0)}) == CHOSEN_FROM[0]


def test_the_highest_bound_is_chosen():
    """With records the highest upper confidence bound of successes per attempt is taken; a wide one may beat a better rate."""
    surely = dict.fromkeys(CHOSEN_FROM, (1000, 500))
    assert chosen(surely) == CHOSEN_FROM[0]
    assert chosen(surely | {"thompson": (1000, 520)}) == "thompson"
    assert chosen(surely | {"balance_load": (4, 2)}) == "balance_load"
    rate = 501 / 1002
    bound = rate + sqrt(rate * (1 - rate) / 1000)
    near = [(10_000, successes) for successes in range(4900, 5300)]
    above = [chosen(surely | {"thompson": of}) == "thompson" for of in near]
    assert above == [(p := (s + 1) / (n + 2)) + sqrt(p * (1 - p) / n) > bound for n, s in near]
    assert sum(before != now for before, now in pairwise(above)) == 1


def test_the_better_is_chosen_in_the_long_run():
    """A strategy that succeeds more often gets most waves, and the others still one now and then."""
    rates = dict(zip(CHOSEN_FROM, (0.5, 0.9, 0.6, 0.5), strict=True))
    record, taken = {}, dict.fromkeys(CHOSEN_FROM, 0)
    for _ in range(200):
        name = chosen(record)
        taken[name] += 1
        attempts, successes = record.get(name, (0, 0))
        record[name] = (attempts + 10, successes + round(10 * rates[name]))
    assert taken[CHOSEN_FROM[1]] > 180
    assert min(taken.values()) >= 1
