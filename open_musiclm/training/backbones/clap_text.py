"""CLAP's text side for own training: a byte-level BPE vocabulary."""

import json
from collections.abc import Iterable
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from tokenizers.normalizers import Lowercase
from transformers import RobertaTokenizer

# RoBERTa's order: CLAP's padding id is 1.
SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LONGEST_PROMPT_TOKENS = 77


def train_text_tokenizer(texts: Iterable[str], vocabulary_size: int) -> RobertaTokenizer:
    """A byte-level BPE (any prompt in any script has tokens) fitted on `texts`, as RoBERTa's tokenizer.

    Unlike RoBERTa's it ignores case: captions are too few to learn each word twice.
    """
    trained = ByteLevelBPETokenizer(lowercase=True)
    trained.train_from_iterator(
        texts, vocab_size=vocabulary_size, min_frequency=2, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    description = json.loads(trained.to_str())["model"]
    merges: Any = [tuple(merge) for merge in description["merges"]]
    tokenizer = RobertaTokenizer(vocab=description["vocab"], merges=merges, model_max_length=LONGEST_PROMPT_TOKENS)
    tokenizer.backend_tokenizer.normalizer = Lowercase()
    return tokenizer
