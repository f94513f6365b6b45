import json
from pathlib import Path

from tunesmith.cli.demo.rows import write_rows
from tunesmith.cli.demo.tickets import N_HELD_OUT, N_TRAINING, N_VALIDATION, SYSTEM, make_tickets, right

EXAMPLES = Path(__file__).parents[3] / "examples" / "demo"


def test_the_three_sets_share_no_ticket_and_no_text() -> None:
    tickets = make_tickets()
    sets = [tickets.training, tickets.validation, tickets.held_out]
    assert [len(rows) for rows in sets] == [N_TRAINING, N_VALIDATION, N_HELD_OUT]
    assert N_HELD_OUT >= 100
    texts = [ticket.text.casefold() for rows in sets for ticket in rows]
    assert len(set(texts)) == len(texts)


def test_no_held_out_ticket_is_a_training_ticket_in_another_frame() -> None:
    tickets = make_tickets()
    framed = [ticket.text for ticket in tickets.training]
    for ticket in tickets.held_out:
        sentences = [part for part in ticket.text.replace("!", ".").replace("?", ".").split(".") if len(part.split()) > 2]
        assert not any(all(sentence.strip() in text for sentence in sentences) for text in framed), ticket.text


def test_the_same_seed_makes_the_same_tickets_and_another_seed_others() -> None:
    assert make_tickets(1) == make_tickets(1)
    assert make_tickets(1) != make_tickets(2)


def test_every_label_occurs_and_is_named_in_the_prompt() -> None:
    tickets = make_tickets()
    for field in ("team", "priority", "product"):
        asked = {getattr(ticket, field) for ticket in tickets.held_out}
        assert asked == {getattr(ticket, field) for ticket in tickets.training}
        assert all(value in SYSTEM for value in asked)


def test_only_the_whole_label_is_right() -> None:
    ticket = make_tickets().held_out[0]
    assert right(ticket.label, ticket)
    assert right(f" {ticket.label}\n", ticket)
    assert not right(ticket.label.upper(), ticket)
    assert not right(ticket.label + " and more", ticket)
    assert not right("", ticket)


def test_the_files_beside_the_readme_are_what_the_generator_makes(tmp_path: Path) -> None:
    tickets = make_tickets()
    for name, rows in (("training", tickets.training), ("validation", tickets.validation), ("held_out", tickets.held_out)):
        write_rows(tmp_path / f"{name}.jsonl", (ticket.row() for ticket in rows))
        assert (EXAMPLES / f"{name}.jsonl").read_text() == (tmp_path / f"{name}.jsonl").read_text()


def test_a_row_is_a_row_of_a_training_file() -> None:
    row = json.loads(json.dumps(make_tickets().training[0].row()))
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
