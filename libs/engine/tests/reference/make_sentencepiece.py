"""Makes tests/reference/sentencepiece: small vocabularies as SentencePiece makes them, and the ids that transformers gives with them.

    python make_sentencepiece.py

Pieces are learned from the sentences below, scored as SentencePiece scores them (the earlier it was learned, the better; runs of blanks,
which Llama's and Mistral's authors added, last and all alike), and their merges are those that transformers makes of scores. Of each there is what a model's folder holds, and of two the GGUF metadata that
llama.cpp's converter makes of the same vocabulary, written by the gguf package:

    llama2   `▁` put in front by a normalizer, as the tokenizer.json of Llama 2 and of Mistral's first models has it
    mistral  the same by a pre-tokenizer, in front of the first word alone, as transformers saves it today; tokens for instructions
    gemma    nothing put in front; blanks, lines and tags that the vocabulary's author defined; a tab of its own instead of its byte
    unigram  the other of SentencePiece's models, with bytes for what it does not know

The ids of llama2 and gemma are compared here with those of llama.cpp's rule, written down once more: of all neighbours that are a
piece together, those with the best score are joined first, the leftmost of the equally good.
Made with tokenizers 0.23.3, transformers 5.24.0 and gguf 0.19.0.
"""
import json
import math
import pathlib
import re
import shutil

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import generate_merges

OUT = pathlib.Path(__file__).resolve().parent / "sentencepiece"
PIECES = 150
# As many in a row are a piece of gemma's. More become other pieces by transformers' merges than by SentencePiece's longest match; and
# a file that spells these pieces as blanks does not know them by their own letters.
BLANKS = 8

SENTENCES = """
the site sends its update to the aggregator and the aggregator sends the merged adapter to every site
a worker trains the adapter on the texts of its own site and no text leaves the site
the planner gives every worker a rank that fits its memory, and the rounds go on until the loss stays where it is
hello world, hello there, this is the first line and that was the last one
if the text is longer than the sequence then the answer is kept and the beginning is cut
der Rechner übt an seinen eigenen Texten, und die Texte bleiben wo sie sind
le modèle apprend, le modèle répond, et le modèle se souvient
return the value of the function, for x in range of ten, if not x then continue
""".strip().splitlines()

TEXTS = [
    "Hello world",
    "hello",
    " hello",
    "  hello",
    "hello ",
    "hello  there   the    site     sends",
    " ",
    "  ",
    "                                         ",
    "",
    "\n",
    "\n\n\n",
    "the first line\nthe last one\r\n\n  that was",
    "\tthe\tsite\t\tsends",
    "naïve café Straße, übt, modèle répond",
    "Быстрая лиса; 素早い狐; 빠른 여우",
    "emoji 😀👍🏽🇺🇸 ❤️ 👩‍👩‍👧",
    "😀",
    "e\u0301 \u00a0 \u200b \ufeff \x00\x01\x7f",
    "▁ and ▁▁the",
    "<0x41> is an A, <0xF0> is none, <0x0A>",
    "def f(x):\n    return x ** 2  # the value\n\n\nprint(f(10))",
    "In 2024 it cost $1,234.56 (up 7%).",
    "aaaaaaaaaaa eeeeeeeee sssss tttttttt",
    "therethethethetheretherete",
    "half a special <s and a whole one</s>glued<s> and  then <unk> the",
    "<s>[INST] hello there [/INST] the answer</s><s>[INST]the[/INST]",
    "<start_of_turn>user\nhello<end_of_turn>\n<start_of_turn>model\n",
    "<table><h1>the site</h1>  <b>sends</b></table>",
]


def learned() -> tuple[list[str], list[str]]:
    """Pieces in the order of their learning, runs of blanks among them as in Llama's, and characters by how often they occur."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=PIECES + 40, show_progress=False))
    pieces = ["".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    for place, blanks in ((3, 2), (60, 3), (20, 4), (80, 5), (90, 6), (30, 7), (50, 8), (70, 16)):
        pieces.insert(place, "▁" * blanks)
    text = "".join(SENTENCES).replace(" ", "▁") + "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789#$%&'()*+-/:;<=>?@[]_"
    return list(dict.fromkeys(pieces)), sorted(set(text), key=lambda c: (-text.count(c), c))


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def special(text: str) -> dict:
    return {"content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def bos_first(bos: str, number: int) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, number)])


def save(name: str, tokenizer: Tokenizer, config: dict) -> None:
    """A folder of one's own tokenizer.json: no class of transformers makes it anew."""
    tokenizer.save(str(OUT / name / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **config}
    (OUT / name / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def write_gguf(name: str, tokens: list[str], scores: list[float], kinds: list[int], ids: dict, prefix: bool | None) -> None:
    writer = gguf.GGUFWriter(str(OUT / f"{name}.gguf"), {"llama2": "llama", "gemma": "gemma3"}[name])
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(ids["bos"])
    writer.add_eos_token_id(ids["eos"])
    writer.add_unk_token_id(ids["unk"])
    if prefix is not None:
        writer.add_add_space_prefix(prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def llamas() -> None:
    pieces, characters = learned()
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *pieces, *characters]
    before = tokens.index(pieces[0])
    scores = [0.0] * before + [-float(place) for place in range(len(pieces) + len(characters))]
    scores = [-1e9 if set(token) == {"▁"} else score for token, score in zip(tokens, scores)]
    ids = {token: number for number, token in enumerate(tokens)}
    merges = generate_merges(ids, dict(zip(tokens, scores)))
    model = dict(vocab=ids, merges=merges, fuse_unk=True, byte_fallback=True)
    specials = [AddedToken(token, normalized=False, special=True) for token in tokens[:3]]
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])

    llama = Tokenizer(models.BPE(**model, unk_token="<unk>"))
    llama.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    llama.decoder = decoder
    llama.add_special_tokens(specials)
    llama.post_processor = bos_first("<s>", 1)
    save("llama2", llama, names)
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL] + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds))
    # Nothing is said of the blank in front: it is what llama.cpp takes as given.
    write_gguf("llama2", tokens, scores, kinds, {"bos": 1, "eos": 2, "unk": 0}, None)
    for text in TEXTS:
        want = joined(text, tokens, scores, specials=tokens[:3], prefix="▁")
        got = llama.encode(text, add_special_tokens=False).ids
        assert got == want, (text, [tokens[i] for i in got], [tokens[i] for i in want])

    mistral = Tokenizer(models.BPE(**model))
    mistral.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    mistral.decoder = decoder
    mistral.add_special_tokens([*specials, *(AddedToken(token, normalized=False, special=True) for token in ("[INST]", "[/INST]"))])
    mistral.post_processor = bos_first("<s>", 1)
    save("mistral", mistral, names)


