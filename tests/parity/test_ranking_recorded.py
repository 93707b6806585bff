"""All-candidate scores against those of upstream's model: within 1e-3, the same answer chosen."""

import numpy as np
import pytest
from conftest import bpe_folder
from golden import load, names
from test_generate import batch_of, models_of

from ofa.models.generation.ranking import AnswerRanker
from ofa.task.answers import AnswerSet
from ofa.tokens.bpe import load_bpe
from ofa.tokens.vocabulary import Vocabulary


@pytest.mark.parametrize("nodes_at_once", [512, 2])
@pytest.mark.parametrize("name", names("generate_allcand_*"))
def test_every_answer_has_the_recorded_score(name, nodes_at_once):
    folder, case = bpe_folder("gpt2"), load(name)
    bpe, vocabulary = load_bpe(folder), Vocabulary.from_folder(folder)
    answers = AnswerSet(case["meta"]["answers"], lambda text: vocabulary.ids(bpe.encode(text)))
    prompts = [
        [int(token) for token in row if token >= 0]
        for row in case.get("decoder_prompts", np.zeros((4, 1)))
    ]
    ranker = AnswerRanker(answers.trie, vocabulary.bos, nodes_at_once)
    scores = ranker.scores(models_of(case["meta"]), batch_of(case), prompts).numpy()
    np.testing.assert_allclose(scores, case["candidate_scores"], rtol=0, atol=1e-3)
    assert [answers.texts[best] for best in scores.argmax(1)] == case["meta"]["predicted"]
