"""Templates of tasks: what they mean, and how a mistake in one is shown."""

import pytest

from ofa.errors import UserError
from ofa.task.template import KINDS, MAX_LENGTH, Slot, is_template, parse_template


def columns(text: str) -> dict[str, str]:
    return parse_template(text).columns


def message(text: object) -> str:
    with pytest.raises(UserError) as caught:
        parse_template(text)
    return str(caught.value)


def marked(text: str) -> str:
    """What the carets of the message stand under."""
    *_, shown, carets = message(text).split("\n")
    start = carets.index("^")
    return shown[start : start + carets.count("^")]


def test_slots_name_columns_and_kinds_and_the_arrow_separates_source_and_target():
    template = parse_template("[image] how many [text:thing] are there? -> [text:count]")
    assert template.columns == {"image": "image", "thing": "text", "count": "text"}
    thing = template.source[1]
    assert isinstance(thing, Slot) and thing.column == "thing"
    assert template.source == (" how many ", thing, " are there? ")
    assert template.target.column == "count"


def test_a_slot_without_a_name_is_a_column_named_as_its_kind():
    assert columns("[image] which region shows [text]? -> [box]") == {
        "image": "image",
        "text": "text",
        "box": "box",
    }


@pytest.mark.parametrize("text", ["vqa_gen", "caption", "text", "a-b", "my.task"])
def test_a_name_of_a_task_is_no_template(text):
    assert not is_template(text)


@pytest.mark.parametrize("text", ["[text] -> [text:a]", "[text", "text] x", "a -> b"])
def test_what_has_brackets_or_an_arrow_is_meant_as_a_template(text):
    assert is_template(text)


def test_backslashes_make_brackets_arrows_and_backslashes_text():
    template = parse_template(r"[text:a] \[x\] \-> \\ -> [text:b]")
    assert template.source[1] == r" [x] -> \ "


def test_runs_of_spaces_and_line_breaks_count_as_one_space():
    assert parse_template("[text:a]\n  is\tit? ->\n[text:b]").text == "[text:a] is it? -> [text:b]"


def test_a_text_column_may_be_shown_twice():
    assert columns("[text:a] or [text:a]? -> [text:b]") == {"a": "text", "b": "text"}


def test_two_images_stand_at_the_beginning_under_their_own_names():
    template = parse_template("[image:left] [image:right] the same? -> [label]")
    assert [slot.column for slot in template.images] == ["left", "right"]
    assert template.source == ("  the same? ",)


def test_choices_are_listed_in_the_source_of_a_label():
    assert (
        parse_template("[text:question] [choices:options] -> [label:answer]").choices == "options"
    )
    assert parse_template("[text:question] -> [label:answer]").choices is None


def test_names_of_columns_may_be_of_any_script():
    assert columns("[image] [text:问题] -> [text:答案]") == {
        "image": "image",
        "问题": "text",
        "答案": "text",
    }


MISTAKES = {
    "[image] how many [txt:thing] -> [text:a]": ("txt", "did you mean [text:thing]?"),
    "[image] what is [thing]? -> [text:a]": ("thing", "[text:thing]"),
    "how many [thing:text] -> [text:a]": ("thing", "did you mean [text:thing]?"),
    "[Image] what? -> [text]": ("Image", "did you mean [image]?"),
    "[] what? -> [text]": ("]", "found ''"),
    "[text:] -> [text:a]": ("]", "name of a column"),
    "[text:1a] -> [text:b]": ("1a", "name of a column"),
    "[text:id] -> [text:b]": ("id", "another name"),
    "[text:task] -> [text:b]": ("task", "another name"),
    "[image:a] [text:image] -> [text:b]": ("image", "another name"),
    "[text] [x -> [text:a]": ("[", r"write \["),
    "[text] x] -> [text:a]": ("]", r"write \]"),
    r"[text] \x -> [text:a]": ("\\", r"write \\"),
    "[text] a -> b -> [text:c]": ("->", r"write \->"),
    "[text] → [text:a]": ("→", "expected '->'"),
    "[text] what?": ("", "found the end"),
    "": ("", "found the end"),
    "[text] ->": ("", "nothing after '->'"),
    "what? -> [text]": ("w", "a slot before '->'"),
    "-> [text]": ("-", "a slot before '->'"),
    "[text] -> a [text:b]": ("a", "move the text"),
    "[text] -> [text:b] c": ("c", "move the text"),
    "[text] -> [text:a] [text:b]": ("[text:b]", "one thing per task"),
    "[text] -> [image]": ("[image]", "image_gen"),
    "[text] -> [choices]": ("[choices]", "[label]"),
    "[text] -> [text]": ("[text]", "such as [text:answer]"),
    "[image] [image] same? -> [text]": ("[image]", "[image:image_2]"),
    "[image:a] [image:b] [image:c] -> [text]": ("[image:c]", "at most 2 images"),
    "what is in [image]? -> [text]": ("[image]", "move it to the front"),
    "[text] [box] -> [text:a]": ("[box]", "begin with [image]"),
    "[text] -> [boxes]": ("[boxes]", "begin with [image]"),
    "[image] [text:a] [box:a] -> [text]": ("[box:a]", "to be of kind text"),
    "[label:a] what? -> [text]": ("[label:a]", "[text:a]"),
    "[choices:a] -> [text:b]": ("[text:b]", "write [label:b]"),
    "[choices:a] [choices:b] -> [label]": ("[choices:b]", "one list of choices"),
    "[text] ${a} -> [text:b]": ("${", "expected plain text"),
    "[text] \x07 -> [text:b]": ("?", "printable"),
    " ".join(f"[text:a{i}]" for i in range(17)) + " -> [text]": ("[text:a16]", "at most 16"),
    f"[text:{'a' * 41}] -> [text:b]": ("a" * 41, "at most 40"),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_is_one_message_with_carets_under_its_place(text):
    place, hint = MISTAKES[text]
    assert marked(text) == place
    assert hint in message(text)
    assert message(text).startswith("template: expected ")


def test_an_unknown_kind_is_answered_with_the_known_ones():
    assert ", ".join(KINDS) in message("[speech] -> [text]")


def test_carets_stand_under_wide_characters():
    *_, shown, carets = message("这是 [文本] 吗 -> [text]").split("\n")
    assert shown == "  这是 [文本] 吗 -> [text]"
    assert carets == "  " + " " * (4 + 1 + 1) + "^^^^"


def test_of_a_long_template_the_part_around_the_mistake_is_shown():
    *_, shown, carets = message(
        "[text] " + "x" * 400 + " [foo] " + "y" * 400 + " -> [text:a]"
    ).split("\n")
    assert shown.startswith("  ...x") and shown.endswith("y...") and len(shown) < 100
    assert shown[carets.index("^") :].startswith("foo]")


@pytest.mark.parametrize("value", [None, 7, ["[text] -> [text:a]"], {"a": 1}])
def test_a_template_of_a_file_that_is_no_text_is_refused(value):
    assert "expected a text" in message(value)


def test_a_template_without_end_is_refused_before_it_is_read():
    assert f"at most {MAX_LENGTH}" in message("[" * 10**7)