def gemma() -> None:
    pieces, characters = learned()
    defined = ["\n", "\n\n", *("▁" * blanks for blanks in range(2, BLANKS + 1)), "<table>", "</table>", "<h1>", "</h1>", "<b>", "</b>"]
    turns = ["<start_of_turn>", "<end_of_turn>"]
    start = ["<pad>", "<eos>", "<bos>", "<unk>", *turns, *defined]
    pieces = [piece for piece in pieces if piece not in defined and "▁▁" not in piece]
    tokens = [*start, *BYTES, *pieces, *characters]
    scores = [0.0] * (len(start) + 256) + [-float(place) for place in range(len(pieces) + len(characters))]
    kinds = [gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.UNKNOWN] + [gguf.TokenType.CONTROL] * 2
    kinds += [gguf.TokenType.USER_DEFINED] * len(defined) + [gguf.TokenType.BYTE] * 256
    kinds += [gguf.TokenType.NORMAL] * (len(tokens) - len(kinds))
    # llama.cpp's converter writes the blanks of what the author defined as blanks: it is looked for in the text as it comes.
    spelled = [token.replace("▁", " ") if kind == gguf.TokenType.USER_DEFINED else token for token, kind in zip(tokens, kinds)]
    write_gguf("gemma", spelled, scores, kinds, {"bos": 2, "eos": 1, "unk": 3}, False)

    own = ["\t" if token == "<0x09>" else token for token in tokens]
    ids = {token: number for number, token in enumerate(own)}
    merges = generate_merges(ids, {token: -float(number) for number, token in enumerate(own)})
    made = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in start[:6]])
    made.add_tokens([AddedToken(token, normalized=False, special=False) for token in defined])
    made.post_processor = bos_first("<bos>", 2)
    save("gemma", made, {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"})
    for text in texts("gemma"):
        want = joined(text, spelled, scores, specials=spelled[:len(start)], prefix="")
        assert made.encode(text, add_special_tokens=False).ids == want, text


def unigram() -> None:
    # The likelihoods of pieces by how often they occur, which is how their learning begins; it is not the same twice.
    pieces, characters = learned()
    text = "▁" + "▁".join(SENTENCES).replace(" ", "▁")
    counts = {piece: text.count(piece) for piece in [*pieces[:PIECES], *characters[:20]]}
    total = sum(counts.values())
    likely = [(piece, round(math.log(count / total), 4)) for piece, count in counts.items() if count]
    start = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), *((byte, 0.0) for byte in BYTES)]
    made = Tokenizer(models.Unigram(start + likely, unk_id=0, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="always")])
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in ("<unk>", "<s>", "</s>")])
    made.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)])
    save("unigram", made, {"eos_token": "</s>", "unk_token": "<unk>"})


def joined(text: str, tokens: list[str], scores: list[float], specials: list[str], prefix: str) -> list[int]:
    """llama.cpp's rule for SentencePiece's pieces."""
    ids = {token: number for number, token in enumerate(tokens)}
    out = []
    cut = "(" + "|".join(re.escape(token) for token in sorted(specials, key=len, reverse=True)) + ")"
    for part in re.split(cut, text):
        if part in specials:
            out.append(ids[part])
            continue
        symbols = list(prefix + part.replace(" ", "▁")) if part else []
        while True:
            pairs = [(-scores[ids[left + right]], place) for place, (left, right) in enumerate(zip(symbols, symbols[1:])) if left + right in ids]
            if not pairs:
                break
            _, place = min(pairs)
            symbols[place:place + 2] = [symbols[place] + symbols[place + 1]]
        for symbol in symbols:
            out.extend([ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()])
    return out


def texts(name: str) -> list[str]:
    return [text for text in TEXTS if name != "gemma" or not (" " * (BLANKS + 1) in text or "▁▁" in text)]


def values(name: str) -> list[dict]:
    tokenizer = AutoTokenizer.from_pretrained(str(OUT / name))
    made = []
    for text in texts(name):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        made.append({
            "text": text,
            "ids": ids,
            "ids_with_special": tokenizer(text).input_ids,
            "decoded": tokenizer.decode(ids, clean_up_tokenization_spaces=False),
            "plain": tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        })
    return made


def main() -> None:
    names = ("llama2", "mistral", "gemma", "unigram")
    shutil.rmtree(OUT, ignore_errors=True)
    for name in names:
        (OUT / name).mkdir(parents=True)
    llamas()
    gemma()
    unigram()
    parts = []
    for name in names:
        lines = ",\n".join(json.dumps(text) for text in values(name))
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    (OUT / "values.json").write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
