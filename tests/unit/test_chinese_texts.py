"""Chinese texts: spaces, punctuation, words of the scores, samples with a BERT vocabulary of
one's own, prompts."""

from pathlib import Path

import pytest
from caption_files import make_image
from small_bpe import make_bert_folder

from ofa.cli.cider_df import count_captions
from ofa.criterions.caption_reward import CaptionReward
from ofa.data.sample import SampleBuilder
from ofa.errors import UserError
from ofa.metrics import character_tokenize
from ofa.metrics.caption_scores import (
    CaptionScorer,
    best_constant,
    bleu_counts,
    bleu_value,
    caption_scores,
    caption_words,
    tokenizer_of,
    validation_cider,
    words_of,
)
from ofa.metrics.document_frequency import write_document_frequencies
from ofa.task.prediction import BatchRow, Hypothesis
from ofa.task.text import caption_references, caption_target, has_words, is_chinese, without_spaces
from ofa.tasks import caption, refcoco, vqa_gen
from ofa.tasks.caption import CaptionOptions
from ofa.tokens.bpe import load_language
from ofa.tokens.train_tokenizer import build_vocabulary

TEXTS = [
    "两只狗在草地上玩，很开心！",
    *["一件红色的T恤, iPhone大小"] * 2,
    "图片描述了什么内容?",
    '这段文字" "描述的是哪个区域？',
]


