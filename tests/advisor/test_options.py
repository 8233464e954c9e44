"""What may be asked, and the sentence for what may not."""

import math

import pytest

from batchlab.advisor.options import MOST_SEEDS, Options
from batchlab.advisor.record import Price
from batchlab.errors import InvalidValueError

PRICE = Price(1.0, "USD")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"objective": "fame"}, "`objective` must be one of time, cost, samples, accuracy"),
        ({"objective": "cost"}, "`objective` must be time, samples or accuracy where no price"),
        ({"worth": 1.0}, "`worth` must be a ratio above 1"),
        ({"worth": math.inf}, "`worth` must be a ratio above 1"),
        ({"budget": 0.0}, "`budget` must be above 0 seconds"),
        ({"budget": math.nan}, "`budget` must be above 0 seconds"),
        ({"seeds": 1}, "`seeds` must be a whole number, 2 or more"),
        ({"seeds": MOST_SEEDS + 1}, "`seeds` must be at most 900"),
        ({"confirm_seeds": 2}, "`confirm_seeds` must be a whole number, 3 or more"),
        ({"seconds_per_sample": -1.0}, "`seconds_per_sample` must be 0 seconds or more"),
        ({"seconds_per_sample": math.inf}, "`seconds_per_sample` must be 0 seconds or more"),
        ({"seed": -1}, "`seed` must be a whole number, 0 or more"),
        ({"batch_sizes": (8, 0)}, "`batch_sizes` must be whole numbers, 1 or more"),
        ({"memory_limit": "lots"}, "`memory_limit` must be"),
        ({"target": math.nan}, "`target` must be a finite metric value"),
        ({"at_least": {"accuracy": math.inf}}, "`accuracy` must be a finite metric value"),
    ],
)
def test_an_impossible_wish_is_one_sentence(given, sentence):
    with pytest.raises(InvalidValueError, match=sentence):
        Options(**given)


@pytest.mark.parametrize("objective", ["time", "cost", "samples", "accuracy"])
def test_every_objective_is_possible_with_a_price(objective):
    assert Options(objective=objective, price=PRICE).objective == objective
