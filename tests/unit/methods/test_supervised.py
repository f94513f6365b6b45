import pytest
import torch
from pydantic import ValidationError

from tunesmith.methods.base import Scored
from tunesmith.methods.method import METHODS, method
from tunesmith.methods.supervised import Supervised, SupervisedConfig, SupervisedHyperparameters


def test_the_loss_is_a_weighted_sum_and_a_count() -> None:
    logp = torch.tensor([-1.0, -2.0, -4.0], requires_grad=True)
    scored = Scored(logp, torch.tensor([True, False, True]), torch.tensor([1.0, 0.5, 1.0]), (3,))
    loss = Supervised().loss(scored)
    assert float(loss.total.detach()) == 6.0
    assert loss.count == 2.5
    hits, count = loss.metrics["mean_token_accuracy"]
    assert (float(hits), count) == (2.0, 3.0)
    loss.total.backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [-1.0, -0.5, -1.0]


def test_what_is_left_out_is_auto() -> None:
    assert SupervisedConfig().hyperparameters.model_dump() == {
        "batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto",
    }  # fmt: skip


@pytest.mark.parametrize(
    "knobs",
    [{"n_epochs": 1, "batch_size": 256, "learning_rate_multiplier": 0.01}, {"n_epochs": 50, "batch_size": "auto"}],
)
def test_values_in_range_are_taken(knobs: dict[str, object]) -> None:
    given = SupervisedHyperparameters.model_validate(knobs).model_dump()
    assert given.items() >= knobs.items()


@pytest.mark.parametrize(
    "knobs",
    [
        {"n_epochs": 0}, {"n_epochs": 51}, {"batch_size": 0}, {"batch_size": 257}, {"learning_rate_multiplier": 0},
        {"n_epochs": "many"}, {"beta": 0.1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(knobs: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SupervisedHyperparameters.model_validate(knobs)


def test_methods_are_found_by_the_name_on_the_wire() -> None:
    assert isinstance(method("supervised"), Supervised)
    assert all(found.name == name for name, found in METHODS.items())
    with pytest.raises(ValueError, match="no training method `kto`; there are: dpo, reinforcement, supervised"):
        method("kto")
