"""What ``ofa predict`` is asked: images, folders and JSON lines become requests, or one message
with file and row."""

import json
import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from ofa.cli.predict import text_of_line, windows_of
from ofa.errors import UserError
from ofa.inference.predictions import Answer, Region
from ofa.inference.requests import check_source, read_requests, tasks_called, usual_tasks
from ofa.tasks import spec_of


def jsonl(folder, *entries) -> str:
    text = "\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries)
    (folder / "ask.jsonl").write_text(text + "\n\n", encoding="utf-8")
    return str(folder / "ask.jsonl")


def test_words_say_what_is_asked(tmp_path):
    source = jsonl(
        tmp_path,
        {"image": "a.jpg"},
        {"image": "sub/b.jpg", "question": "what?", "id": 7},
        {"image": "a.jpg", "question": "what?", "region": [1, 2, 3.5, 4]},
        {"image": "a.jpg", "text": "the car"},
        {"image": "a.jpg", "hypothesis": "a car", "premise": "a road"},
        {"image": "/tmp/a.jpg", "instruction": "look", "question": "not asked", "task": "generate"},
    )
    requests = read_requests(source, usual_tasks(), {}, images=["/tmp"])
    assert [request.task.verb for request in requests] == [
        "caption",
        "answer",
        "answer",
        "ground",
        "entails",
        "generate",
    ]
    assert (
        requests[1].image == tmp_path / "sub/b.jpg"
        and requests[1].kept == {"id": 7}
        and requests[1].name == "sub/b.jpg"
    )
    assert (
        requests[2].words == {"question": "what?", "region": [1, 2, 3.5, 4]}
        and requests[2].kind != requests[1].kind
    )
    assert requests[4].words == {"hypothesis": "a car", "premise": "a road"}
    assert str(requests[5].image) == "/tmp/a.jpg" and requests[5].kept == {"question": "not asked"}


@pytest.mark.parametrize(
    "region",
    [[9, 9, 1, 20], [1, 2, 1, 20], {"1": 0, "2": 0, "3": 9, "4": 9}, "1,2,x,4", [0, 0, 0.5, 0.5]],
)
def test_a_region_is_a_list_of_four_numbers_in_order(tmp_path, region):
    with pytest.raises(
        UserError,
        match=r"ask.jsonl:1: expects \"region\": \[left, top, right, bottom\] in pixels, found",
    ):
        read_requests(
            jsonl(tmp_path, {"image": "a.jpg", "question": "what?", "region": region}),
            usual_tasks(),
            {},
        )


@pytest.mark.parametrize("value", ["null", "NaN", "true", "[]", "{}", '"\\ud83d"'])
@pytest.mark.parametrize("key", ["question", "text", "hypothesis", "instruction", "task"])
def test_a_word_that_is_no_text_is_an_error_with_its_line(tmp_path, key, value):
    with pytest.raises(UserError, match="ask.jsonl:1: "):
        read_requests(jsonl(tmp_path, f'{{"image": "a.jpg", "{key}": {value}}}'), usual_tasks(), {})


def test_a_huge_number_is_a_text(tmp_path):
    [request] = read_requests(
        jsonl(tmp_path, {"image": "a.jpg", "question": 10**400}), usual_tasks(), {}
    )
    assert request.words["question"] == str(10**400)


def test_half_of_a_character_that_is_kept_comes_out_as_it_came(tmp_path):
    [request] = read_requests(
        jsonl(tmp_path, '{"image": "a.jpg", "note": "\\ud83d"}'), usual_tasks(), {}
    )
    assert (
        text_of_line(request.kept) == '{"note": "\\ud83d"}'
        and text_of_line({"a": "é"}) == '{"a": "é"}'
    )


def test_the_command_line_speaks_for_lines_that_do_not(tmp_path):
    source = jsonl(tmp_path, {"image": "a.jpg"}, {"image": "b.jpg", "question": "and this?"})
    requests = read_requests(source, usual_tasks(), {"question": "what is it?", "text": None})
    assert [request.words["question"] for request in requests] == ["what is it?", "and this?"]


def test_a_number_is_its_text_as_it_is_written(tmp_path):
    (tmp_path / "ask.jsonl").write_text(
        '{"image": "a.jpg", "question": 1.50}\n{"image": "a.jpg", "hypothesis": "x", "premise":'
        ' 3}\n{"image": "a.jpg", "question": null, "text": 7}\n'
    )
    requests = read_requests(str(tmp_path / "ask.jsonl"), usual_tasks(), {})
    assert [request.words for request in requests] == [
        {"question": "1.50"},
        {"hypothesis": "x", "premise": "3"},
        {"text": "7"},
    ]