@pytest.fixture(scope="module")
def language(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    build_vocabulary(TEXTS, 200, folder, bert=True)
    return load_language(folder, num_codes=4, num_bins=8)


def sample_of(language, spec, row: dict, split: str = "train", **options):
    bpe, vocabulary = language
    builder = SampleBuilder(
        spec, spec.options(patch_image_size=32, **options), vocabulary, bpe, split
    )
    made = builder({"id": "1", "image": make_image("red"), **row}, 0, where="rows.tsv:1")
    read = [
        without_spaces(bpe.decode(vocabulary.pieces(made[key], drop=range(4))))
        for key in ("source", "target")
    ]
    return made, *read


# ----------------------------------------------------------------------------------------------
# writing


@pytest.mark.parametrize(
    "decoded, written",
    [
        ("一 只 猫 坐 在 桌 子 上 。", "一只猫坐在桌子上。"),
        ("你 好 ， 世 界 ！", "你好，世界！"),
        ("openai 与 abc 公 司", "openai与abc公司"),
        ("看 open source 的 书", "看open source的书"),
        ("高 4. 5 厘 米 ， 1, 000 元", "高4.5厘米，1,000元"),
        ("《 书 》 和 “ 你 好 ”", "《书》和“你好”"),
        ("a man ' s hat , 3. 5 cm", "a man ' s hat , 3. 5 cm"),
        ("<bin_1> <bin_2>", "<bin_1> <bin_2>"),
    ],
)
def test_spaces_stay_between_words_in_latin_letters_alone(decoded, written):
    assert without_spaces(decoded) == written


def test_a_text_is_chinese_by_its_characters_not_by_its_punctuation():
    assert (
        is_chinese("T恤")
        and is_chinese("㐀")
        and is_chinese("二〇")
        and not is_chinese("T-shirt，café！")
    )


def test_punctuation_of_any_script_is_no_word():
    assert not any(map(has_words, ["", " ", "。……", "!?", "，、“”", "--"])) and all(
        map(has_words, ["。a", "🔥", "狗", "5"])
    )


def test_kept_punctuation_survives_cutting_and_joining():
    assert caption_target("两只狗，在玩！", 20) == "两只狗，在玩！"
    assert (
        caption_target("A dog, a cat.&&Two dogs!", keep_punctuation=True)
        == "A dog, a cat. Two dogs!"
    )
    assert caption_references("一只狗。&&A dog, T-shirt.") == ["一只狗。", "A dog Tshirt"]
    assert caption_references("一只狗。&&A dog, T-shirt.", keep_punctuation=True) == [
        "一只狗。",
        "A dog, T-shirt.",
    ]


# ----------------------------------------------------------------------------------------------
# samples


def test_prompts_are_those_of_upstream(language):
    _, source, target = sample_of(language, caption.SPEC, {"caption": "两只狗，在玩！"})
    assert source == "图片描述了什么内容?" and target == "两只狗，在玩！"
    made, source, _ = sample_of(
        language, refcoco.SPEC, {"text": "红色的狗", "box": "1,2,20,20"}, num_bins=8
    )
    assert source == '这段文字"红色的狗"描述的是哪个区域？' and len(made["target"]) == 5
    for question in ("什么？", "什么?", "什么"):
        sample, source, _ = sample_of(
            language,
            vqa_gen.SPEC,
            {"question": question, "answers": "1.0|!+狗", "objects": ""},
            prompt_type="none",
            unconstrained_training=True,
        )
        assert source == ("什么？" if question == "什么？" else "什么?")


def test_a_question_mark_is_added_in_english_as_in_upstream():
    context = type(
        "Context",
        (),
        {
            "language": "en",
            "options": vqa_gen.VqaOptions(),
            "where": "",
            "training": False,
            "open_image": staticmethod(lambda field: None),
        },
    )
    row = {"id": "1", "image": "x", "question": "什么？", "answers": "", "objects": ""}
    assert vqa_gen.vqa_example(row, context).source == [" 什么？?"]


def test_punctuation_is_learned_and_generated_where_it_is_kept(language):
    row = {"caption": "一件红色的T恤, iPhone大小."}
    assert sample_of(language, caption.SPEC, row)[2] == "一件红色的t恤iphone大小"
    assert (
        sample_of(language, caption.SPEC, row, keep_punctuation=True)[2]
        == "一件红色的t恤, iphone大小[UNK]"
    )
    said = Hypothesis("一件t恤, 红色的. [UNK]")
    for keep, text in ((False, "一件t恤 红色的"), (True, "一件t恤, 红色的.")):
        assert (
            caption.SPEC.prediction(said, BatchRow(), CaptionOptions(keep_punctuation=keep)).text
            == text
        )


def test_a_caption_of_nothing_but_punctuation_is_refused(language):
    with pytest.raises(UserError, match="rows.tsv:1.*at least one word"):
        sample_of(language, caption.SPEC, {"caption": "。。。！"})


def test_unknown_characters_are_one_piece_each_and_words_are_lower_case(language):
    bpe, vocabulary = language
    assert bpe.encode("狗龘T恤 IPHONE xyzq") == "狗 [UNK] t 恤 iphone [UNK]"
    assert vocabulary.ids("[UNK]") == [vocabulary.index("[UNK]")] != [vocabulary.unk]


def test_an_empty_bert_text_has_no_pieces(language):
    assert language[0].encode("") == "" and without_spaces("") == ""


# ----------------------------------------------------------------------------------------------
# scores


def test_words_of_a_caption_are_characters_and_whole_latin_words():
    assert caption_words("两只狗，T恤 iPhone 4.") == "两 只 狗 t 恤 iphone 4"
    assert (
        caption_words("iPhone, red.") == "iPhone red"
        and caption_words("iPhone, red.", chinese=True) == "iphone red"
    )
    assert caption_words("两只狗，玩。", marks=True) == "两 只 狗 ， 玩 。"
    assert (
        caption_words('A man\'s "red" hat, big...', marks=True) == 'A mans " red " hat , big . . .'
    )


def test_spaces_in_a_caption_change_no_score():
    references = [["一只红色的狗", "红色的狗在跑"], ["两只蓝色的猫", "猫，蓝色的"], ["iPhone 手机"]]
    close, apart = (
        ["一只红色的狗", "蓝色的猫", "iphone手机"],
        ["一 只 红 色 的 狗。", "蓝 色 的 猫", "iPhone 手 机"],
    )
    assert caption_scores(close, references).overall == caption_scores(apart, references).overall
    assert (
        validation_cider(close, references)
        == caption_scores(close, references).overall["CIDEr-D"]
        > 1
    )
    assert (
        tokenizer_of(references) is character_tokenize
        and "METEOR" not in caption_scores(close, references).overall
    )
    assert best_constant(["一只红色的狗", "龘"], references)[0] == "一 只 红 色 的 狗"
    assert (
        bleu_value(bleu_counts(words_of(close[:2]), list(map(words_of, references[:2]))))
        == bleu_value(bleu_counts(words_of(apart[:2]), list(map(words_of, references[:2]))))
        > 30
    )


def test_validation_scores_by_character(language):
    rows = [BatchRow(target=" 一只红色的狗&&红狗"), BatchRow(target="两只蓝色的猫&&蓝猫")]
    scorer = CaptionScorer(
        CaptionOptions(eval_cider=True),
        lambda: [["一只红色的狗", "红狗"], ["两只蓝色的猫", "蓝猫"]],
    )
    predictions = [
        caption.SPEC.prediction(Hypothesis(text), row, CaptionOptions())
        for text, row in zip(("一只红色的狗", "两只蓝色的狗"), rows)
    ]
    counts = scorer(predictions, rows)
    assert counts["_cider_cnt"] == 2 and counts["_cider_score_sum"] == pytest.approx(
        2
        * validation_cider(
            [one.text for one in predictions], [["一只红色的狗", "红狗"], ["两只蓝色的猫", "蓝猫"]]
        )
    )


@pytest.mark.parametrize("marks", [False, True])
def test_rewards_count_characters_and_marks_if_the_file_does(tmp_path: Path, marks):
    references = [["红色的狗，在跑。"], ["蓝色的猫，在睡。"], ["绿色的鸟，iPhone。"], ["iPhone"]]
    write_document_frequencies(
        tmp_path / "words.p",
        count_captions([(str(i), texts) for i, texts in enumerate(references)], True, marks),
    )
    reward = CaptionReward(tmp_path / "words.p")
    assert reward.counts_marks == marks and ("，" in reward.known_words) == marks
    assert {"红", "iphone", "<eos>"} <= reward.known_words and "iPhone" not in reward.known_words
    said = ["红 色 的 狗 ， 在 跑 。", "红 色 的 狗 在 跑", "[UNK] 猫"]
    with_marks, without, nothing = reward(said, references, [0, 0, 0])
    assert (with_marks > without) == marks and without > nothing


def test_wordpieces_of_a_small_folder_still_load(tmp_path):
    bpe, _ = load_language(make_bert_folder(tmp_path))
    assert without_spaces(bpe.decode(bpe.encode("图片? red balls"))) == "图片? red balls"
