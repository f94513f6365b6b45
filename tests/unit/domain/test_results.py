"""The result file: the recorded columns, one row a step, empty cells for what was not measured."""

from tunesmith.domain.results import results_csv


def test_the_header_and_the_cells() -> None:
    rows = [
        (1, {"train_loss": 0.5, "train_mean_token_accuracy": 0.25}),
        (2, {"train_loss": None, "valid_loss": 0.1234567, "valid_mean_token_accuracy": 1.0, "full_valid_loss": 2.0}),
    ]
    assert b"".join(results_csv(rows)).decode().splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,train_mean_token_accuracy,full_valid_loss,"
        "full_valid_mean_token_accuracy",
        "1,0.50000,0.25000,,,0.25000,,",
        "2,,,0.12346,1.00000,,2.00000,",
    ]
    assert list(results_csv([])) == [next(results_csv([]))]
