"""Lightning is not imported, and its own methods are told from the user's."""

import pytest

from batchlab.lightning.kinds import is_a, overrides
from tests.lightning import made
from tests.test_imports import BLOCK, HEAVY, loaded_by, run


def test_reading_needs_neither_lightning_nor_an_extra():
    assert loaded_by("import batchlab.lightning") & {*HEAVY, "lightning", "torchmetrics"} == set()


def test_it_works_with_the_core_install():
    done = run(f"{BLOCK}\nfrom batchlab.lightning import task")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", list(made.PACKAGES))
def test_lightnings_objects_are_known_by_what_they_are_made_of(package):
    class Mine(made.kind(package)):
        """Of a class of the user's."""

    assert is_a(Mine(), "LightningModule")
    assert is_a(made.trainer(package), "Trainer")
    assert not is_a(made.trainer(package), "LightningModule")


def test_a_class_that_only_has_the_name_is_not_lightnings():
    assert not is_a(type("LightningModule", (), {})(), "LightningModule")


@pytest.mark.parametrize("package", list(made.PACKAGES))
def test_the_users_methods_are_told_from_lightnings(package):
    module = made.module(package)
    assert overrides(module, "training_step")
    assert not overrides(module, "backward")
    assert not overrides(module, "there_is_no_such_method")


def test_a_method_set_on_the_object_is_the_users():
    module = made.module()
    module.backward = print
    assert overrides(module, "backward")
