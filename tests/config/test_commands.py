"""What all commands of the project have in common for whoever calls them from a shell."""

from __future__ import annotations

from argparse import Action
from io import StringIO

import pytest
from django.core.management import get_commands, load_command_class

from generation import console

OURS = {"annotation", "config", "generation", "modeling"}
COMMANDS = sorted(name for name, app in get_commands().items() if app in OURS)
# They run until they are stopped, or write files that they are for.
WITHOUT_RESULT = {"up", "makemessages", "remove_second_factor", "make_bucket", "migrate"}
# The same option means the same and is written the same way.
SAME = ("--task", "--tag", "--campaign", "--project", "--seed", "--dry-run", "--json", "--limit")


def options(name: str) -> dict[str, Action]:
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    return {flag: action for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_says_how_it_is_used(name: str) -> None:
    command = load_command_class(get_commands()[name], name)
    assert command.help
    parser = command.create_parser("manage.py", name)
    out = StringIO()
    parser.print_help(out)
    assert f"usage: manage.py {name}" in out.getvalue()
    undocumented = [
        action.option_strings[0]
        for action in parser._actions
        if action.option_strings and not (action.help or action.choices)
    ]
    assert not undocumented


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in WITHOUT_RESULT])
def test_its_results_are_to_be_had_as_json(name: str) -> None:
    assert "--json" in options(name)
    # The file of bench keeps what was measured before, and that of chaos has a name already.
    if name not in ("bench", "chaos"):
        command = load_command_class(get_commands()[name], name)
        assert isinstance(command, console.Command)


@pytest.mark.parametrize("flag", SAME)
def test_the_same_option_is_written_the_same_way(flag: str) -> None:
    found = {name: options(name).get(flag) for name in COMMANDS}
    kinds = {
        name: (action.type, type(action).__name__ == "_StoreTrueAction")
        for name, action in found.items()
        if action is not None
    }
    assert len(set(kinds.values())) == 1, kinds


def test_projects_are_named_by_slug_and_tags_by_name_and_value() -> None:
    for name in COMMANDS:
        given = options(name)
        for flag, metavar in (("--project", "SLUG"), ("--tag", "NAME=VALUE"), ("--json", "FILE")):
            if flag in given and name != "makemessages":
                assert given[flag].metavar == metavar, f"{name} {flag}"