def test_a_folder_is_its_images_in_order(tmp_path):
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_text("")
    requests = read_requests(str(tmp_path), tasks_called("ground"), {"text": "the car"})
    assert [request.name for request in requests] == ["a.jpg", "b.PNG"] and {
        request.task.verb for request in requests
    } == {"ground"}


def test_one_image_is_one_request(tmp_path):
    (tmp_path / "a.jpg").write_text("")
    (request,) = read_requests(str(tmp_path / "a.jpg"), usual_tasks(), {})
    assert request.task.verb == "caption" and request.words == {}


@pytest.mark.parametrize(
    ("names", "task"),
    [
        (("vqa_gen", "vqa", "answer"), "vqa_gen"),
        (("refcoco", "grounding", "ground"), "refcoco"),
        (("snli_ve", "entails"), "snli_ve"),
        (("image_classify", "classify"), "image_classify"),
        (("ocr", "read"), "ocr"),
        (("instruction", "generate"), "instruction"),
    ],
)
def test_a_task_is_called_by_its_name_its_aliases_and_its_verb(names, task):
    assert {tasks_called(name)[0].name for name in names} == {task}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", r"ask\.jsonl:2: expects one JSON object per line"),
        ("[1]", r"ask\.jsonl:2: expects one JSON object per line, .* found '\[1\]'"),
        ({"question": "x"}, r'ask\.jsonl:2: expects an object with "image"'),
        (
            {"image": "https://a.b/c.jpg"},
            r"ask\.jsonl:2: expects an image on this machine, found the URL",
        ),
        (
            {"image": "a.jpg", "task": "ground"},
            r"""ask\.jsonl:2: 'ground' expects "text": a text, found None""",
        ),
        (
            {"image": "a.jpg", "question": ["x"]},
            r"""ask\.jsonl:2: 'answer' expects "question": a text, found the list""",
        ),
        (
            {"image": "a.jpg", "question": math.nan},
            r"""ask\.jsonl:2: 'answer' expects "question": a text, found NaN""",
        ),
        (
            {"image": "a.jpg", "text": True},
            r"""ask\.jsonl:2: 'ground' expects "text": a text, found true""",
        ),
        (
            {"image": "a.jpg", "question": None},
            r"""ask\.jsonl:2: expects "question": a text, found null""",
        ),
        (
            {"image": "a.jpg", "question": " "},
            r"""ask\.jsonl:2: 'answer' expects "question": a text, found ' '""",
        ),
        ({"image": "a.jpg", "question": "x", "region": [1, 2]}, r'ask\.jsonl:2: expects "region"'),
        (
            {"image": "a.jpg", "question": "x", "region": [0.1, 0.2, 0.5, 0.7]},
            r'ask\.jsonl:2: expects "region".*fractions of the image',
        ),
        (
            {"image": "a.jpg", "question": "x", "region": [1, 2, 3, math.nan]},
            r'ask\.jsonl:2: expects "region"',
        ),
        (
            {"image": "a.jpg", "question": "x", "region": [1, 2, 3, True]},
            r'ask\.jsonl:2: expects "region"',
        ),
        (
            {"image": "a.jpg", "hypothesis": "x", "premise": {}},
            r"""ask\.jsonl:2: 'entails' expects "premise": a text, found the object""",
        ),
        (
            {"image": "a.jpg", "task": "guess"},
            r"ask\.jsonl:2: --task: unknown task 'guess'; known: caption",
        ),
        (
            {"image": "a.jpg", "task": None},
            r"ask\.jsonl:2: --task: unknown task 'None'; known: caption",
        ),
    ],
)
def test_a_wrong_line_is_one_message(tmp_path, line, words):
    with pytest.raises(UserError, match=words):
        read_requests(jsonl(tmp_path, {"image": "a.jpg"}, line), usual_tasks(), {})


def test_objects_of_a_request_become_those_of_a_table(tmp_path):
    tasks = [spec_of("[image] which of [boxes:things] is red? -> [text:answer]")]
    things = [{"box": [1, 2, 3, 4], "label": "a\tdog && cat"}, {"box": "5 6 7 8", "label": 9}]
    [request] = read_requests(jsonl(tmp_path, {"image": "a.jpg", "things": things}), tasks, {})
    assert request.words["things"] == "1,2,3,4,0,a dog & cat&&5,6,7,8,1,9"


