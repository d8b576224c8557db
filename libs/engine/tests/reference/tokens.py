"""Token ids and chat renderings that the Rust tokenizer must equal, made by transformers.

    python tokens.py FOLDER FILE.gguf > smollm2_tokens.json

transformers builds its tokenizer from GGUF metadata but ignores `tokenizer.ggml.pre = smollm`. The published
tokenizer.json of SmolLM2 cuts digits one by one before the byte-level rule, as llama.cpp does; so does this
script. Without that only a digit after two or more blanks differs.
"""
import json
import sys

from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

TEXTS = [
    "Hello world",
    " Hello",
    "  two blanks  inside   and behind  ",
    "",
    " ",
    "\n",
    "\n\n\n",
    "\tindented\twith tabs",
    "line one\nline two\r\nline three\n",
    "In 2024 it cost $1,234.56 (up 7%).",
    "a  2024\n\n 12   3",
    "0123456789",
    "don't won't I'll we've they're it's I'm he'd DON'T",
    "naïve café über Straße Ångström",
    "Быстрая лиса; الثعلب السريع; 素早い狐; 빠른 여우",
    "emoji 😀👍🏽🇺🇸 ❤️ 👩‍👩‍👧",
    "½ ² ٣ Ⅷ ①",
    "e\u0301 combining, \u00a0no-break, \u200bzero width, \ufefford",
    "def f(x):\n    return x ** 2  # square\n\n\nprint(f(10))",
    "<html><body class=\"a\">&nbsp;</body></html>",
    "https://example.org/a/b?c=d&e=%20f#g",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "half a special <|im_en and a whole one<|im_end|>glued<|endoftext|> end",
    "Subject: WIN $$$ NOW!!!\nClick here ---> http://x.example\n\nIs this mail spam? Answer:",
    " yes",
    " no",
    "ALLCAPSWITHOUTBLANKS_and_under_scores-and-dashes",
    "\x00\x01\x7f control",
]

CHATS = [
    [{"role": "user", "content": "What is 2 + 2?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
    [
        {"role": "user", "content": "One\nTwo"},
        {"role": "assistant", "content": "Three"},
        {"role": "user", "content": "  <b>&amp;</b> {{ four }} "},
        {"role": "assistant", "content": "Five 😀"},
    ],
]

# What SmolLM2's template does not use and others do.
TEMPLATES = [
    "{{ bos_token }}{% for m in messages %}\n"
    "  {% if m['role'] not in ['user', 'assistant'] %}\n"
    "    {% continue %}\n"
    "  {% endif %}\n"
    "[{{ m.role | upper }}] {% generation %}{{ m['content'].strip() }}{% endgeneration %}{{ eos_token }}\n"
    "{% endfor %}\n"
    "{%- if add_generation_prompt and not tools %}[ASSISTANT] {% endif %}\n",
    "{%- set ns = namespace(count=0) -%}{% for m in messages -%}{% set ns.count = ns.count + 1 %}"
    "{{ loop.index0 }}/{{ messages | length }} {{ m | tojson }} {{ m.content | tojson }} "
    "{{ m.content.split(' ')[0] }} {{ m.content.startswith('O') }} {% endfor %}{{ ns.count }}"
    "{{ strftime_now is defined and false }}",
]


def main():
    folder, file = sys.argv[1:3]
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=file)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    texts = []
    for text in TEXTS:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        special = tokenizer(text).input_ids
        plain = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        texts.append({"text": text, "ids": ids, "ids_with_special": special, "plain": plain})
    chats = []
    for messages in CHATS:
        for prompt in (False, True):
            options = {"tokenize": False, "add_generation_prompt": prompt}
            text = tokenizer.apply_chat_template(messages, **options)
            ids = tokenizer(text, add_special_tokens=False).input_ids
            chats.append({"messages": messages, "add_generation_prompt": prompt, "text": text, "ids": ids})
    templates = []
    for source in TEMPLATES:
        for messages in CHATS:
            text = tokenizer.apply_chat_template(messages, chat_template=source, tokenize=False, add_generation_prompt=True)
            templates.append({"source": source, "messages": messages, "text": text})
    result = {
        "eos": tokenizer.eos_token_id,
        "bos": tokenizer.bos_token_id,
        "pad": tokenizer.pad_token_id,
        "vocabulary": len(tokenizer),
        "chat_template": tokenizer.chat_template,
        "texts": texts,
        "chats": chats,
        "templates": templates,
    }
    parts = []
    for name, value in result.items():
        if isinstance(value, list):
            value = "[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]"
        else:
            value = json.dumps(value)
        parts.append(f"{json.dumps(name)}: {value}")
    print("{\n" + ",\n".join(parts) + "\n}")


main()
