"""A LightningModule whose network is wrapped: trained by Lightning, read, and saved."""

import copy

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from batchlab.models.feature_strength import FeatureStrength
from tests.lightning import made

GAMMA = 2.0


def module():
    torch.manual_seed(0)
    return made.kind(layers=lambda: FeatureStrength(made.net(), GAMMA))()


def fitted(model, folder):
    trainer = made.PACKAGES["lightning"].Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        enable_checkpointing=False,
    )
    trainer.fit(model, DataLoader(made.points(), batch_size=made.BATCH))
    return trainer


def by_hand(gamma=GAMMA):
    """The same training written out."""
    model = module().layers.model
    start = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        for inputs, labels in DataLoader(made.points(), batch_size=made.BATCH):
            optimizer.zero_grad()
            outputs = (model(inputs) - start(inputs).detach()) / gamma
            cross_entropy(outputs, labels).backward()
            optimizer.step()
    return model


def test_lightning_trains_the_centred_network(tmp_path):
    model = module()
    fitted(model, tmp_path)
    inputs = made.points()[:][0]
    assert torch.allclose(model.layers.model(inputs), by_hand()(inputs), atol=1e-5)
    assert not torch.allclose(model.layers.model(inputs), by_hand(1.0)(inputs), atol=1e-3)


def test_a_checkpoint_of_lightning_restores_the_wrapper(tmp_path):
    model = module()
    fitted(model, tmp_path).save_checkpoint(tmp_path / "end.ckpt")
    other = made.kind(layers=lambda: FeatureStrength(made.net(), 1.0))()
    other.load_state_dict(torch.load(tmp_path / "end.ckpt", weights_only=True)["state_dict"])
    inputs = made.points()[:][0]
    assert torch.equal(other(inputs), model(inputs))
    assert float(other.layers.gamma) == GAMMA