@pytest.mark.parametrize(
    "thing, message",
    [
        ("dog", r'ask.jsonl:1: expects "things": objects such as .*, found the str "dog"'),
        ({"box": [1, 2, 3, 4]}, 'expects "things": a label of an object, found null'),
        ({"label": "dog"}, r'expects "things": \[left, top, right, bottom\] in pixels, found null'),
    ],
)
def test_a_wrong_object_of_a_request_is_one_message(tmp_path, thing, message):
    tasks = [spec_of("[image] which of [boxes:things] is red? -> [text:answer]")]
    with pytest.raises(UserError, match=message):
        read_requests(jsonl(tmp_path, {"image": "a.jpg", "things": [thing]}), tasks, {})


@pytest.mark.parametrize(
    "task, name, message",
    [
        ("vqa", "qestion", "--qestion: no request asks with it.*; did you mean --question"),
        (None, "beem", "--beem: no request asks with it; known: .*; did you mean --beam"),
        ("read", "question", "--question: no request asks with it; known: none$"),
    ],
)
def test_a_misspelled_word_is_named_with_what_it_may_mean(tmp_path, task, name, message):
    image = tmp_path / "a.jpg"
    image.touch()
    tasks = tasks_called(task) if task else usual_tasks()
    with pytest.raises(UserError, match=message):
        read_requests(str(image), tasks, {name: "3"}, flags=["--beam", "--draw"])


@pytest.mark.parametrize("name", ["nowhere", "http://a.b/c.jpg", "empty", "empty.jsonl"])
def test_an_input_without_anything_to_ask_is_one_message(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="expects|expected"):
        read_requests(name if ":" in name else str(tmp_path / name), usual_tasks(), {})


@pytest.mark.parametrize("threads", [0, 2])
def test_images_of_the_next_requests_are_read_ahead_in_order(tmp_path, threads):
    for number in range(5):
        Image.new("RGB", (number + 1, 3)).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"none")
    requests = [SimpleNamespace(images={"": tmp_path / f"{number}.png"}) for number in range(5)]
    windows = list(windows_of(requests, 2, False, threads))
    assert [len(window) for window, _ in windows] == [2, 2, 1]
    assert [one for window, _ in windows for one in window] == requests
    shown = [image for _, images in windows for image in images]
    assert isinstance(shown.pop(3), UserError)
    assert [image[""].width for image in shown] == [1, 2, 3, 5]
    with pytest.raises(UserError, match="3.png"):
        list(windows_of(requests, 2, True, threads))
    assert list(windows_of([], 2, False, threads)) == []


def test_annotated_images_of_one_name_do_not_replace_each_other(tmp_path):
    from ofa.report.annotate import AnnotatedImageWriter

    requests = read_requests(
        jsonl(
            tmp_path, {"image": "x/a.jpg", "text": "car"}, {"image": "y/a.png", "question": "what?"}
        ),
        usual_tasks(),
        {},
    )
    drawer, image = (
        AnnotatedImageWriter(str(tmp_path / "drawn")),
        Image.new("RGB", (400, 330), "grey"),
    )
    region = Region((10, 10, 90, 90), (0.025, 0.03, 0.225, 0.27), (1, 2, 3, 4), -0.1)
    paths = [
        drawer.draw(request, image, prediction)
        for request, prediction in zip(requests, (region, Answer("a car", -0.2)))
    ]
    assert [path.rpartition("/")[2] for path in paths] == ["a.jpg", "a_2.jpg"]
    sizes = [Image.open(path).size for path in paths]
    assert sizes[0] == (400, 330) and sizes[1][1] > 330, (
        "an answer stands above the image, a box in it"
    )


@pytest.mark.parametrize(
    "name", ["../b.jpg", "{root}/b.jpg", "sub/../../b.jpg", "/etc/passwd", "a\0.jpg"]
)
def test_a_line_names_images_below_its_folder_or_below_one_that_is_given(tmp_path, name):
    folder = tmp_path / "asked"
    folder.mkdir()
    name = name.format(root=tmp_path)
    source = jsonl(folder, {"image": "a.jpg"}, {"image": name})
    with pytest.raises(
        UserError,
        match=r"ask.jsonl:2: expects the name of a file below .* or name its folder by --images",
    ) as error:
        read_requests(source, usual_tasks(), {})
    assert "\n" not in str(error.value)
    if name.endswith("b.jpg"):
        _, request = read_requests(
            source, usual_tasks(), {}, images=[str(tmp_path / "none"), str(tmp_path)]
        )
        assert request.image == tmp_path / "b.jpg" and request.name == name


