"""Every attack on the list ends as the list says, embedded and before a server. `benchmarks.gate` adds basic-auth."""

import pytest

from benchmarks.gate.attacks import Attack, attacks, got_through
from benchmarks.gate.world import World
from tests.test_docs import DOCS

SENTENCES = {
    "register_with_the_databases_password": (
        "Whoever can write the database, or opens it without `skewguard:`, is not asked."
    ),
    "load_a_logged_model_by_its_id": "`models:/m-…` is not gated.",
    "take_a_fail_away_before_the_gate_saw_it": "A record that was taken away before the gate ever saw it is missing.",
    "delete_a_governed_model": "Deleting is free",
    "cut_a_fail_from_the_ledger_while_no_gate_runs": (
        "Whoever can write the ledger and the registry's tags can write both anew."
    ),
    "load_the_files_by_their_place": "`models:/m-…` is not gated.",
    "change_a_file_between_two_looks": "Files can change after the decision.",
}


def _name(one: Attack) -> str:
    return f"gated-{one.name.replace('_', '-')}"


@pytest.mark.parametrize("one", attacks("embedded"), ids=lambda one: one.name)
def test_an_attack_on_the_embedded_gate_ends_as_the_list_says(one: Attack, world: World) -> None:
    """Refused at the gate or at load, or documented: then it succeeds."""
    assert got_through(one, world, _name(one)) is (one.outcome == "documented")


@pytest.mark.parametrize("one", attacks("server"), ids=lambda one: one.name)
def test_an_attack_on_a_gated_server_ends_as_the_list_says(one: Attack, server: World) -> None:
    """The same through a stock client, REST and the UI's routes."""
    assert got_through(one, server, _name(one)) is (one.outcome == "documented")


def test_what_succeeds_stands_in_the_documents() -> None:
    """docs/gate.md names everything that the gate cannot do and that is tried here."""
    text = (DOCS / "gate.md").read_text()
    documented = {one.name for one in attacks("embedded") if one.outcome == "documented"}
    assert documented == set(SENTENCES)
    assert [sentence for sentence in SENTENCES.values() if f"**{sentence}**" not in text] == []
