import math

import pytest
import torch

from batchlab.errors import InvalidValueError
from batchlab.models.transformer import Attention, CausalTransformer


@pytest.fixture
def model():
    torch.manual_seed(0)
    return CausalTransformer(vocabulary=11, length=9, width=8, heads=2, dropout=0.5).eval()


def test_attention_equals_the_equation():
    layer, x = Attention(width=6, heads=2), torch.randn(3, 5, 6)
    query, key, value = layer.project_in(x).chunk(3, -1)
    mask = torch.full((5, 5), -math.inf).triu(1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        scores = query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(3)
        heads.append((scores + mask).softmax(-1) @ value[..., part])
    assert torch.allclose(layer(x), layer.project_out(torch.cat(heads, -1)), atol=1e-6)


@pytest.mark.parametrize("changed", range(9))
def test_a_token_changes_nothing_before_it(model, changed):
    tokens = torch.randint(10, (2, 9))
    other = tokens.clone()
    other[:, changed] = 10
    before, after = model(tokens), model(other)
    assert torch.allclose(before[:, :changed], after[:, :changed], atol=1e-6)
    assert not torch.allclose(before[:, changed:], after[:, changed:], atol=1e-3)


def test_padding_at_the_end_changes_nothing_before_it(model):
    tokens = torch.randint(11, (2, 5))
    padded = torch.cat([tokens, torch.zeros(2, 3, dtype=torch.long)], dim=1)
    assert torch.allclose(model(padded)[:, :5], model(tokens), atol=1e-6)


def test_dropout_acts_in_training_only(model):
    tokens = torch.randint(11, (2, 5))
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    assert not torch.equal(model(tokens), model(tokens))


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(InvalidValueError, match="`width` must be a multiple of the 3 heads"):
        CausalTransformer(vocabulary=4, length=4, width=8, heads=3)