def test_links_below_the_folder_may_lead_elsewhere(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked/link").symlink_to(tmp_path / "photos")
    (request,) = read_requests(
        jsonl(tmp_path / "asked", {"image": "link/a.jpg"}), usual_tasks(), {}
    )
    assert request.image == tmp_path / "asked/link/a.jpg"


@pytest.mark.parametrize(
    "region",
    [
        [0, 0, 1e400, 1],
        ["1_0", 0, 20, 20],
        "0,0,nan,1",
        [10**400, 0, 1, 1],
        [True, False, 2, 2],
        [None] * 4,
        5,
    ],
)
def test_a_region_of_other_than_finite_numbers_is_one_message(tmp_path, region):
    with pytest.raises(UserError, match=r'ask.jsonl:1: expects "region"'):
        read_requests(
            jsonl(tmp_path, {"image": "a.jpg", "question": "what?", "region": region}),
            usual_tasks(),
            {},
        )


def test_a_line_that_is_nested_without_end_is_one_message(tmp_path):
    (tmp_path / "ask.jsonl").write_text("[" * 100_000)
    with pytest.raises(UserError, match="ask.jsonl:1: expects one JSON object"):
        read_requests(str(tmp_path / "ask.jsonl"), usual_tasks(), {})


def test_annotated_images_replace_neither_each_other_nor_the_images_themselves(tmp_path):
    from ofa.report.annotate import AnnotatedImageWriter

    image, answer = Image.new("RGB", (40, 30)), Answer("a car", -0.2)
    requests = read_requests(
        jsonl(
            tmp_path,
            {"image": "x/a.jpg"},
            {"image": "y/a.jpg"},
            {"image": "x/a_2.jpg"},
            {"image": f"x/{'a' * 251}.png"},
        ),
        usual_tasks(),
        {},
    )
    drawer = AnnotatedImageWriter(str(tmp_path / "drawn"))
    names = [drawer.draw(request, image, answer).rpartition("/")[2] for request in requests]
    assert (
        names
        == ["a.jpg", "a_2.jpg", "a_2_2.jpg", "a" * 251 + ".jpg"]
        == sorted(names, key=names.index)
        and len(list((tmp_path / "drawn").iterdir())) == 4
    )
    with pytest.raises(UserError, match="--draw .*: expects another folder than that of the image"):
        AnnotatedImageWriter(str(tmp_path / "x")).draw(requests[0], image, answer)


def test_several_inputs_are_asked_about_in_their_order(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.jpg", "a.jpg", "more/c.jpg"):
        (tmp_path / name).touch()
    lines = jsonl(tmp_path, {"image": "z.jpg"})
    sources = [str(tmp_path / "b.jpg"), lines, str(tmp_path / "a.jpg"), str(tmp_path / "more")]
    names = [request.name for request in read_requests(sources, usual_tasks(), {})]
    assert names == [sources[0], "z.jpg", sources[2], str(tmp_path / "more/c.jpg")]


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("ask.csv", "image,question", r"ask.csv: expects an image, .* found a table; write each"),
        ("ask.TSV", "1\ta", r"ask.TSV: .* found a table; .* ofa evaluate .* of a .jsonl file"),
        ("ask.xlsx", "PK\3\4", r"ask.xlsx: .* found a table; write each row .* of a .jsonl file"),
        ("ask.txt", "image;question", r"ask.txt: .* found a text file; write each row .* .jsonl"),
        ("ask", "image|what is it?", r"ask: expects an image, .* found a text file; write each"),
        ("ask.json", '[\n{"image": "a.jpg"}\n]', r"ask.json:1: expects one JSON object per line"),
        ("ask.json", '\n{\n"image": "a.jpg"\n}', r"ask.json:2: .* in a line of its own"),
    ],
)
def test_tables_and_json_of_several_lines_are_told_what_is_expected(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        check_source(str(tmp_path / name))


def test_missing_files_are_named_before_torch_is_imported(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("checkpoint_1_10.pt", "checkpoint_best.pt", "a.jpg"):
        (tmp_path / "run" / name).touch()
    run = str(tmp_path / "run")
    program = """
import sys
from ofa.cli.main import main
run = sys.argv[1]
status = [main(["predict", run, f"{run}/a.jpg"]), main(["predict", f"{run}/b.pt", f"{run}/a.jpg"])]
status.append(main(["predict", f"{run}/checkpoint_best.pt", f"{run}/a.jpg", f"{run}/b.jpg"]))
print(status, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, run], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[2, 2, 2] False"
    messages = done.stderr.splitlines()
    assert messages[0].endswith(f"found a directory; name the file in it: {run}/checkpoint_best.pt")
    assert messages[1].endswith(
        f"{run}/b.pt: expected a checkpoint, found no such file; check the path"
    )
    assert messages[2].endswith("found nothing there") and f"{run}/b.jpg" in messages[2]
