import pytest
import torch
from torch import nn

from batchlab.errors import InvalidValueError
from batchlab.models.resnet import Block, ResNet, cifar_resnet, resnet18


@pytest.mark.parametrize(("depth", "published"), [(20, 272_474), (32, 466_906)])
def test_parameters_equal_the_published_count(depth, published):
    assert sum(p.numel() for p in cifar_resnet(depth).parameters()) == published


def test_resnet18_has_the_count_of_its_small_picture_form():
    assert sum(p.numel() for p in resnet18().parameters()) == 11_173_962


@pytest.mark.parametrize("depth", [8, 14, 20])
def test_depth_counts_the_layers_with_weights(depth):
    model = cifar_resnet(depth)
    kinds = (nn.Conv2d, nn.Linear)
    shortcuts = sum(isinstance(b.shortcut, nn.Sequential) for b in model.stages)
    assert sum(isinstance(m, kinds) for m in model.modules()) - shortcuts == depth


@pytest.mark.parametrize("depth", [2, 7, 10, -4])
def test_an_impossible_depth_is_refused(depth):
    with pytest.raises(InvalidValueError, match="`depth` must be 6n"):
        cifar_resnet(depth)


def test_a_block_with_a_silent_branch_is_relu():
    block = Block(3, 3)
    nn.init.zeros_(block.branch[-1].weight)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(block(x), x.relu())


def test_batch_norm_ties_examples_in_training_only():
    model, images = ResNet(blocks=(1, 1), width=4), torch.randn(4, 3, 8, 8)
    together = model(images)[:2]
    assert not torch.allclose(together, model(images[:2]), atol=1e-3)
    model.eval()
    assert torch.allclose(model(images)[:2], model(images[:2]), atol=1e-5)
